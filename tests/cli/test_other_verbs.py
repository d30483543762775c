"""`uhrct degrade`, `structure`, `info`, `models`, `train`: what they write and say."""

import json
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from run_cli import NOTHING, REFUSED, Uhrct, done, refused, same_place

import uhrct.cli.main
from uhrct import io
from uhrct.core.volume import Volume


@pytest.mark.parametrize("kind", ["scanner", "bicubic"])
def test_degrade_then_upscale_brings_the_grid_back(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, kind: str
) -> None:
    io.write(scan, tmp_path / "hr.nii.gz")
    lr, sr = tmp_path / "lr.nrrd", tmp_path / "sr.nii.gz"
    result = done(uhrct("degrade", tmp_path / "hr.nii.gz", lr, "--kind", kind))
    assert f"{kind} model" in result.err
    done(uhrct("upscale", lr, sr, "--weights", weights))
    cropped = scan.on_grid(
        type(scan.grid)((3, 44, 36), scan.spacing_mm, scan.origin_mm, scan.direction), scan.hu[:, :44, :36]
    )
    same_place(io.read(lr), cropped)
    back = io.read(sr)
    same_place(back, cropped)
    assert back.shape == (3, 44, 36)
    assert back.spacing_mm == pytest.approx(scan.spacing_mm, abs=1e-6)
    assert np.allclose(back.origin_mm, scan.origin_mm, atol=1e-6)
    assert (back.hu[0, :8, :8] == -2000).all()


def test_degrade_is_the_acquisition_model(uhrct: Uhrct, scan: Volume, tmp_path: Path) -> None:
    import torch

    from uhrct.physics.acquisition import Acquisition

    hu = scan.hu.astype(np.float32)  # 45 x 37: the far line and column are cropped
    hu[hu < -1500] = -1024
    io.write(Volume(hu, scan.spacing_mm), tmp_path / "hr.npz")
    done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", "--scale", "3x2x2"))
    lr = io.read(tmp_path / "lr.npz")
    assert lr.shape == (1, 22, 18)
    expected = Acquisition((3, 2, 2)).forward(torch.from_numpy(hu[:, :44, :36]))
    assert np.allclose(lr.hu, expected, atol=0.51)


def test_noise_has_its_level_and_its_seed(uhrct: Uhrct, tmp_path: Path) -> None:
    io.write(Volume(np.zeros((1, 128, 128), np.int16), (1, 1, 1)), tmp_path / "hr.npz")
    seen = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.npz"
        done(uhrct("degrade", tmp_path / "hr.npz", out, "--noise-hu", 20, "--seed", seed))
        seen[name] = io.read(out).hu
    assert np.array_equal(seen["a"], seen["b"])
    assert not np.array_equal(seen["a"], seen["c"])
    assert seen["a"].std() == pytest.approx(20, rel=0.05)


def test_degrade_does_not_wrap_round_at_16_bits(uhrct: Uhrct, tmp_path: Path) -> None:
    """Metal at the end of the scale: bicubic overshoots beside it, and noise does anywhere."""
    hu = np.full((1, 32, 32), 32767, np.int16)
    hu[:, :, :15] = -1000
    io.write(Volume(hu, (1, 1, 1)), tmp_path / "hr.npz")
    for options in (("--kind", "bicubic"), ("--noise-hu", "50")):
        done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", *options, "--overwrite"))
        assert io.read(tmp_path / "lr.npz").hu[0, :, 8:].min() > 25000


def test_psf_in_mm_blurs(uhrct: Uhrct, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "hr.npz")
    detail = []
    for fwhm in (0, 1, 3):
        done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", "--psf-fwhm-mm", fwhm, "--overwrite"))
        detail.append(np.abs(np.diff(io.read(tmp_path / "lr.npz").hu[:, 6:].astype(float))).mean())
    assert detail[0] > detail[1] > detail[2]


def test_degraded_series_have_uids_by_their_settings(uhrct: Uhrct, tmp_path: Path) -> None:
    """Equal UIDs on different voxels would make an archive keep one of them. A PSF of 0 is not the default one."""
    make_series(tmp_path / "in", shape=(2, 8, 8))
    uids = []
    for k, options in enumerate(([], [], ["--psf-fwhm-mm", 0], ["--noise-hu", 5], ["--noise-hu", 5, "--seed", 1])):
        done(uhrct("degrade", tmp_path / "in", tmp_path / str(k), *options))
        [info] = io.inspect(tmp_path / str(k))
        uids.append(info.uid)
    assert uids[0] == uids[1]
    assert len(set(uids)) == 4


def test_structure_map(uhrct: Uhrct, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.nii.gz")
    seen = []
    for k, options in enumerate(
        ([], ["--operator", "frangi"], ["--sigma-mm", "3"], ["--contrast-hu", "20"], ["--polarity", "dark"])
    ):
        out = tmp_path / f"{k}.mha"
        result = done(uhrct("structure", tmp_path / "in.nii.gz", out, *options))
        assert "structure: done" in result.err
        v = io.read(out)
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
    io.write(scan, tmp_path / name)
    out = done(uhrct("info", tmp_path / name)).out
    assert "3 45 37" in out
    assert "2.5 0.9 0.8" in out
    assert "yes" in out


def test_info_of_nothing(uhrct: Uhrct, tmp_path: Path) -> None:
    refused(uhrct("info", tmp_path / "none"), "no such file", code=REFUSED)
    refused(uhrct("info", tmp_path), "folder is empty", code=NOTHING)
    (tmp_path / "a.txt").write_text("no image")
    refused(uhrct("info", tmp_path), "no DICOM among 1 files", code=NOTHING)
    refused(uhrct("degrade", tmp_path, tmp_path.parent / "out.nii"), "no DICOM", code=NOTHING)


def test_models_lists_the_weights(uhrct: Uhrct, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("uhrct.models.folder.WEIGHTS_DIR", weights.parent)
    assert "tiny" in done(uhrct("models")).out  # without a card too
    card = {"licence": "CC BY 4.0", "training_data": "made up", "gain_db": {"p1": 6.1}}
    (weights / "card.json").write_text(json.dumps(card))
    out = done(uhrct("models")).out
    for word in ("tiny", "x2", "yes", "CC BY 4.0", "made up", "p1 +6.10 dB"):
        assert word in out
    # and they are found by name, and by scale
    io.write(Volume(np.zeros((1, 6, 6), np.int16), (1, 1, 1)), tmp_path / "in.npz")
    for options in (("--weights", "tiny"), ()):
        done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--overwrite", *options))
    refused(uhrct("upscale", tmp_path / "in.npz", tmp_path / "x.npz", "--weights", "huge"), "shipped: tiny")


def test_degrade_says_the_blur_that_upscale_wants(uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path) -> None:
    """The default is 0.6 pixels of the result. A kernel or another downsampling has no such number."""
    io.write(scan, tmp_path / "hr.npz")

    def said(*options: object) -> str:
        return done(uhrct("degrade", tmp_path / "hr.npz", tmp_path / "lr.npz", "--overwrite", *options)).err

    for factor in (2, 4):
        fwhm_mm = 0.6 * factor * scan.spacing_mm[1]
        assert f"--psf-fwhm-mm {fwhm_mm:.2f}\n" in said("--scale", factor)
    assert "--psf-fwhm-mm 1.25\n" in said("--psf-fwhm-mm", 1.25)
    assert "--psf-fwhm-mm" not in said("--kernel", "3.5,6") + said("--kind", "bicubic") + said("-q")


def test_train_then_upscale(
    uhrct: Uhrct, slice_hu: np.ndarray, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus").mkdir()
    io.write(Volume(np.stack([slice_hu, slice_hu[::-1]]), (1, 0.8, 0.8)), tmp_path / "corpus" / "a.npz")
    config = tmp_path / "small.yaml"
    corpus = tmp_path / "corpus"
    config.write_text(f"data: {{corpus: {corpus}, validation: {corpus}, validation_slices: 1}}\n")
    monkeypatch.chdir(tmp_path)  # where the default runs/ is made
    small = ["data.batch=2", "data.crop=16", "steps=2"]
    overrides = ["model.mean.image_width=8", "model.mean.image_blocks=1", *small]
    result = done(uhrct("train", config, *overrides, "--device", "cpu"))
    run = tmp_path / "runs" / "small"
    assert "stage mean: 1 series" in result.err
    assert "validation a:" in result.err
    assert "result in runs/small/model" in result.out
    assert (run / "curve.png").is_file()
    io.write(scan, tmp_path / "in.npz")
    done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.npz", "--weights", run / "model"))
    assert io.read(tmp_path / "out.npz").shape == (3, 90, 74)
    done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "same.npz", "--weights", run))
    assert np.array_equal(io.read(tmp_path / "same.npz").hu, io.read(tmp_path / "out.npz").hu)

    refused(uhrct("train", config, *overrides), "not empty; set --resume to go on")
    result = done(uhrct("train", config, *overrides, "--resume", "--quiet"))
    assert (result.out, result.err) == ("", "")
    result = done(uhrct("train", config, "stage=surrogate", *small, "--out", tmp_path / "s"))
    assert f"result in {tmp_path / 's' / 'surrogate.safetensors'}" in result.out
    refused(uhrct("train", config, "bathc=2", "--out", tmp_path / "b"), "unknown setting bathc")
    refused(uhrct("train", tmp_path / "none.yaml"), "none.yaml")
    refused(uhrct("train", config, "data.corpus=nowhere", "--out", tmp_path / "c", "-q"), "no such file or folder")


def test_version_is_the_packages(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["uhrct", "--version"])
    with pytest.raises(SystemExit) as stop:
        uhrct.cli.main.main()
    assert stop.value.code in (0, None)
    assert capsys.readouterr().out.strip() == uhrct.__version__
