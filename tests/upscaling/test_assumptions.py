"""What a run assumes about a scan: the header of its own pixels first, then what its voxels tell, else nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.models.estimator import Reading, ScanEstimator
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.kernels import Kernel
from uhrct.physics.noise import add_noise, directional_noise_map
from uhrct.upscaling.assumptions import LARGEST_PSF_ERROR, PSF_RANGE, Assumptions, assume
from uhrct.upscaling.plan import UpscaleSettings, make_plan

MEAN = {"image_width": 8, "image_blocks": 1, "structure_width": 0}
STANDARD = {"Manufacturer": "GE MEDICAL SYSTEMS", "ConvolutionKernel": "STANDARD", "PixelSpacing": [0.7, 0.7]}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    """Assumptions about a scan whose estimator reads what a test wishes."""
    model = Model(ModelConfig(mean=MEAN, properties=True, estimator=4))

    def assumed(
        reading: Reading | None,
        header: dict | None = None,
        spacing: float = 0.7,
        volume: Volume | None = None,
        **given,
    ) -> Assumptions:
        monkeypatch.setattr(ScanEstimator, "read", lambda self, hu: reading)
        if volume is not None:
            return assume(volume, model, given, None)
        noise = np.random.default_rng(0).normal(40, 20, (3, 96, 96)).astype(np.int16)
        meta = {"dicom": [header]} if header else {}
        return assume(Volume(hu=noise, spacing_mm=(1.0, spacing, spacing), meta=meta), model, given, None)

    return assumed


def reading(psf: float = 0.9, error: float = 0.05, noise: float = 12.0) -> Reading:
    return Reading(psf, error, 0.1, noise, 0.08, 0.3)


def test_voxels_tell_blur_and_noise_where_no_header_does(read) -> None:
    found = read(reading())
    assert (found.scan.psf_known, found.scan.noise_known) == (True, True)
    assert 0.6 < found.scan.psf_fwhm < 0.9  # with caution: too wide a PSF costs more than too narrow a one
    assert (found.scan.noise_hu, found.scan.noise_correlation) == (12.0, 0.3)
    assert "measured by a network, expected error 0.05; the file names no kernel" in str(found)


@pytest.mark.parametrize("psf", [-1.0, 0.3, 0.5, 0.6, 1.0, 5.0])
def test_an_estimated_blur_stays_within_the_range_of_the_training(read, psf: float) -> None:
    told = read(reading(psf)).scan.psf_fwhm
    assert PSF_RANGE[0] <= told <= PSF_RANGE[1]
    assert told <= max(psf, PSF_RANGE[0])


def test_a_blur_that_voxels_hardly_show_is_not_used(read) -> None:
    found = read(reading(error=LARGEST_PSF_ERROR + 0.01))
    assert (found.scan.psf_known, found.scan.noise_known) == (False, True)
    assert "blur (PSF) unknown" in str(found)


def test_a_scan_unlike_the_training_scans_is_measured_without_the_network(read) -> None:
    found = read(None)
    assert not found.scan.psf_known
    assert found.scan.noise_hu == pytest.approx(20, rel=0.15)
    assert "overlapping patches" in found.reasons["noise"]


def test_the_header_wins_over_the_voxels_but_only_for_its_own_pixels(read) -> None:
    assert "from kernel STANDARD" in read(reading(), STANDARD).reasons["blur"]
    resampled = read(reading(), STANDARD, spacing=1.4)
    assert "measured by a network" in resampled.reasons["blur"]
    assert "the pixels are not those of the header" in resampled.reasons["blur"]


@pytest.fixture
def streaks() -> Volume:
    """A thorax with ribs and 120 HU of correlated noise, which is stronger along some directions."""
    y, x = (np.mgrid[:200, :280] - np.array([100, 140])[:, None, None]) * 0.8
    hu = np.where(np.hypot(y / 70, x / 100) < 1, 50.0, -1000.0)
    for angle in np.arange(0, 2 * np.pi, 0.5):
        hu[np.hypot(y - 60 * np.sin(angle), x - 90 * np.cos(angle)) < 6] = 900
    body = torch.from_numpy(hu).float()
    noise_map = directional_noise_map(hu, (0.8, 0.8))
    noisy = add_noise(body, (0.8, 0.8), 120, Kernel(4.2, 7.2), torch.Generator().manual_seed(0), noise_map)
    return Volume(noisy.round().numpy().astype(np.int16)[None], (1.0, 0.8, 0.8))


def test_strong_directional_noise_is_that_of_a_hand_picked_region(read, streaks: Volume) -> None:
    """The network reads half of it: it never saw such noise."""
    picked_hu = float(streaks.hu[0, 80:120, 120:160].std())
    found = read(reading(noise=64.0), volume=streaks)
    assert found.scan.noise_hu == pytest.approx(picked_hu, rel=0.15)
    assert found.scan.noise_correlation > 0.2
    assert "even tissue; the network, which reads 64.0 HU, is not used" in found.reasons["noise"]


def test_coarse_pixels_leave_the_network_in_charge(read, streaks: Volume) -> None:
    """There anatomy looks like noise to a measurement in even tissue."""
    coarse = replace(streaks, spacing_mm=(1.0, 1.6, 1.6))
    assert read(reading(noise=64.0), volume=coarse).scan.noise_hu == 64.0


def test_real_streaks_are_measured_as_by_hand(shared_ct: Path) -> None:
    """Shoulders of lungfcp0006: 120 to 135 HU in soft tissue, which is beyond training and calibration."""
    plan = make_plan(io.read(shared_ct / "validation/lungfcp0006/0007.dcm"), UpscaleSettings(interval=True))
    assert 120 <= plan.scan.noise_hu <= 135
    assert any(line.startswith("noise 12") for line in plan.warnings)
    assert any(reason.startswith("noise 12") for reason in plan.interval_reasons)


@pytest.mark.parametrize("found", [reading(), None], ids=["network", "even tissue"])
def test_noise_that_the_caller_gives_keeps_the_correlation_of_the_voxels(read, found: Reading | None) -> None:
    """The kernel decides the correlation. The size of the noise says nothing about it."""
    measured, given = read(found), read(found, noise_hu=17.9)
    assert given.scan.noise_hu == 17.9
    assert given.scan.noise_correlation == measured.scan.noise_correlation
    words = "measured by a network" if found else "measured: "
    assert given.reasons["noise"].startswith(f"your choice; its correlation {words}")
    assert f"noise 17.9 HU with correlation {given.scan.noise_correlation:.2f} of neighbours (your choice" in str(given)


def test_a_correlation_that_no_voxel_shows_is_called_assumed() -> None:
    air = Volume(hu=np.full((3, 96, 96), -1000, np.int16), spacing_mm=(1.0, 0.7, 0.7))
    given = assume(air, Model(ModelConfig(mean=MEAN, properties=True)), {"noise_hu": 12.0}, None)
    assert (given.scan.noise_hu, given.scan.noise_known) == (12.0, True)
    assert "correlation 0.00 of neighbours (your choice; its correlation assumed: too little soft tissue" in str(given)


def test_the_caller_wins_over_everything(read) -> None:
    found = read(reading(), STANDARD, psf_fwhm=0.75, noise_hu=3.0)
    assert (found.scan.psf_fwhm, found.scan.noise_hu) == (0.75, 3.0)
    assert found.reasons["blur"] == "your choice"
    assert found.reasons["noise"].startswith("your choice")
    alone = read(reading(), psf_fwhm=0.75).scan
    assert (alone.psf_fwhm, alone.sharpening, alone.noise_hu) == (0.75, 0.0, 12.0)
