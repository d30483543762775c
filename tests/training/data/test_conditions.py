"""Batches whose targets may be denoised and whose networks are told conditions, some of them unknown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uhrct.core.volume import Volume
from uhrct.models.model import Model, ModelConfig, NetworkSize
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.kernels import Kernel
from uhrct.physics.noise import add_noise
from uhrct.physics.scan_properties import N_CONDITIONS, ScanProperties
from uhrct.training.config import DataSettings
from uhrct.training.data import batches
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Patient, with_clean
from uhrct.training.data.scanners import PSF_ERROR, add_scan_noise, draw_scan, misread, told
from uhrct.upscaling.assumptions import Assumptions
from uhrct.upscaling.plan import UpscaleSettings, make_plan
from uhrct.upscaling.upscaler import Upscaler

SPACING = (0.7, 0.7)
SIGMA_HU = 20.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tissue(slices: int, side: int = 160) -> np.ndarray:
    """A round body of even tissue with noise, (z, y, x) int16."""
    y, x = np.mgrid[:side, :side] - side / 2
    flat = torch.from_numpy(np.where(np.hypot(y, x) < side / 2 - 4, 50.0, -1000.0)).float()
    noisy = [add_noise(flat, SPACING, SIGMA_HU, Kernel(4.2, 7.2), generator(k)).numpy() for k in range(slices)]
    return np.rint(noisy).astype(np.int16)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    hu = torch.from_numpy(tissue(8))
    series = Patient("even", hu, SPACING, (0, 160, 0, 160), 1.0)
    return with_clean([series], tmp_path_factory.mktemp("clean"), quiet=True)[0]


def maker(patient: Patient, scale: tuple[int, int, int], denoised: float) -> BatchMaker:
    settings = DataSettings(corpus=("x",), clean="kept", denoised=denoised, batch=4, crop=32, augmented=0.0)
    return BatchMaker([patient], settings, Acquisition(scale))


def test_denoised_series_keep_level_and_lose_noise(patient: Patient) -> None:
    inside = (slice(None), slice(60, 100), slice(60, 100))
    before, after = patient.hu[inside].float(), patient.clean[inside].float()
    assert after.std() < 0.5 * before.std()
    assert abs(after.mean() - before.mean()) < 1.5
    assert patient.noise_maps.shape[0] == len(patient.hu)


@pytest.mark.parametrize(("denoised", "noise_left"), [(0.0, (0.7, 1.3)), (1.0, (0.0, 0.5))])
def test_targets_are_as_wished(
    patient: Patient, denoised: float, noise_left: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "SMOOTH_SHARE", 0.0)
    batch = maker(patient, (1, 2, 2), denoised)(0)
    assert batch.properties.shape == (4, N_CONDITIONS)
    assert (batch.properties[:, 6] == denoised).all()
    inside = batch.hr_hu[batch.hr_hu > -50]
    noise_hu = 1.4826 * (inside - inside.median()).abs().median()
    assert noise_left[0] < noise_hu / SIGMA_HU < noise_left[1]


def test_without_noise_to_remove_nothing_is_told_through_plane(patient: Patient) -> None:
    """Scan and denoised scan pass the same scanner, so equal ones differ by nothing."""
    hu, maps = patient.hu.repeat(2, 1, 1), patient.noise_maps.repeat(2, 1, 1, 1)
    same = replace(patient, hu=hu, clean=hu, noise_maps=maps, spacing_z_mm=1.0)
    batch = maker(same, (5, 1, 1), 0.0)(3)
    assert batch.properties[:, 3].abs().max() < 1e-6


def test_told_noise_is_the_noise_that_was_added() -> None:
    clean = torch.full((3, 96, 96), 40.0)
    scan = ScanProperties(noise_hu=SIGMA_HU)
    noisy = add_scan_noise(clean, None, lambda v: v, SIGMA_HU, generator())
    exact = told(scan, noisy, clean)
    assert exact.noise_hu == pytest.approx((noisy[1] - clean[1]).std().item(), rel=0.1)
    found = [misread(exact, generator(k)) for k in range(200)]
    assert np.median([s.noise_hu for s in found]) == pytest.approx(exact.noise_hu, rel=0.05)
    assert np.std([s.psf_fwhm for s in found]) / exact.psf_fwhm == pytest.approx(PSF_ERROR, rel=0.2)


def test_some_scans_are_smooth(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made from the denoised series, with nothing to remove; so that smooth scans do not look blurred."""
    told_hu = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(batches, "SMOOTH_SHARE", share)
        told_hu[share] = max(s.noise_hu for s in maker(patient, (1, 2, 2), 0.0)(0).scans)
    assert told_hu[0.0] > 0.3 * SIGMA_HU
    assert told_hu[1.0] < 0.01 * SIGMA_HU


def test_unknown_conditions_say_nothing() -> None:
    unknown = ScanProperties(0.9, 0.4, 30.0, noise_correlation=0.5, psf_known=False, noise_known=False)
    other = ScanProperties(0.5, 0.1, 5.0, noise_correlation=0.1, psf_known=False, noise_known=False)
    assert unknown.conditions() == other.conditions()
    assert len(unknown.conditions()) == N_CONDITIONS
    assert replace(unknown, psf_known=True).conditions() != replace(other, psf_known=True).conditions()


def test_scans_without_the_wish_get_no_noise() -> None:
    drawn = [draw_scan(ScanProperties(), 0.5, False, generator(k)) for k in range(60)]
    assert {0.0, 1.0} < {s.denoise for s in drawn}
    assert all(s.noise_hu == 0 for s in drawn if not s.denoise)
    assert any(s.noise_hu > 0 for s in drawn)


def test_upscaling_measures_noise_and_leaves_the_psf_unknown(tmp_path: Path) -> None:
    size = NetworkSize(image_width=8, image_blocks=1, structure_width=8, structure_blocks=1, fusion_blocks=1)
    model = Model(ModelConfig(scale=(1, 2, 2), properties=True, mean=size))
    volume = Volume(hu=tissue(3), spacing_mm=(1.0, *SPACING))
    found = make_plan(volume, UpscaleSettings(), model).assumptions
    scan = found.scan
    assert scan.noise_hu == pytest.approx(SIGMA_HU, rel=0.15)
    assert (scan.psf_known, scan.noise_known) == (False, True)
    air = Volume(hu=np.full((3, 64, 64), -1000, np.int16), spacing_mm=(1.0, *SPACING))
    assert re.search(
        r"blur \(PSF\) unknown \(.*\); noise 2\d\.\d HU with correlation .* \(measured: \d+ ov", str(found)
    )
    unknown = make_plan(air, UpscaleSettings(), model).assumptions
    assert not unknown.scan.noise_known
    assert "noise unknown (too little soft tissue" in str(unknown)
    given = make_plan(air, UpscaleSettings(noise_hu=12.0, psf_fwhm_mm=0.7, denoise=0.25), model).assumptions
    assert "noise 12.0 HU with correlation 0.00 of neighbours (your choice" in str(given)
    assert "removes 25 % of noise (your choice)" in str(given)
    given = given.scan
    assert (given.noise_hu, given.psf_fwhm, given.psf_known, given.noise_known) == (12.0, 1.0, True, True)


def test_unknown_noise_is_not_forced_into_the_result() -> None:
    """Lung alone has no even tissue to measure noise in."""
    size = NetworkSize(image_width=8, image_blocks=1, structure_width=8, structure_blocks=1, fusion_blocks=1)
    model = Model(ModelConfig(scale=(1, 2, 2), properties=True, mean=size))
    hu = np.kron(np.random.default_rng(0).integers(-900, -600, (2, 16, 16)), np.ones((1, 4, 4))).astype(np.int16)
    volume = Volume(hu, spacing_mm=(1.0, *SPACING))

    def run(mode: str, **settings: float) -> np.ndarray:
        return Upscaler(model, consistency=mode, **settings)(volume).volume.hu

    known = {"psf_fwhm_mm": 0.5}  # of noise and blur one is known, and that is not enough
    assert np.array_equal(run("auto", **known), run("off", **known))
    assert not np.array_equal(run("auto", **known), run("hard", **known))
    assert np.array_equal(run("auto", noise_hu=5.0), run("off", noise_hu=5.0))
    assert not np.array_equal(run("auto", noise_hu=5.0, **known), run("off", noise_hu=5.0, **known))


def test_the_header_tells_the_blur_of_an_original_image(tmp_path: Path) -> None:
    size = NetworkSize(image_width=8, image_blocks=1, structure_width=8, structure_blocks=1, fusion_blocks=1)
    model = Model(ModelConfig(scale=(1, 2, 2), properties=True, mean=size))

    def assumed(kernel: str, image_type: str) -> Assumptions:
        header = {"Manufacturer": "SIEMENS", "ConvolutionKernel": kernel, "ImageType": [image_type, "PRIMARY", "AXIAL"]}
        volume = Volume(tissue(3), (1.0, *SPACING), meta={"dicom": [header] * 3})
        return make_plan(volume, UpscaleSettings(), model).assumptions

    soft, sharp = assumed("B20f", "ORIGINAL"), assumed("B45f", "ORIGINAL")
    assert soft.scan.psf_known
    assert sharp.scan.psf_known
    assert soft.scan.psf_fwhm > sharp.scan.psf_fwhm
    assert "from kernel B20f in the header: 50 % contrast at 2.8 lp/cm" in str(soft)
    assert "kernel ?[31mX is not in the table" in str(assumed("\x1b[31mX", "ORIGINAL"))
    assert not assumed("B20f", "DERIVED").scan.psf_known
    thick = Model(ModelConfig(scale=(5, 1, 1), context=2, properties=True, mean=size))
    through_plane = make_plan(Volume(tissue(3), (5.0, *SPACING)), UpscaleSettings(), thick).assumptions
    assert through_plane.scan.psf_known  # pixels stay: there is no blur to know
    assert "(not used, because the pixels stay)" in str(through_plane)


def test_a_target_keeps_the_share_of_the_noise_that_is_wished(patient: Patient) -> None:
    """Also of noise that is added to the scan: three quarters removed leave a quarter."""
    make = maker(patient, (1, 2, 2), 0.5)
    left: dict[float, list[float]] = {}
    for step in range(24):
        batch = make(step)
        for hr, conditions in zip(batch.hr_hu, batch.properties, strict=True):
            inside = hr[hr > -50]
            if len(inside) > 500:
                wish = round(float(conditions[6]) * 4) / 4
                left.setdefault(wish, []).append(float(1.4826 * (inside - inside.median()).abs().median()))
    median = {wish: float(np.median(values)) for wish, values in left.items()}
    assert median[1.0] < 0.5 * median[0.25]
    assert 0.3 * median[0.0] < median[0.5] < 1.2 * median[0.0]
