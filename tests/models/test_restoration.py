"""The restoration as one graph equals the model, step by step and as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig, stacks
from uhrct.models.restoration import UNKNOWN, Restoration, conditions, gaussian_matrices, told
from uhrct.physics.scan_properties import ScanProperties
from uhrct.structure.gaussian import derivative_matrices

SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1}
FLAT = SIZE | {"structure_width": 0}
SPACING_MM = (0.7, 0.9)


def alive(**config: object) -> Model:
    """A model with random weights: new blocks are the identity, and would hide differences."""
    torch.manual_seed(1)
    model = Model(ModelConfig.model_validate(config)).eval().requires_grad_(False)
    for p in model.parameters():
        p += 0.05 * torch.randn(p.shape)
    return model


@pytest.mark.parametrize(
    "config",
    [
        {"mean": SIZE, "properties": True, "context": 1},
        {"mean": FLAT, "scale": (1, 4, 4), "properties": True},
        {"mean": SIZE, "scale": (5, 2, 2), "context": 2, "properties": True},
        {"mean": SIZE, "scale": (5, 1, 1), "context": 2, "properties": True},
        {"mean": SIZE, "scale": (1, 3, 2), "structure": {"kind": "jerman", "polarity": "dark"}},
        {"mean": SIZE, "structure": {"kind": "frangi", "sigma_mm": [2.5, 0.6]}},
    ],
    ids=lambda config: str(config.get("scale", "x2")),
)
def test_it_equals_the_mean_of_the_model(config: dict[str, object], slice_hu: np.ndarray) -> None:
    model = alive(**config)
    volume = torch.from_numpy(np.stack([np.roll(slice_hu, k, 1) for k in range(6)]).astype(np.float32))[:, 10:75]
    stack = stacks(volume, [1, 5], model.config.context)
    scan = ScanProperties(psf_fwhm=1.1, sharpening=0.2, noise_hu=17, noise_correlation=0.3, increment_mm=1.2)
    inputs = {name: torch.from_numpy(value) for name, value in told(scan).items()}
    with torch.inference_mode():
        expected = model.mean_hu(model.features(stack, SPACING_MM, scan))[0]
        found = Restoration(model)(stack, **inputs, spacing_mm=torch.tensor(SPACING_MM))
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 0.05


def test_padding_keeps_its_values_and_does_not_ring() -> None:
    model = alive(mean=FLAT, properties=True)
    hu = torch.full((1, 1, 20, 20), -1024.0)
    with_padding = hu.clone()
    with_padding[..., :10] = -3024.0
    fine, fine_padded = Restoration(model)(hu), Restoration(model)(with_padding)
    assert bool((fine_padded[..., :20] == -3024).all())
    assert torch.equal(fine_padded[..., 20:], fine[..., 20:])


@settings(deadline=None, max_examples=40)
@given(
    st.builds(
        ScanProperties,
        psf_fwhm=st.floats(0, 3),
        sharpening=st.floats(-1, 3),
        noise_hu=st.floats(0, 500),
        slice_thickness=st.floats(0.05, 20),
        increment_mm=st.floats(0, 100),
        noise_correlation=st.floats(-1, 1),
        psf_known=st.booleans(),
        noise_known=st.booleans(),
        denoise=st.floats(0, 1),
    )
)
def test_the_network_is_told_the_same_numbers(scan: ScanProperties) -> None:
    given_ = {name: torch.tensor(float(getattr(scan, name)), dtype=torch.float64) for name in vars(scan)}
    assert torch.allclose(conditions(given_), torch.tensor(scan.conditions(), dtype=torch.float64), atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 90), st.floats(0.1, 20))
def test_matrices_are_those_of_the_structure_operator(n: int, sigma_px: float) -> None:
    made = gaussian_matrices(n, torch.tensor([sigma_px], dtype=torch.float64))[:, 0, 0, 0]
    expected = derivative_matrices(n, sigma_px, made.device, made.dtype)
    assert torch.allclose(made, expected, rtol=1e-6, atol=1e-6)


def test_nothing_said_means_unknown() -> None:
    model = alive(mean=FLAT, properties=True)
    hu = 300 * torch.randn(1, 1, 16, 16)
    given_ = {name: torch.from_numpy(value) for name, value in told(UNKNOWN).items()}
    assert torch.equal(Restoration(model)(hu), Restoration(model)(hu, **given_))
    loud = Restoration(model)(hu, noise_known=torch.tensor(1.0), noise_hu=torch.tensor(50.0))
    assert not torch.equal(Restoration(model)(hu), loud)


def test_a_model_without_mean_is_refused() -> None:
    with pytest.raises(UhrctError, match="no network for the posterior mean"):
        Restoration(Model(ModelConfig(mean=None, denoiser=FLAT)))  # type: ignore[arg-type]


def test_the_edge_of_a_view_that_cuts_the_patient_is_that_of_upscale(slice_hu: np.ndarray) -> None:
    """Tissue goes on beyond the edge, so that the step to padding does not ring."""
    from uhrct.core.volume import Volume
    from uhrct.upscaling.upscaler import Upscaler

    model = alive(mean=FLAT, properties=True)
    hu = slice_hu[None, 10:75].astype(np.float32)
    hu[:, :, :27] = -2000
    upscaler = Upscaler(model, consistency="off", skip_air=False, precision=torch.float32)
    scan = Volume(hu, (1.0, *SPACING_MM))
    inputs = {name: torch.from_numpy(value) for name, value in told(upscaler.plan(scan).scan).items()}
    with torch.inference_mode():
        found = Restoration(model)(torch.from_numpy(hu)[None], **inputs)[0]
    assert float((found - torch.from_numpy(upscaler(scan).volume.hu)).abs().max()) < 0.05
