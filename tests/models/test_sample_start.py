"""Samples begin with a random residual that has the spectrum and the local size of real ones."""

from __future__ import annotations

import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.models.diffusion import Diffusion
from uhrct.models.model import Model, ModelConfig
from uhrct.models.sample_start import EVEN_HU, FREQUENCIES, SampleStart, amplitudes, cosines
from uhrct.models.settings import checked

NETWORK = {"image_width": 8, "image_blocks": 1, "structure_width": 0}
FLAT = (0.0, 0.0, 0.0, 0.0)


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def falling(rows: int) -> tuple[tuple[float, ...], ...]:
    """Amplitudes that fall with the frequency, and from mode to mode."""
    return tuple(tuple(0.5**m / f**0.5 for f in FREQUENCIES) for m in range(rows))


def test_a_random_residual_has_the_spectrum_that_it_was_made_for() -> None:
    start = SampleStart(spread=FLAT, amplitudes=falling(5))
    large = torch.full((1,), 1e9)  # so large that nothing is taken away
    drawn = torch.cat([start.residual(white(1, 5, 96, 96, seed=s), large) for s in range(8)]) / 1e9
    found = amplitudes(drawn, torch.ones_like(drawn).bool())
    for row, wanted in zip(found, falling(5), strict=True):
        assert row[1:] == pytest.approx(wanted[1:], rel=0.2)


def test_the_correlation_of_the_noise_along_z_does_not_change_it() -> None:
    start, large = SampleStart(spread=FLAT, amplitudes=falling(5)), torch.full((1,), 1e9)
    noise = white(1, 5, 256, 256)
    mixed = noise + 2 * white(1, 1, 256, 256, seed=1)  # what all slices share is stronger
    drawn = [torch.einsum("mz,bzyx->bmyx", cosines(5), start.residual(n, large)) for n in (noise, mixed)]
    one, other = (modes.std((-2, -1))[0].tolist() for modes in drawn)
    assert other == pytest.approx(one, rel=0.05)


def test_even_tissue_gets_less_and_items_do_not_depend_on_their_batch() -> None:
    start = SampleStart(spread=FLAT, amplitudes=falling(1))
    noise, sd = white(2, 1, 64, 64), torch.full((2, 1, 64, 64), 5.0)
    sd[..., 32:] = 500.0
    both = start.residual(noise, sd)
    assert torch.equal(both[1:], start.residual(noise[1:], sd[1:]))
    even, edge = both[..., :32].std(), both[..., 32:].std()
    assert edge / even == pytest.approx(100**2 * (5 + EVEN_HU) / (500 + EVEN_HU), rel=0.2)


def test_sampling_begins_around_the_residual_that_is_given() -> None:
    """A denoiser that knows nothing: with a residual of three standard deviations, the sample keeps that size."""
    d, begin = Diffusion(), 3 * white(20000, seed=1)
    levels = d.sampling_levels(4, left_out=0.4)
    assert levels[0] > d.sampling_levels(4)[0]

    def ideal(z: torch.Tensor, sqrt_g: torch.Tensor) -> torch.Tensor:
        g = sqrt_g**2
        return d.target(g.sqrt() * z * 9 / (9 * g + 1 - g), (1 - g).sqrt() * z / (9 * g + 1 - g), g)

    assert d.sample(ideal, lambda _: white(20000), 4).std() < 2.5
    assert 2.7 < d.sample(ideal, lambda _: white(20000), 4, begin=begin, left_out=0.4).std() < 3.3


def test_a_model_with_a_start_draws_other_samples_and_needs_a_row_for_each_slice() -> None:
    config = {"scale": [5, 1, 1], "context": 2, "mean": NETWORK, "denoiser": NETWORK}
    start = {"spread": (0.0, 0.0, 0.0, 4.0), "amplitudes": falling(5)}
    away = []
    for given in (None, start):
        torch.manual_seed(0)
        model = Model(checked(ModelConfig, {**config, "sample_start": given}, "model")).eval()
        f = model.features(white(1, 5, 16, 16), (0.7, 0.7))
        with torch.no_grad():
            mean = model.mean_hu(f)[0]
            away.append(model.sample_hu(f, mean, (0.7, 0.7), lambda k: white(1, 5, 16, 16, seed=k + 1)) - mean)
    assert not torch.equal(*away)
    with pytest.raises(UhrctError, match="give 5 rows"):
        checked(ModelConfig, {**config, "sample_start": {**start, "amplitudes": falling(1)}}, "model")
