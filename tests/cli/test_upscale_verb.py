"""`uhrct upscale`: what it writes and says, from every format to every format."""

from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series
from pydicom import dcmread
from pydicom.data import get_testdata_file
from run_cli import REFUSED, Uhrct, done, everything, refused, same_place

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.models.model import Model, ModelConfig

CT_SMALL = Path(get_testdata_file("CT_small.dcm", download=False))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.npz", "out.nii.gz"),
        ("in.nii", "out.nrrd"),
        ("in.nrrd", "out.mha"),
        ("in.mha", "out.mhd"),
        ("in.mhd", "out.npz"),
        ("in.nii.gz", "out"),
        ("in", "out.nii.gz"),
        ("in", "out"),
    ],
)
def test_every_format_in_and_out(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, source: str, target: str
) -> None:
    io.write(scan, tmp_path / source)
    before = everything(tmp_path)
    result = done(uhrct("upscale", tmp_path / source, tmp_path / target, "--weights", weights))
    out = io.read(tmp_path / target)
    assert out.shape == (3, 90, 74)
    assert out.spacing_mm == pytest.approx((2.5, 0.45, 0.4), abs=1e-6)
    assert out.hu.dtype == np.int16
    same_place(out, scan)
    # padding in the corner came back, and the body is where it was
    assert (out.hu[0, :20, :20] == -2000).all() or source == "in"
    body = out.hu[:, 60:, 50:].mean()
    assert body == pytest.approx(scan.hu[:, 30:, 25:].mean(), abs=30)
    assert {k: v for k, v in everything(tmp_path).items() if k in before} == before
    assert not [k for k in everything(tmp_path) if ".tmp" in k]
    assert "Research use only" in result.err
    assert "3 x 90 x 74 voxels of 2.500 x 0.450 x 0.400 mm" in result.err
    assert result.out == ""


def test_the_result_is_that_of_the_api(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    import uhrct as package

    io.write(scan, tmp_path / "in.nii.gz")
    done(uhrct("upscale", tmp_path / "in.nii.gz", tmp_path / "out.npz", "--weights", weights))
    out = package.upscale(package.read(tmp_path / "in.nii.gz"), scale=2, weights=weights)
    np.testing.assert_array_equal(out.hu, io.read(tmp_path / "out.npz").hu)


def test_a_dicom_file_becomes_a_derived_series(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    done(uhrct("upscale", CT_SMALL, tmp_path / "sr", "--weights", weights))
    [file] = (tmp_path / "sr").iterdir()
    source, derived = dcmread(CT_SMALL), dcmread(file)
    assert (derived.Rows, derived.Columns) == (256, 256)
    assert derived.PatientID == source.PatientID
    assert derived.StudyInstanceUID == source.StudyInstanceUID
    assert derived.SeriesInstanceUID != source.SeriesInstanceUID
    assert derived.ImageType[0] == "DERIVED"
    assert "Research use only" in derived.DerivationDescription
    same_place(io.read(tmp_path / "sr"), io.read(CT_SMALL))


def test_a_second_run_gives_identical_bytes(
    uhrct: Uhrct, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")  # the dates of the two runs differ
    make_series(tmp_path / "in", shape=(2, 16, 18))
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    for steps in ("1", "2"):
        for run in ("1", "2"):
            for name in ("dicom", "a.nii.gz", "a.npz"):
                out = tmp_path / run / f"{steps}{name}"
                done(uhrct("upscale", tmp_path / "in", out, "--weights", weights, "--steps", steps))
    assert everything(tmp_path / "1") == everything(tmp_path / "2")
    assert len(everything(tmp_path / "1")) == 2 * (1 + 2 + 2)


def test_settings_arrive(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    """Each option changes what it should change, and nothing where it should not."""
    io.write(scan, tmp_path / "in.npz")

    def run(*options: object) -> np.ndarray:
        out = tmp_path / "out.npz"
        done(uhrct("upscale", tmp_path / "in.npz", out, "--weights", weights, "--overwrite", *options))
        return io.read(out).hu.astype(float)

    mean = run()
    assert np.array_equal(run("--scale", "1x2x2", "--steps", 1, "--samples", 1, "--seed", 5), mean)
    assert np.array_equal(run("--device", "cpu", "--consistency", "auto"), mean)
    assert np.abs(run("--tile", 16) - mean).max() <= 1  # rounding to whole HU
    sample = run("--steps", 2)
    assert np.array_equal(run("--steps", 2, "--seed", 0), sample)
    assert not np.array_equal(sample, mean)
    assert not np.array_equal(run("--steps", 2, "--seed", 1), sample)
    assert not np.array_equal(run("--steps", 3), sample)
    assert not np.array_equal(run("--steps", 2, "--samples", 2), sample)
    hard, off = run("--consistency", "hard"), run("--consistency", "off")
    assert not np.array_equal(hard, mean)
    assert not np.array_equal(off, mean)


def test_agreement_with_the_data_is_measured_and_said(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path
) -> None:
    io.write(scan, tmp_path / "in.npz")
    left = {}
    for mode in ("off", "hard"):
        result = done(
            uhrct("upscale", tmp_path / "in.npz", tmp_path / f"{mode}.npz", "--weights", weights, "--consistency", mode)
        )
        left[mode] = float(result.err.split("differs from the scan by ")[1].split(" HU")[0])
    assert left["hard"] < 0.3
    assert left["off"] > left["hard"]


def test_maps_lie_beside_the_image(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.npz")
    maps = ("--structure", tmp_path / "v.nii.gz", "--spread", tmp_path / "sd.nrrd")
    base = ("upscale", tmp_path / "in.npz", tmp_path / "out", "--weights", weights)
    done(uhrct(*base, *maps, "--steps", 2, "--samples", 2))
    v, sd = io.read(tmp_path / "v.nii.gz"), io.read(tmp_path / "sd.nrrd")
    for m in (v, sd):
        assert m.shape == (3, 90, 74)
        assert m.hu.dtype == np.float32
        same_place(m, scan)
    assert 0 <= v.hu.min() < v.hu.max() <= 1
    assert sd.hu.min() >= 0
    assert sd.hu.max() > 0.1


def test_only_notes_are_said_when_quiet(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    """No progress, no plan, no disclaimer; but the note that the localizer in the series was left out."""

    def scout(k, ds):
        if k == 4:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    make_series(tmp_path / "in", shape=(5, 12, 14), edit=scout)
    options = ("--weights", weights, "--steps", 2, "--quiet")
    said = "uhrct: note: ignored 1 localizer image(s) in the series"
    for verb, target, more in (
        ("upscale", "a.nii.gz", options),
        ("upscale", "b", options),
        ("degrade", "c", ("-q",)),
        ("structure", "d.nrrd", ("-q",)),
    ):
        result = done(uhrct(verb, tmp_path / "in", tmp_path / target, *more))
        assert (result.out, result.err.splitlines()) == ("", [said])
    loud = done(uhrct("upscale", tmp_path / "in", tmp_path / "e.npz", "--weights", weights))
    assert said in loud.err
    assert "upscale: done in" in loud.err


def test_errors_are_said_when_quiet(uhrct: Uhrct, tmp_path: Path) -> None:
    refused(uhrct("upscale", tmp_path / "none", tmp_path / "out", "--quiet"), "no such file or folder", code=REFUSED)


def test_slices_of_nothing_but_padding(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    """Scanners pad whole slices at a helix's ends; there is nothing to compare there, and nothing to warn of."""
    hu = scan.hu.copy()
    hu[0] = -3024
    for name, values in (("first", hu), ("all", np.full_like(hu, -3024))):
        io.write(scan.on_grid(scan.grid, values), tmp_path / f"{name}.npz")
        out = tmp_path / f"{name}.nii.gz"
        result = done(uhrct("upscale", tmp_path / f"{name}.npz", out, "--weights", weights))
        assert (io.read(out).hu[0] == -3024).all()
        assert "note" not in result.err
        assert "nan HU" not in result.err


def test_spacing_of_an_npz_by_option(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", np.zeros((9, 11), np.int16))
    out = tmp_path / "out.npz"
    base = ("upscale", tmp_path / "in.npz", out, "--weights", weights)
    refused(uhrct(*base), "--input-spacing Z,Y,X", code=REFUSED)
    refused(uhrct(*base, "--input-spacing", "1,2"), "three positive numbers")
    refused(uhrct(*base, "--input-spacing", "1,0,2"), "three positive numbers")
    refused(uhrct(*base, "--input-spacing", "1,a,2"), "numbers separated by commas")
    assert not out.exists()
    done(uhrct(*base, "--input-spacing", "3,1,0.8"))
    assert io.read(out).spacing_mm == (3.0, 0.5, 0.4)


def test_a_series_by_number(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in" / "1", number=3, seed=1, shape=(2, 8, 8))
    make_series(tmp_path / "in" / "2", number=4, seed=2, shape=(3, 8, 8))
    done(uhrct("upscale", tmp_path / "in", tmp_path / "out.npz", "--weights", weights, "--series", 2))
    assert io.read(tmp_path / "out.npz").shape == (3, 16, 16)


def test_a_result_replaces_an_older_file_only_if_told(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path
) -> None:
    io.write(scan, tmp_path / "in.npz")
    (tmp_path / "out.nii.gz").write_text("older")
    command = ("upscale", tmp_path / "in.npz", tmp_path / "out.nii.gz", "--weights", weights)
    refused(uhrct(*command), "exists", "--overwrite")
    assert (tmp_path / "out.nii.gz").read_text() == "older"
    done(uhrct(*command, "--overwrite"))
    assert io.read(tmp_path / "out.nii.gz").shape == (3, 90, 74)


def test_a_spacing_instead_of_a_scale(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    """Nearest served scale, then resampling from the same corner, and both are said."""
    make_series(tmp_path / "in", shape=(3, 20, 18))
    source = io.read(tmp_path / "in")
    wanted = source.spacing_mm[1] / 1.7
    said = done(uhrct("upscale", tmp_path / "in", tmp_path / "out", "--weights", weights, "--spacing", wanted)).err
    assert "nearest scale x2" in said
    result = io.read(tmp_path / "out")
    assert result.spacing_mm == pytest.approx((source.spacing_mm[0], wanted, wanted), abs=1e-4)
    assert np.allclose(result.grid.corner_mm, source.grid.corner_mm, atol=1e-3)
    uid = {dcmread(f).SeriesInstanceUID for f in (tmp_path / "out").iterdir()}
    done(uhrct("upscale", tmp_path / "in", tmp_path / "plain", "--weights", weights))
    assert uid.isdisjoint(dcmread(f).SeriesInstanceUID for f in (tmp_path / "plain").iterdir())


def test_thick_slices_become_thin_ones(uhrct: Uhrct, tmp_path: Path) -> None:
    """Through plane to DICOM: positions, thickness and numbers of slices are those of the fine grid."""
    size = {"image_width": 8, "image_blocks": 1}
    Model(ModelConfig(scale=(5, 2, 2), context=2, properties=True, estimator=4, mean=size)).save_pretrained(
        tmp_path / "w"
    )
    make_series(tmp_path / "in", shape=(4, 16, 18))
    source = io.read(tmp_path / "in")
    arguments = ("upscale", tmp_path / "in", tmp_path / "out", "--weights", tmp_path / "w", "--scale", "5x2x2")
    assert "scan properties: blur (PSF) unknown" in done(uhrct(*arguments)).err  # an estimator without training
    files = [dcmread(f) for f in (tmp_path / "out").iterdir()]
    assert len(files) == 20
    for f in files:
        assert float(f.SliceThickness) == pytest.approx(source.spacing_mm[0] / 5)
    result = io.read(tmp_path / "out")
    assert result.shape == (20, 32, 36)
    assert np.allclose(result.grid.corner_mm, source.grid.corner_mm, atol=1e-3)
    told = (*arguments[:2], tmp_path / "told", *arguments[3:], "--noise-hu", "25", "--psf-fwhm-mm", "0.7")
    said = done(uhrct(*told)).err
    assert "noise 25.0 HU with correlation" in said
    assert "PSF 1.0" in said or "PSF 0." in said
    assert {dcmread(f).SeriesInstanceUID for f in (tmp_path / "told").iterdir()}.isdisjoint(
        f.SeriesInstanceUID for f in files
    )
