"""Settings that cannot have a meaning are refused or unused, and what differs has another key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.models.model import Model, ModelConfig
from uhrct.upscaling.body_residual import BodyResidual
from uhrct.upscaling.files import derivation
from uhrct.upscaling.slabs import compute_slabs
from uhrct.upscaling.upscaler import Upscaler


def told(scale: tuple[int, int, int] = (1, 2, 2)) -> Model:
    """A network that takes scan properties, and cannot estimate them."""
    size = {"image_width": 8, "image_blocks": 1}
    return Model(ModelConfig(scale=scale, context=2, mean=size, properties=True)).eval().requires_grad_(False)


def volume(side: int = 48) -> Volume:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    hu = np.where(np.hypot(y - side / 2, x - side / 2) < 0.4 * side, 40, -1000) + rng.normal(0, 10, (4, side, side))
    return Volume(hu.astype(np.float32), (2.5, 0.8, 0.8))


@pytest.mark.parametrize("name", ["denoise", "noise_hu", "psf_fwhm_mm"])
def test_settings_that_look_alike_in_print_have_different_keys(name: str) -> None:
    a, b = (derivation(Upscaler(told(), **{name: value}).plan(volume())) for value in (0.7511, 0.7512))
    assert a.description == b.description
    assert a.key != b.key


def test_an_unknown_blur_cannot_be_met_exactly() -> None:
    with pytest.raises(UhrctError, match="needs the blur of the scan"):
        Upscaler(told(), consistency="hard").plan(volume())
    Upscaler(told(), consistency="hard", psf_fwhm_mm=0.6).plan(volume())


def test_the_blur_is_not_told_where_the_pixels_stay() -> None:
    model = told((5, 1, 1))
    a, b = (Upscaler(model, **settings)(volume()) for settings in ({}, {"psf_fwhm_mm": 1.1}))
    assert np.array_equal(a.volume.hu, b.volume.hu)
    assert "PSF 0.60 pixels (not used, because the pixels stay)" in str(
        Upscaler(model, psf_fwhm_mm=1.1).plan(volume()).assumptions
    )


def test_slices_that_are_not_axial_and_pixels_that_are_not_square_get_a_warning() -> None:
    scan = volume()
    assert not any("axial" in line or "square" in line for line in Upscaler(told()).plan(scan).warnings)
    sagittal = replace(scan, direction=np.eye(3))
    assert any("sagittal" in line for line in Upscaler(told()).plan(sagittal).warnings)
    flat = replace(scan, spacing_mm=(2.5, 0.8, 0.4))
    assert any("0.8 x 0.4 mm" in line for line in Upscaler(told()).plan(flat).warnings)


def test_warnings_come_before_what_may_be_cut_off() -> None:
    text = derivation(Upscaler(told()).plan(replace(volume(), direction=np.eye(3)))).description
    assert text.index("sagittal") < text.index("weights ") < 400


def test_a_thickness_that_cannot_be_told_is_named() -> None:
    plan = Upscaler(told((5, 1, 1))).plan(replace(volume(), slice_thickness_mm=25.0))
    assert "25.00 mm thick, which is beyond" in str(plan.assumptions)


@pytest.mark.parametrize("spacing_mm", [None, (2.5, 0.5, 0.5)])
def test_maps_are_empty_in_padding(spacing_mm: tuple[float, float, float] | None) -> None:
    scan = volume()
    hu = scan.hu.copy()
    hu[:, :16] = -2000
    size = {"image_width": 8, "image_blocks": 1}
    model = Model(ModelConfig(scale=(1, 2, 2), mean=size, denoiser=size)).eval().requires_grad_(False)
    settings = {"structure": True, "steps": 2, "samples": 2, "target_spacing_mm": spacing_mm}
    result = Upscaler(model, **settings)(replace(scan, hu=hu))
    padding = result.volume.hu <= -2000
    assert padding.any()
    assert not result.structure.hu[padding].any()
    assert not result.spread.hu[padding].any()


def test_a_field_of_view_that_cuts_the_body_is_no_difference_from_the_scan() -> None:
    """Where padding begins, A mixes it with the body; that must not look like lost structure."""
    scan = replace(volume(96), hu=np.full((2, 96, 96), 40, np.float32))
    cut = scan.hu.copy()
    cut[:, :, :30] = -2000
    plan = Upscaler(told(), psf_fwhm_mm=1.2, consistency="hard").plan(scan)
    found = []
    for hu in (scan.hu, cut):
        body = BodyResidual(plan, replace(scan, hu=hu))
        for slab in compute_slabs(plan, replace(scan, hu=hu)):
            body.feed(slab)
        found.append(body.mean_hu)
    assert found[1] < found[0] + 0.5
