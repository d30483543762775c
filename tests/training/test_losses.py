"""Losses say zero where the network says the truth, and carry a gradient everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import correlated_noise
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import Batch, BatchMaker, lr_channels
from uhrct.training.data.patients import Patient, load_patients
from uhrct.training.losses import make_loss

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


def setting(config: TrainingConfig, **model: Any) -> tuple[Model, Batch]:
    torch.manual_seed(0)
    m = Model(ModelConfig(**{"mean": SIZE, **model}))
    return m, BatchMaker(load_patients(config.corpus, {}, torch.device("cpu")), config, m)(0)


class Oracle(nn.Module):
    """A network that answers what it is told to."""

    def __init__(self, image: Tensor, structure: Tensor | None) -> None:
        super().__init__()
        self.answer = image, structure

    def forward(self, *_: Tensor, properties: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.answer


def truth(m: Model, batch: Batch, anchor: Tensor, sd_hu: float) -> tuple[Tensor, Tensor]:
    """(residual around `anchor`, structure map) of a perfect network."""
    spacing = [(a / 2, b / 2) for a, b in batch.spacing_mm]
    structure = lr_channels(m.structure_of(batch.hr_hu, spacing), m)
    return lr_channels((batch.hr_hu - anchor) / sd_hu, m), structure


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("relative", [True, False])
def test_the_truth_costs_nothing(tiny: Tiny, relative: bool) -> None:
    config = tiny(relative=relative, structure_head_weight=0.1, structure_image_weight=0.1)
    m, batch = setting(config)
    residual, structure = truth(m, batch, m.features(batch.lr_hu, batch.spacing_mm).up_hu, m.config.residual_sd_hu)
    loss, parts = make_loss(m, config)(Oracle(residual, structure), batch, generator())
    assert set(parts) == {"pixel", "structure_head", "structure_image"}
    assert parts["pixel"] < 1e-6
    assert parts["structure_head"] < 1e-4
    assert parts["structure_image"] < 1e-4
    assert loss == pytest.approx(float(sum(parts.values())))
    off, _ = make_loss(m, config)(Oracle(residual + 0.1, structure), batch, generator())
    assert off > 100 * loss


def test_weights_of_zero_switch_structure_off(tiny: Tiny) -> None:
    config = tiny(structure_head_weight=0.0, structure_image_weight=0.0)
    m, batch = setting(config)
    assert m.mean is not None
    assert set(make_loss(m, config)(m.mean, batch, generator())[1]) == {"pixel"}
    # and a network without a structure stream has no head to teach
    single, batch = setting(tiny(), mean={**SIZE, "structure_width": 0})
    assert single.mean is not None
    assert set(make_loss(single, tiny())(single.mean, batch, generator())[1]) == {"pixel"}


def test_structure_weights_scale_their_part(tiny: Tiny) -> None:
    parts = []
    for factor in (1.0, 3.0):
        config = tiny(structure_head_weight=0.1 * factor, structure_image_weight=0.2 * factor)
        m, batch = setting(config)
        assert m.mean is not None
        loss = make_loss(m, config)(m.mean, batch, generator())[1]
        parts.append({name: float(v.detach()) for name, v in loss.items()})
    assert parts[1]["pixel"] == pytest.approx(parts[0]["pixel"])
    for name in ("structure_head", "structure_image"):
        assert parts[1][name] == pytest.approx(3 * parts[0][name], rel=1e-4)


def test_relative_counts_crops_alike(tiny: Tiny) -> None:
    """Interpolation itself (a residual of zero) costs about l2 + l1 in each crop, smooth or full of metal."""
    config = tiny(structure_head_weight=0.0, l1_weight=0.0)
    m, batch = setting(config)
    for factor in (1.0, 10.0):
        stronger = Batch(batch.lr_hu * factor, batch.hr_hu * factor, batch.spacing_mm)
        nothing = torch.zeros(4, 4, 16, 16)
        loss, _ = make_loss(m, config)(Oracle(nothing, None), stronger, generator())
        assert loss == pytest.approx(config.l2_weight, rel=0.1)


@pytest.mark.parametrize("stage", ["mean", "denoiser"])
def test_every_parameter_of_the_stage_learns_and_no_other(tiny: Tiny, stage: str) -> None:
    config = tiny(stage=stage, structure_image_weight=0.1)
    m, batch = setting(config, denoiser=SIZE)
    m.requires_grad_(False)
    network = getattr(m, stage).requires_grad_(True)
    loss, _ = make_loss(m, config)(network, batch, generator())
    loss.backward()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    # some blocks start as the identity, so that single gradients may be zero at first, but not those of the heads
    assert network.to_image.weight.grad.abs().max() > 0
    assert network.to_structure.weight.grad.abs().max() > 0
    other = m.denoiser if stage == "mean" else m.mean
    assert other is not None
    assert all(p.grad is None for p in other.parameters())


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("mean", [SIZE, None])
def test_a_perfect_denoiser_costs_nothing(tiny: Tiny, prediction: str, mean: dict[str, int] | None) -> None:
    config = tiny(stage="denoiser")
    m, batch = setting(config, mean=mean, denoiser=SIZE, diffusion={"prediction": prediction})
    f = m.features(batch.lr_hu, batch.spacing_mm)
    with torch.no_grad():
        anchor = f.up_hu if m.mean is None else m.mean_hu(f)[0]
    e, structure = truth(m, batch, anchor, m.config.sample_sd_hu)

    class Perfect(nn.Module):
        """Knows e, so that it can tell the noise that is in z."""

        def forward(
            self, x: Tensor, prior: Tensor, z: Tensor, sqrt_g: Tensor, properties: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            assert x.shape[1] == (1 if mean is None else 5)
            assert prior.shape == z.shape == e.shape
            g = (sqrt_g**2)[:, None, None, None]
            n = (z - g.sqrt() * e) / (1 - g).sqrt()
            return m.diffusion.target(e, n, g), structure

    loss, parts = make_loss(m, config)(Perfect(), batch, generator())
    assert parts["pixel"] < 1e-3
    assert parts["structure_head"] < 1e-4
    wrong, _ = make_loss(m, config)(Oracle(torch.zeros_like(e), structure), batch, generator())
    assert wrong > 100 * loss


def test_noise_of_the_denoiser_is_the_generators_alone(tiny: Tiny) -> None:
    config = tiny(stage="denoiser")
    m, batch = setting(config, denoiser=SIZE)
    assert m.denoiser is not None
    loss = make_loss(m, config)
    first = loss(m.denoiser, batch, generator())[0]
    torch.rand(3)
    assert torch.equal(loss(m.denoiser, batch, generator())[0], first)
    assert not torch.equal(loss(m.denoiser, batch, torch.Generator().manual_seed(6))[0], first)


@pytest.mark.parametrize("scale", [(1, 4, 4), (5, 1, 1), (5, 2, 2)])
def test_every_scale_learns_in_a_few_steps(tiny: Tiny, scale: tuple[int, int, int]) -> None:
    """On one batch the loss falls: targets and outputs are in the same place, whatever the scale."""
    config = tiny(crop=8, batch=2, degraded=1.0, structure_image_weight=0.1)
    torch.manual_seed(0)
    m = Model(ModelConfig(scale=scale, context=2, properties=True, mean=SIZE))
    p = Patient("p", noise_patient(), (0.7, 0.7), (0, 96, 0, 96), 1.0, 1.0, 1.0)
    batch = BatchMaker([p], config, m)(0)
    assert m.mean is not None
    loss = make_loss(m, config)
    optimizer = torch.optim.Adam(m.mean.parameters(), 6e-3)
    values = []
    for _ in range(80):
        value = loss(m.mean, batch, generator())[0]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.8 * values[0]


def noise_patient() -> Tensor:
    hu = correlated_noise((40, 96, 96), 2.5, torch.Generator().manual_seed(1))
    return (300 * (hu + hu.roll(1, 0) + hu.roll(2, 0))).short()
