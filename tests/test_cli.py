"""The command line as a user meets it: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import PATIENT, make_series
from pydicom import dcmread
from pydicom.data import get_testdata_file

from uhrct import cli, formats
from uhrct.volume import Volume

CT_SMALL = Path(get_testdata_file("CT_small.dcm", download=False))


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Uhrct = Callable[..., Result]


@pytest.fixture
def uhrct(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uhrct:
    """uhrct("upscale", a, b, ...) in this process: importing torch anew for every test would take minutes."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["uhrct", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        before = signal.getsignal(signal.SIGTERM)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                cli.main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        finally:
            signal.signal(signal.SIGTERM, before)
            logging.disable(logging.NOTSET)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def weights(tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    """Three slices with odd sides, pixels that are not square, somewhere in the patient."""
    hu = np.stack([np.roll(slice_hu, k, 1)[:45, :37] for k in range(3)])
    return Volume(hu, (2.5, 0.9, 0.8), origin_mm=(-100.0, 20.5, -7.0))


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too; folders as such."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


def refused(result: Result, *words: str) -> None:
    """One line on stderr that says `words`, an exit code that scripts notice, no traceback, no patient."""
    assert result.code == 2, result
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("uhrct: ")
    assert "Traceback" not in result.err
    assert PATIENT not in result.err
    assert result.out == ""
    for word in words:
        assert word in lines[0], result.err


def done(result: Result) -> Result:
    assert result.code == 0, result
    return result


def same_place(fine: Volume, coarse: Volume) -> None:
    assert np.allclose(fine.grid.corner_mm, coarse.grid.corner_mm, atol=1e-6)
    assert np.allclose(fine.grid.extent_mm, coarse.grid.extent_mm, atol=1e-6)
    assert np.allclose(fine.direction, coarse.direction, atol=1e-6)


# --- upscale


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
    formats.write(scan, tmp_path / source)
    before = everything(tmp_path)
    result = done(uhrct("upscale", tmp_path / source, tmp_path / target, "--weights", weights))
    out = formats.read(tmp_path / target)
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
    assert "3x90x74 voxels of 2.500 x 0.450 x 0.400 mm" in result.err
    assert result.out == ""


def test_the_result_is_that_of_the_api(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    import uhrct as package

    formats.write(scan, tmp_path / "in.nii.gz")
    done(uhrct("upscale", tmp_path / "in.nii.gz", tmp_path / "out.npz", "--weights", weights))
    out = package.upscale(package.read(tmp_path / "in.nii.gz"), scale=2, weights=weights)
    np.testing.assert_array_equal(out.hu, formats.read(tmp_path / "out.npz").hu)


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
    same_place(formats.read(tmp_path / "sr"), formats.read(CT_SMALL))


def test_a_second_run_gives_identical_bytes(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
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
    formats.write(scan, tmp_path / "in.npz")

    def run(*options: object) -> np.ndarray:
        out = tmp_path / "out.npz"
        done(uhrct("upscale", tmp_path / "in.npz", out, "--weights", weights, *options))
        return formats.read(out).hu.astype(float)

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
    formats.write(scan, tmp_path / "in.npz")
    left = {}
    for mode in ("off", "hard"):
        result = done(
            uhrct("upscale", tmp_path / "in.npz", tmp_path / "o.npz", "--weights", weights, "--consistency", mode)
        )
        left[mode] = float(result.err.split("measured data by ")[1].split(" HU")[0])
    assert left["hard"] < 0.3
    assert left["off"] > left["hard"]


def test_maps_lie_beside_the_image(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    formats.write(scan, tmp_path / "in.npz")
    maps = ("--structure", tmp_path / "v.nii.gz", "--uncertainty", tmp_path / "sd.nrrd")
    base = ("upscale", tmp_path / "in.npz", tmp_path / "out", "--weights", weights)
    done(uhrct(*base, *maps, "--steps", 2, "--samples", 2))
    v, sd = formats.read(tmp_path / "v.nii.gz"), formats.read(tmp_path / "sd.nrrd")
    for m in (v, sd):
        assert m.shape == (3, 90, 74)
        assert m.hu.dtype == np.float32
        same_place(m, scan)
    assert 0 <= v.hu.min() < v.hu.max() <= 1
    assert sd.hu.min() >= 0
    assert sd.hu.max() > 0.1


def test_nothing_is_said_when_quiet(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    """No progress, no disclaimer, no note about the localizer that lies in the series."""

    def scout(k, ds):
        if k == 4:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    make_series(tmp_path / "in", shape=(5, 12, 14), edit=scout)
    options = ("--weights", weights, "--steps", 2, "--quiet")
    for verb, target, more in (
        ("upscale", "a.nii.gz", options),
        ("upscale", "b", options),
        ("degrade", "c", ("-q",)),
        ("structure", "d.nrrd", ("-q",)),
    ):
        result = done(uhrct(verb, tmp_path / "in", tmp_path / target, *more))
        assert (result.out, result.err) == ("", "")
    loud = done(uhrct("upscale", tmp_path / "in", tmp_path / "e.npz", "--weights", weights))
    assert "uhrct: note: ignored 1 localizer" in loud.err
    assert "upscale: done in" in loud.err


def test_errors_are_said_when_quiet(uhrct: Uhrct, tmp_path: Path) -> None:
    refused(uhrct("upscale", tmp_path / "none", tmp_path / "out", "--quiet"), "no such file or folder")


def test_slices_of_nothing_but_padding(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    """Scanners pad whole slices at a helix's ends; there is nothing to compare there, and nothing to warn of."""
    hu = scan.hu.copy()
    hu[0] = -3024
    for name, values in (("first", hu), ("all", np.full_like(hu, -3024))):
        formats.write(scan.on_grid(scan.grid, values), tmp_path / f"{name}.npz")
        out = tmp_path / f"{name}.nii.gz"
        result = done(uhrct("upscale", tmp_path / f"{name}.npz", out, "--weights", weights))
        assert (formats.read(out).hu[0] == -3024).all()
        assert "note" not in result.err
        assert "nan HU" not in result.err


def test_spacing_of_an_npz_by_option(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", np.zeros((9, 11), np.int16))
    out = tmp_path / "out.npz"
    base = ("upscale", tmp_path / "in.npz", out, "--weights", weights)
    refused(uhrct(*base), "--spacing Z,Y,X")
    refused(uhrct(*base, "--spacing", "1,2"), "three positive numbers")
    refused(uhrct(*base, "--spacing", "1,0,2"), "three positive numbers")
    refused(uhrct(*base, "--spacing", "1,a,2"), "numbers with commas")
    assert not out.exists()
    done(uhrct(*base, "--spacing", "3,1,0.8"))
    assert formats.read(out).spacing_mm == (3.0, 0.5, 0.4)


def test_a_series_by_number(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in" / "1", number=3, seed=1, shape=(2, 8, 8))
    make_series(tmp_path / "in" / "2", number=4, seed=2, shape=(3, 8, 8))
    done(uhrct("upscale", tmp_path / "in", tmp_path / "out.npz", "--weights", weights, "--series", 2))
    assert formats.read(tmp_path / "out.npz").shape == (3, 16, 16)


def test_a_result_replaces_an_older_file(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    formats.write(scan, tmp_path / "in.npz")
    (tmp_path / "out.nii.gz").write_text("older")
    done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.nii.gz", "--weights", weights))
    assert formats.read(tmp_path / "out.nii.gz").shape == (3, 90, 74)


# --- degrade, structure, info, models


@pytest.mark.parametrize("kind", ["scanner", "bicubic"])
def test_degrade_then_upscale_brings_the_grid_back(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, kind: str
) -> None:
    formats.write(scan, tmp_path / "hr.nii.gz")
    lr, sr = tmp_path / "lr.nrrd", tmp_path / "sr.nii.gz"
    result = done(uhrct("degrade", tmp_path / "hr.nii.gz", lr, "--kind", kind))
    assert f"{kind} model" in result.err
    done(uhrct("upscale", lr, sr, "--weights", weights))
    cropped = scan.on_grid(
        type(scan.grid)((3, 44, 36), scan.spacing_mm, scan.origin_mm, scan.direction), scan.hu[:, :44, :36]
    )
    same_place(formats.read(lr), cropped)
    back = formats.read(sr)
    same_place(back, cropped)
    assert back.shape == (3, 44, 36)
    assert back.spacing_mm == pytest.approx(scan.spacing_mm, abs=1e-6)
    assert np.allclose(back.origin_mm, scan.origin_mm, atol=1e-6)
    assert (back.hu[0, :8, :8] == -2000).all()


def test_degrade_is_the_acquisition_model(uhrct: Uhrct, scan: Volume, tmp_path: Path) -> None:
    import torch

    from uhrct.acquisition import Acquisition

    hu = scan.hu.astype(np.float32)[:, :44, :36]
    hu[hu < -1500] = -1024
    formats.write(Volume(hu, scan.spacing_mm), tmp_path / "hr.npz")
    done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", "--scale", "3x2x2"))
    lr = formats.read(tmp_path / "lr.npz")
    assert lr.shape == (1, 22, 18)
    expected = Acquisition((3, 2, 2)).forward(torch.from_numpy(hu))
    assert np.allclose(lr.hu, expected, atol=0.51)


def test_noise_has_its_level_and_its_seed(uhrct: Uhrct, tmp_path: Path) -> None:
    formats.write(Volume(np.zeros((1, 128, 128), np.int16), (1, 1, 1)), tmp_path / "hr.npz")
    seen = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.npz"
        done(uhrct("degrade", tmp_path / "hr.npz", out, "--noise-hu", 20, "--seed", seed))
        seen[name] = formats.read(out).hu
    assert np.array_equal(seen["a"], seen["b"])
    assert not np.array_equal(seen["a"], seen["c"])
    assert seen["a"].std() == pytest.approx(20, rel=0.05)


def test_degrade_does_not_wrap_round_at_16_bits(uhrct: Uhrct, tmp_path: Path) -> None:
    """Metal at the end of the scale: bicubic overshoots beside it, and noise does anywhere."""
    hu = np.full((1, 32, 32), 32767, np.int16)
    hu[:, :, :15] = -1000
    formats.write(Volume(hu, (1, 1, 1)), tmp_path / "hr.npz")
    for options in (("--kind", "bicubic"), ("--noise-hu", "50")):
        done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", *options))
        assert formats.read(tmp_path / "lr.npz").hu[0, :, 8:].min() > 25000


def test_psf_in_mm_blurs(uhrct: Uhrct, scan: Volume, tmp_path: Path) -> None:
    formats.write(scan, tmp_path / "hr.npz")
    detail = []
    for fwhm in (0, 1, 3):
        done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", "--psf-fwhm-mm", fwhm))
        detail.append(np.abs(np.diff(formats.read(tmp_path / "lr.npz").hu[:, 6:].astype(float))).mean())
    assert detail[0] > detail[1] > detail[2]


def test_structure_map(uhrct: Uhrct, scan: Volume, tmp_path: Path) -> None:
    formats.write(scan, tmp_path / "in.nii.gz")
    seen = []
    for k, options in enumerate(
        ([], ["--operator", "frangi"], ["--sigma-mm", "3"], ["--contrast-hu", "20"], ["--polarity", "dark"])
    ):
        out = tmp_path / f"{k}.mha"
        result = done(uhrct("structure", tmp_path / "in.nii.gz", out, *options))
        assert "structure: done" in result.err
        v = formats.read(out)
        assert v.shape == scan.shape
        same_place(v, scan)
        assert 0 <= v.hu.min() < v.hu.max() <= 1
        assert all(not np.array_equal(v.hu, other) for other in seen)
        seen.append(v.hu)


def test_info_lists_what_is_there(uhrct: Uhrct, tmp_path: Path) -> None:
    def edit(k, ds):
        ds.SeriesDescription = "LUNG [/C] [red]:smile:"  # brackets are no markup, and no mistake of markup either

    make_series(tmp_path / "1", number=3, seed=1, edit=edit)
    make_series(tmp_path / "2", number=4, seed=2, edit=lambda k, ds: k != 2)
    out = done(uhrct("info", tmp_path)).out
    assert "LUNG [/C] [red]:smile:" in out
    assert "ACME Ring 1 B30" in out
    assert "5 6 7" in out
    assert "no: missing slices" in out
    assert PATIENT not in out
    assert "4711" not in out


@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "a.mha"])
def test_info_of_files(uhrct: Uhrct, scan: Volume, tmp_path: Path, name: str) -> None:
    formats.write(scan, tmp_path / name)
    out = done(uhrct("info", tmp_path / name)).out
    assert "3 45 37" in out
    assert "2.5 0.9 0.8" in out
    assert "yes" in out


def test_info_of_nothing(uhrct: Uhrct, tmp_path: Path) -> None:
    refused(uhrct("info", tmp_path / "none"), "no such file")
    refused(uhrct("info", tmp_path), "folder is empty")


def test_models_lists_the_weights(uhrct: Uhrct, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("uhrct.model.WEIGHTS_DIR", weights.parent)
    assert "tiny" in done(uhrct("models")).out  # without a card too
    card = {"licence": "CC BY 4.0", "training_data": "made up", "gain_db": {"p1": 6.1}}
    (weights / "card.json").write_text(json.dumps(card))
    out = done(uhrct("models")).out
    for word in ("tiny", "x2", "yes", "CC BY 4.0", "made up", "p1 +6.10 dB"):
        assert word in out
    # and they are found by name, and by scale
    formats.write(Volume(np.zeros((1, 6, 6), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    for options in (("--weights", "tiny"), ()):
        done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.npz", *options))
    refused(uhrct("upscale", tmp_path / "in.npz", tmp_path / "x.npz", "--weights", "huge"), "shipped: tiny")


# --- train


def test_train_then_upscale(
    uhrct: Uhrct, slice_hu: np.ndarray, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus").mkdir()
    formats.write(Volume(np.stack([slice_hu, slice_hu[::-1]]), (1, 0.8, 0.8)), tmp_path / "corpus" / "a.npz")
    config = tmp_path / "small.yaml"
    config.write_text(f"corpus: {tmp_path / 'corpus'}\nvalidation: {tmp_path / 'corpus'}\nvalidation_slices: 1\n")
    monkeypatch.chdir(tmp_path)  # where the default runs/ is made
    overrides = ["model.mean.image_width=8", "model.mean.image_blocks=1", "batch=2", "crop=16", "steps=2"]
    result = done(uhrct("train", config, *overrides, "--device", "cpu"))
    run = tmp_path / "runs" / "small"
    assert "1 patients" in result.err
    assert "validation a:" in result.err
    assert "model in runs/small/model" in result.out
    assert (run / "curve.png").is_file()
    formats.write(scan, tmp_path / "in.npz")
    done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--weights", run / "model"))
    assert formats.read(tmp_path / "out.npz").shape == (3, 90, 74)

    refused(uhrct("train", config, *overrides), "not empty; go on with --resume")
    result = done(uhrct("train", config, *overrides, "--resume", "--quiet"))
    assert (result.out, result.err) == ("", "")
    refused(uhrct("train", config, "bathc=2", "--out", tmp_path / "b"), "unknown setting 'bathc'")
    refused(uhrct("train", tmp_path / "none.yaml"), "none.yaml")
    refused(uhrct("train", config, "corpus=nowhere", "--out", tmp_path / "c", "-q"), "no such corpus")


# --- bad input: one line, exit code 2, nothing left


def bad_empty(folder: Path) -> tuple[Path, str]:
    (folder / "in").mkdir()
    return folder / "in", "folder is empty"


def bad_two_series(folder: Path) -> tuple[Path, str]:
    make_series(folder / "in" / "1", number=3, seed=1)
    make_series(folder / "in" / "2", number=4, seed=2)
    return folder / "in", "--series NUMBER-or-UID: 1: CHEST 3 (CT, 5 slices); 2: CHEST 4"


def bad_missing_slices(folder: Path) -> tuple[Path, str]:
    make_series(folder / "in", edit=lambda k, ds: k != 2)
    return folder / "in", "missing slices: 1"


def bad_localizer_alone(folder: Path) -> tuple[Path, str]:
    def edit(k, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    make_series(folder / "in", edit=edit)
    return folder / "in", "localizer"


def bad_truncated_dicom(folder: Path) -> tuple[Path, str]:
    make_series(folder / "in", shape=(3, 32, 32))
    file = folder / "in" / "002.dcm"
    file.write_bytes(file.read_bytes()[:-500])
    return folder / "in", "002.dcm"


def bad_truncated_nifti(folder: Path) -> tuple[Path, str]:
    formats.write(
        Volume(np.random.default_rng(0).integers(0, 99, (4, 30, 30)).astype("i2"), (1, 1, 1)), folder / "a.nii"
    )
    (folder / "a.nii").write_bytes((folder / "a.nii").read_bytes()[:-2000])
    return folder / "a.nii", "truncated"


def bad_text_named_dcm(folder: Path) -> tuple[Path, str]:
    (folder / "text.dcm").write_text("this is a text\n" * 50)
    return folder / "text.dcm", "not a DICOM file"


def bad_mr(folder: Path) -> tuple[Path, str]:
    return Path(get_testdata_file("MR_small.dcm", download=False)), "is MR, not CT"


def bad_rgb(folder: Path) -> tuple[Path, str]:
    ds = dcmread(get_testdata_file("SC_rgb_rle.dcm", download=False))
    ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "CT", "1", "0"
    ds.save_as(folder / "rgb.dcm")
    return folder / "rgb.dcm", "colour image"


def bad_nan(folder: Path) -> tuple[Path, str]:
    values = np.zeros((3, 4, 5), np.float32)
    values[1, 2, 3] = np.nan
    np.savez(folder / "a.npz", values, spacing_mm=(1, 1, 1))
    return folder / "a.npz", "NaN or infinite"


def bad_inf(folder: Path) -> tuple[Path, str]:
    values = np.zeros((3, 4, 5), np.float32)
    values[1, 2, 3] = -np.inf
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "a.nii.gz"))
    return folder / "a.nii.gz", "NaN or infinite"


def bad_four_dimensions(folder: Path) -> tuple[Path, str]:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(folder / "a.nii.gz"))
    return folder / "a.nii.gz", "4 dimensions"


def _bad_spacing(folder: Path, value: float) -> tuple[Path, str]:
    formats.write(Volume(np.zeros((3, 4, 5), np.int16), (1, 1, 1)), folder / "a.nii")
    content = bytearray((folder / "a.nii").read_bytes())
    struct.pack_into("<f", content, 84, value)
    (folder / "a.nii").unlink()
    (folder / "a.nii.gz").write_bytes(gzip.compress(content))
    return folder / "a.nii.gz", "is not positive"


def bad_zero_spacing(folder: Path) -> tuple[Path, str]:
    return _bad_spacing(folder, 0.0)


def bad_negative_spacing(folder: Path) -> tuple[Path, str]:
    return _bad_spacing(folder, -1.5)


def bad_unknown_suffix(folder: Path) -> tuple[Path, str]:
    (folder / "a.foo").write_text("hello")
    return folder / "a.foo", "suffix .foo is unknown"


def bad_npz_key(folder: Path) -> tuple[Path, str]:
    np.savez(folder / "a.npz", image=np.zeros((3, 4, 5)))
    return folder / "a.npz", "keys here: image"


def bad_npz_pickle(folder: Path) -> tuple[Path, str]:
    np.savez(folder / "a.npz", np.array([[{"a": 1}]], dtype=object))
    return folder / "a.npz", "damaged npz"


BAD = [f for name, f in sorted(globals().items()) if name.startswith("bad_")]


@pytest.mark.parametrize("make", BAD)
@pytest.mark.parametrize("verb", ["upscale", "degrade", "structure"])
def test_bad_input(
    uhrct: Uhrct, weights: Path, tmp_path: Path, verb: str, make: Callable[[Path], tuple[Path, str]]
) -> None:
    source, words = make(tmp_path)
    before = everything(tmp_path)
    options = ("--weights", weights) if verb == "upscale" else ()
    refused(uhrct(verb, source, tmp_path / "out.nii.gz", *options), str(source), words)
    assert everything(tmp_path) == before


def test_localizer_mixed_in_is_left_out_with_a_note(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    """A scout under the scan's own UID, and one as a series of its own."""

    def scout(k, ds):
        if k == 4:
            ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def scouts(k, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        return k < 1

    make_series(tmp_path / "one", edit=scout)
    make_series(tmp_path / "two" / "scan", seed=1)
    make_series(tmp_path / "two" / "scout", seed=2, edit=scouts)
    for name, slices, words in (("one", 4, "ignored 1 localizer"), ("two", 5, "ignored series")):
        result = done(uhrct("upscale", tmp_path / name, tmp_path / f"{name}.npz", "--weights", weights))
        assert formats.read(tmp_path / f"{name}.npz").shape[0] == slices
        assert f"uhrct: note: {words}" in result.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scale", "3"), "no weights serve scale x3; there are: tiny (x2)"),
        (("--scale", "5x2x2"), "no weights serve scale 5x2x2; there are: tiny (x2)"),
        (("--scale", "two"), "--scale 'two'"),
        (("--scale", "0"), "--scale '0'"),
        (("--scale", "2x2"), "--scale '2x2'"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--samples", "3"), "--steps 4"),
        (("--tile", "0"), "tile must be at least 1"),
        (("--uncertainty", "sd.nii.gz"), "--samples 8"),
        (("--spacing", "1,1,1"), "--spacing is for .npz"),
        (("--series", "1"), "--series is for DICOM"),
        (("--structure", "map"), "which a CT series can't"),
    ],
)
def test_senseless_options(
    uhrct: Uhrct,
    weights: Path,
    scan: Volume,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    formats.write(scan, tmp_path / "in.nii")
    before = everything(tmp_path)
    refused(uhrct("upscale", "in.nii", "out.nii", "--weights", weights, *options), words)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--noise-hu", "-1"), "--noise-hu -1.0"),
        (("--noise-hu", "nan"), "--noise-hu nan"),
        (("--psf-fwhm-mm", "inf"), "--psf-fwhm-mm inf"),
        (("--kind", "bicubic", "--psf-fwhm-mm", "1"), "no PSF to choose"),
        (("--seed", "-1"), "--seed -1"),
        (("--seed", "99999999999999999999"), "--seed 9999"),
        (("--scale", "99"), "too small for scale"),
    ],
)
def test_senseless_degradations(
    uhrct: Uhrct, scan: Volume, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    formats.write(scan, tmp_path / "in.nii")
    refused(uhrct("degrade", tmp_path / "in.nii", tmp_path / "out.nii", *options), words)
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii"]


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--sigma-mm", "1,0"), "scales above 0"), (("--sigma-mm", "a"), "numbers"), (("--contrast-hu", "nan"), "0 HU")],
)
def test_senseless_structure_options(
    uhrct: Uhrct, scan: Volume, tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    formats.write(scan, tmp_path / "in.nii")
    refused(uhrct("structure", tmp_path / "in.nii", tmp_path / "out.nii", *options), words)
    refused(uhrct("structure", tmp_path / "in.nii", tmp_path / "out"), "which a CT series can't")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("in.nii", "output equals input"),
        ("missing/out.nii", "does not exist; create it first"),
        ("file/out.nii", "does not exist"),
        ("out.foo", "unknown suffix .foo"),
        ("used", "folder is not empty"),
        ("file", "is a file"),
        pytest.param(
            "/proc/out.nii",
            "cannot write into /proc",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc"),
        ),
    ],
)
@pytest.mark.parametrize("as_map", [False, True])
def test_outputs_that_cannot_be(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, target: str, words: str, as_map: bool
) -> None:
    formats.write(scan, tmp_path / "in.nii")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "a.txt").write_text("someone's")
    (tmp_path / "file").write_text("someone's")
    before = everything(tmp_path)
    outputs = (tmp_path / "out.npz", "--structure", tmp_path / target) if as_map else (tmp_path / target,)
    refused(uhrct("upscale", tmp_path / "in.nii", *outputs, "--weights", weights), words)
    assert everything(tmp_path) == before


def test_outputs_in_each_others_way(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    formats.write(scan, tmp_path / "in.nii")
    (tmp_path / "out").mkdir()
    before = everything(tmp_path)
    base = ("upscale", tmp_path / "in.nii", "--weights", weights)
    same = tmp_path / "a.nii"
    refused(uhrct(*base, same, "--structure", same), "same name")
    # found after the work, this would have been an error at the end of hours
    refused(uhrct(*base, tmp_path / "out", "--structure", tmp_path / "out" / "v.nii"), "lies inside another output")
    assert everything(tmp_path) == before


def test_scan_inside_the_output_folder(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    refused(uhrct("upscale", tmp_path / "in", tmp_path / "in" / "out", "--weights", weights), "lies inside the input")
    refused(uhrct("upscale", tmp_path / "in", tmp_path / "in", "--weights", weights), "output equals input")


def damage_blob(weights: Path) -> None:
    blob = bytearray((weights / "model.safetensors").read_bytes())
    blob[-5] ^= 1
    (weights / "model.safetensors").write_bytes(blob)


def cut_blob(weights: Path) -> None:
    (weights / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes()[:999])


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(weights: Path) -> None:
        config = json.loads((weights / "config.json").read_text())
        (weights / "config.json").write_text(json.dumps({**config, **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_blob, "damaged"),
        (cut_blob, "damaged"),
        (lambda w: (w / "model.safetensors").unlink(), "no such file"),
        (lambda w: (w / "config.json").write_text("{"), "not readable as JSON"),
        (lambda w: (w / "config.json").unlink(), "no config.json"),
        (lambda w: shutil.rmtree(w), "no such weights"),
        (change_config(format_version=99), "model format 99"),
        (change_config(colour="red"), "colour"),
        (change_config(mean={"image_widht": 8}), "image_widht"),
    ],
)
def test_weights_that_cannot_be_used(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    formats.write(scan, tmp_path / "in.nii")
    before = everything(tmp_path)
    damage(weights)
    refused(uhrct("upscale", tmp_path / "in.nii", tmp_path / "out", "--weights", weights), words)
    assert everything(tmp_path) == before


def test_a_failure_in_the_middle_leaves_nothing(
    uhrct: Uhrct, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image and both maps are half there when memory runs out."""
    from uhrct.upscaler import Upscaler

    formats.write(Volume(np.zeros((4, 300, 300), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    before = everything(tmp_path)
    whole = Upscaler._slab
    seen = []

    def slab(self, lr, first, *rest):
        seen.append({p.name for p in tmp_path.iterdir()})
        if first > 0:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")
        return whole(self, lr, first, *rest)

    monkeypatch.setattr(Upscaler, "_slab", slab)
    maps = ("--structure", tmp_path / "v.nii")
    refused(
        uhrct("upscale", tmp_path / "in.npz", tmp_path / "out", *maps, "--weights", weights, "--quiet"),
        "not enough memory; try a smaller --tile",
    )
    assert len(seen) == 2
    assert len([name for name in seen[1] if name.startswith(".uhrct-")]) == 2  # it was under way
    assert everything(tmp_path) == before


def test_mistakes_of_ours_are_not_hidden(uhrct: Uhrct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("uhrct.job.info_table", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        uhrct("info", tmp_path)


# --- as a process of its own

CHILD = """
import sys, time
from uhrct import cli
from uhrct.upscaler import Upscaler

whole = Upscaler._slab

def slab(self, lr, first, *rest):
    if first >= 2:
        print("half", flush=True)
        time.sleep(60)
    return whole(self, lr, first, *rest)

Upscaler._slab = slab
cli.main()
"""


@pytest.mark.parametrize("name", ["out.nii.gz", "out"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_while_writing(weights: Path, tmp_path: Path, name: str, how: signal.Signals) -> None:
    formats.write(Volume(np.zeros((4, 260, 260), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    before = everything(tmp_path)
    arguments = ["upscale", tmp_path / "in.npz", tmp_path / name, "--weights", weights]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "half\n"
        assert len(list(tmp_path.iterdir())) == 2  # half is written, under another name
        child.send_signal(how)
        assert child.wait(20) != 0
        assert "Traceback" not in child.stderr.read()
    left = everything(tmp_path)
    if how == signal.SIGKILL:  # nobody can clean up; what is left does not look like a result
        left = {k: v for k, v in left.items() if not k.startswith(".uhrct-")}
    assert left == before


def run_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "uhrct", *map(str, arguments)], capture_output=True, text=True)


def test_exit_code_and_line_of_a_real_process(tmp_path: Path) -> None:
    process = run_process("upscale", tmp_path / "none.nii", tmp_path / "out.nii")
    refused(Result(process.returncode, process.stdout, process.stderr), "none.nii: no such file or folder")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from uhrct import cli\n"
        "sys.argv = ['uhrct', '--help']\n"
        "try:\n    cli.main()\n"
        "finally:\n    print([m for m in ('torch', 'numpy', 'pydicom', 'SimpleITK') if m in sys.modules])\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0
    for verb in ("upscale", "degrade", "structure", "info", "models", "train"):
        assert verb in process.stdout
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", ["upscale", "degrade", "structure", "info", "models", "train"])
def test_every_verb_explains_itself(uhrct: Uhrct, verb: str) -> None:
    assert "Usage" in done(uhrct(verb, "--help")).out


def test_no_verb_shows_the_help_and_a_wrong_one_fails(uhrct: Uhrct) -> None:
    result = uhrct()
    assert "Usage" in result.out + result.err
    assert uhrct("enlarge").code == 2
