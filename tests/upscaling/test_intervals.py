"""Intervals: their laws, their calibration, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.models.calibration import (
    CALIBRATION,
    TISSUES,
    Calibration,
    TissueCalibration,
    guaranteed_level,
    save_calibration,
)
from uhrct.models.model import Model, ModelConfig
from uhrct.upscaling import calibrate as calibrate_module
from uhrct.upscaling.calibrate import FACTORS, Trial, calibrate
from uhrct.upscaling.calibrate import _outside as counts_outside
from uhrct.upscaling.calibrate import _tissues as choose_factors
from uhrct.upscaling.intervals import bounds_hu, not_calibrated, tissue_of
from uhrct.upscaling.upscaler import Upscaler

FAR = {name: (0.0, 1e4) for name in ("pixel_mm", "thickness_mm", "noise_hu", "kernel_lp_cm")}


@pytest.fixture
def model() -> Model:
    """Random weights that do something, with an interval network."""
    torch.manual_seed(0)
    size = {"image_width": 16, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1}
    out = Model(ModelConfig(mean=size, interval={"width": 8, "blocks": 1}, context=1)).eval().requires_grad_(False)
    for p in out.parameters():
        p += 0.05 * torch.randn(p.shape)
    return out


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    return Volume(np.stack([np.roll(slice_hu, k, 1) for k in range(4)]), (2.5, 0.8, 0.8))


def calibration(model: Model, factor: float = 1.0, **changes: Any) -> Calibration:
    one = TissueCalibration(factor=factor, miss=0.1, guaranteed=0.847, coverage=(0.85, 0.95))
    tissues = {name: one for name, _ in TISSUES}
    settings: dict[str, Any] = {
        "weights_sha256": model.weights_sha256,
        "level": 0.9,
        "patients": 16,
        "slices": 31,
        "degradations": ("scanner",),
        "kernel_known": tissues,
        "kernel_unknown": tissues,
        "ranges": FAR,
    }
    return Calibration(**(settings | changes))


# --- laws of the bounds


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("spacing_mm", [None, (2.0, 0.5, 0.5)])
def test_the_result_lies_between_its_bounds(model: Model, scan: Volume, dtype: Any, spacing_mm: Any) -> None:
    volume = scan.on_grid(scan.grid, scan.hu.astype(dtype))
    result = Upscaler(model, interval=True, target_spacing_mm=spacing_mm)(volume)
    lower, hu, upper = (v.hu.astype(np.float64) for v in (result.lower, result.volume, result.upper))
    assert (lower <= hu).all()
    assert (hu <= upper).all()
    assert (upper - lower).mean() > 1
    assert result.lower.spacing_mm == result.volume.spacing_mm
    if dtype == np.int16:
        assert np.array_equal(lower, np.rint(lower))


def test_padding_is_certain(model: Model, scan: Volume) -> None:
    result = Upscaler(model, interval=True)(scan)
    padding = result.volume.hu == -2000
    assert padding.any()
    for bound in (result.lower, result.upper):
        assert (bound.hu[padding] == -2000).all()


def test_tiles_and_batches_do_not_change_the_bounds(model: Model, scan: Volume) -> None:
    volume = scan.on_grid(scan.grid, scan.hu.astype(np.float32))
    model.calibration = calibration(model, 1.3)
    whole = Upscaler(model, interval=True)(volume)
    for other in ({"batch": 1}, {"batch": 3, "tile": 32}, {"tile": 40}):
        again = Upscaler(model, interval=True, **other)(volume)
        for name in ("lower", "upper"):
            assert np.abs(getattr(again, name).hu - getattr(whole, name).hu).max() < 0.02


def test_asking_for_an_interval_does_not_change_the_result(model: Model, scan: Volume) -> None:
    with_interval, without = (Upscaler(model, interval=wanted)(scan) for wanted in (True, False))
    assert np.array_equal(with_interval.volume.hu, without.volume.hu)
    assert without.lower is None
    assert without.report["interval"] is None


def test_a_factor_widens_the_interval_by_itself(model: Model, scan: Volume) -> None:
    volume = scan.on_grid(scan.grid, scan.hu.astype(np.float32))
    widths = []
    for factor in (1.0, 2.0):
        model.calibration = calibration(model, factor)
        result = Upscaler(model, interval=True)(volume)
        widths.append(result.upper.hu - result.volume.hu)
    assert np.allclose(widths[1], 2 * widths[0], atol=0.01)


def test_bounds_stay_within_sixteen_bits() -> None:
    hu = np.array([-32768.0, 32767.0], np.float32)
    lower, upper = bounds_hu(hu, np.full(2, 50.0), np.full(2, 50.0), np.dtype(np.int16))
    assert (lower.min(), upper.max()) == (-32768, 32767)


def test_tissue_is_told_by_the_mean_of_a_few_millimetres() -> None:
    hu = torch.full((1, 1, 40, 40), -850.0)
    hu[..., 20:, :] = 50.0
    hu[..., 30, 20] = 3000.0  # one bright voxel is no bone
    hu[..., :8, :8] = -1000.0
    tissue = tissue_of(hu, (1, 2, 2), (1.4, 1.4))
    names = [TISSUES[int(tissue[0, 0, y, x])][0] for y, x in ((1, 1), (8, 20), (35, 5), (30, 20))]
    assert names == ["air", "lung", "soft tissue", "soft tissue"]


# --- calibration


def test_the_guarantee_is_that_of_conformal_risk_control() -> None:
    """Theorem 1: the next of patients of one distribution is missed by (n R + 1) / (n + 1) at most."""
    rng = np.random.default_rng(0)
    levels, covered = [], []
    for _ in range(400):
        spread = rng.lognormal(0, 0.5, 17)  # how wide the errors of each patient are
        errors = np.abs(rng.normal(0, spread[:, None], (17, 1500)))
        trials_of = [_trial(errors[k]) for k in range(17)]
        found = choose_factors([counts_outside(t) for t in trials_of[:16]])["soft tissue"]
        levels.append(found.guaranteed)
        covered.append(float((errors[16] < found.factor * 10 + 1).mean()))
    assert np.mean(levels) == pytest.approx(guaranteed_level(0.1, 16), abs=0.003)
    assert np.mean(covered) > np.mean(levels)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def _trial(error: np.ndarray) -> Trial:
    """A trial with these errors in each tissue, and widths of 10 HU."""
    image = np.tile(error.astype(np.float32), (len(TISSUES), 1))[None]
    tissue = np.repeat(np.arange(len(TISSUES)), len(error)).reshape(image.shape)
    width = np.full_like(image, 10.0)
    valid = np.ones_like(image, bool)
    return Trial("", True, None, image, np.zeros_like(image), width, width, tissue, tissue, valid)  # type: ignore[arg-type]


def test_counts_say_which_voxels_the_written_bounds_miss() -> None:
    rng = np.random.default_rng(1)
    shape = (1, 40, 50)
    truth, hu = np.rint(rng.normal(0, 30, shape)), rng.normal(0, 5, shape)
    below, above = rng.uniform(5, 40, shape), rng.uniform(5, 40, shape)
    tissue = np.full(shape, 2)
    counts = counts_outside(Trial("", True, None, truth, hu, below, above, tissue, tissue, truth < 1e9))  # type: ignore[arg-type]
    for k in (600, 900, 1200):
        lower, upper = bounds_hu(hu, FACTORS[k] * below, FACTORS[k] * above, np.dtype(np.int16))
        assert abs(counts[2, k] - ((truth < lower) | (truth > upper)).sum()) <= 1


def test_eight_patients_are_too_few() -> None:
    one = counts_outside(_trial(np.linspace(0, 50, 1500)))
    assert choose_factors([one] * 9)["lung"].factor > 0
    with pytest.raises(UhrctError, match=r"only 8 patients .* nine or more"):
        choose_factors([one] * 8)


def test_calibration_of_real_patients_covers_nine_of_ten_voxels(
    shared_ct: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine patients, one slice each. Even a network of random weights is calibrated."""
    folder = tmp_path / "scans"
    folder.mkdir()
    seen: set[str] = set()
    for file in sorted((shared_ct / "calibration" / "tcga_lung_singles").glob("*.dcm")):
        person = str(pydicom.dcmread(file, stop_before_pixels=True).PatientID)
        if person not in seen and len(seen) < 9:
            seen.add(person)
            (folder / file.name).symlink_to(file)
    monkeypatch.setattr(
        calibrate_module, "DEGRADATIONS", {"told": ("scanner", 0.6, True), "not told": ("scanner", None, False)}
    )
    model.save_pretrained(tmp_path / "model")
    save_calibration(calibrate(Model.from_pretrained(tmp_path / "model"), folder, quiet=True), tmp_path / "model")
    found = Model.from_pretrained(tmp_path / "model").calibration
    assert found is not None
    assert found.patients == 9
    assert found.ranges["pixel_mm"][0] < 0.98 < found.ranges["pixel_mm"][1]
    for tissue in (*found.kernel_known.values(), *found.kernel_unknown.values()):
        assert tissue.miss == pytest.approx(0.1, abs=0.01)
        assert np.mean(tissue.coverage) == pytest.approx(0.9, abs=0.01)
        assert tissue.guaranteed == pytest.approx(guaranteed_level(0.1, 9), abs=0.002)


# --- what is refused or said


def test_a_calibration_of_other_weights_is_refused(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    save_calibration(calibration(model, weights_sha256="0" * 64), tmp_path / "m")
    with pytest.raises(UhrctError, match=r"calibration\.json: made for other weights") as error:
        Model.from_pretrained(tmp_path / "m")
    assert "\n" not in str(error.value)
    assert Model.from_pretrained(tmp_path / "m", calibrated=False).calibration is None


def test_new_weights_remove_the_calibration_of_the_old_ones(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    save_calibration(calibration(model), tmp_path / "m")
    assert Model.from_pretrained(tmp_path / "m").calibration == calibration(model)
    model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m" / CALIBRATION).exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"level": 2}'])
def test_a_damaged_calibration_is_one_line(model: Model, tmp_path: Path, content: str) -> None:
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / CALIBRATION).write_text(content)
    with pytest.raises(UhrctError, match=CALIBRATION):
        Model.from_pretrained(tmp_path / "m")


def test_weights_without_an_interval_network_are_refused(tiny_model: Model, scan: Volume) -> None:
    with pytest.raises(UhrctError, match="no interval network"):
        Upscaler(tiny_model, interval=True)(scan)
    with pytest.raises(UhrctError, match="leave `steps` at 1"):
        Upscaler(tiny_model, interval=True, steps=2)


def test_a_scan_unlike_the_calibration_scans_is_named(model: Model, scan: Volume) -> None:
    settings = vars(Upscaler(model, interval=True).settings)
    known = calibration(model, ranges=FAR | {"noise_hu": (5.0, 60.0)})
    assert not_calibrated(known, {"noise_hu": 30.0}, settings) == []
    assert not_calibrated(known, {"noise_hu": 95.0}, settings) == ["noise 95 HU, calibrated on 5 to 60 HU"]
    assert not_calibrated(known, {}, settings | {"quality": "best"}) == ["quality is best, calibrated with standard"]
    assert not_calibrated(None, {}, settings) == ["the weights hold no calibration"]
    model.calibration = calibration(model, ranges=FAR | {"pixel_mm": (1.1, 1.9)})
    report = json.loads(json.dumps(Upscaler(model, interval=True)(scan).report))
    assert report["interval"]["calibrated"] is False
    [reason] = report["interval"]["not_calibrated_because"]
    assert reason == "pixel spacing 0.8 mm, calibrated on 1.1 to 1.9 mm"
    assert any(reason in line for line in report["warnings"])


def test_the_report_states_the_level_and_how_coarse_it_is(model: Model, scan: Volume) -> None:
    model.calibration = calibration(model)
    said = Upscaler(model, interval=True)(scan).report["interval"]
    assert said["calibrated"] is True
    assert said["calibration_patients"] == 16
    assert said["simulated_degradations"] == ["scanner"]
    assert said["tissues"]["lung"]["guaranteed_level_for_a_new_patient"] == 0.847
