"""A network that gives the truth costs nothing; everything else costs, and every parameter learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.models.dssp import from_channels
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import correlated_noise
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batch import Batch, hr_crop, hr_spacing, lr_channels
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Patient, load_patients
from uhrct.training.losses import DenoiserLoss, MeanLoss, taught_hu

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}
PAPER = {"l2": 5.0, "l1": 1.0, "structure_head": 0.5, "structure_image": 0.5, "structure_items": 1.0}


def setting(config: TrainingConfig, **model: Any) -> tuple[Model, Batch]:
    torch.manual_seed(0)
    m = Model(ModelConfig(**{"mean": SIZE, **model}))
    patients = load_patients(config.data.corpus, {}, torch.device("cpu"))
    return m, BatchMaker(patients, config.data, m.acquisition)(0)


class Oracle(nn.Module):
    """A network with a given answer."""

    def __init__(self, image: Tensor, structure: Tensor | None) -> None:
        super().__init__()
        self.answer = image, structure

    def forward(self, *_: Tensor, properties: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.answer


class PerfectDenoiser(nn.Module):
    """Knows the residual e, so it finds the noise in z; `wrong` is added to what it says of e."""

    def __init__(self, m: Model, e: Tensor, structure: Tensor, wrong: float = 0.0) -> None:
        super().__init__()
        self.m, self.e, self.structure, self.wrong = m, e, structure, wrong

    def forward(
        self, x: Tensor, prior: Tensor, z: Tensor, sqrt_g: Tensor, properties: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert x.shape[1] == (1 if self.m.mean is None else 5)
        assert prior.shape == z.shape == self.e.shape
        g, e = (sqrt_g**2)[:, None, None, None], self.e + self.wrong
        return self.m.diffusion.target(e, (z - g.sqrt() * e) / (1 - g).sqrt(), g), self.structure


def truth(m: Model, batch: Batch, anchor: Tensor, sd_hu: float) -> tuple[Tensor, Tensor]:
    """(residual around `anchor`, structure map) of a perfect network."""
    structure = lr_channels(m.structure_of(batch.hr_hu, hr_spacing(batch, m.config.scale)), m.config.scale)
    return lr_channels((batch.hr_hu - anchor) / sd_hu, m.config.scale), structure


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("relative", [True, False])
def test_the_true_mean_costs_nothing(tiny: Tiny, relative: bool) -> None:
    config = tiny(loss={"relative": relative, "structure_head": 0.1, "structure_image": 0.1})
    m, batch = setting(config)
    residual, structure = truth(m, batch, m.features(batch.lr_hu, batch.spacing_mm).up_hu, m.config.residual_sd_hu)
    loss = MeanLoss(m, config.loss)
    value, parts = loss(Oracle(residual, structure), batch, generator(), 1.0)
    assert parts.pop("interpolation") > 0.1  # it is shown, and costs nothing
    assert set(parts) == {"pixel", "structure_head", "structure_image"}
    assert value < 1e-4
    assert value == pytest.approx(float(sum(parts.values())))
    assert loss(Oracle(residual + 0.1, structure), batch, generator(), 1.0)[0] > 100 * value


@pytest.mark.parametrize("prediction", ["v", "epsilon", "x0"])
@pytest.mark.parametrize("mean", [SIZE, None])
def test_a_perfect_denoiser_costs_nothing(tiny: Tiny, prediction: str, mean: dict[str, int] | None) -> None:
    config = tiny(stage="denoiser", loss=PAPER)
    m, batch = setting(config, mean=mean, denoiser=SIZE, diffusion={"prediction": prediction})
    f = m.features(batch.lr_hu, batch.spacing_mm)
    with torch.no_grad():
        anchor = f.up_hu if m.mean is None else m.mean_hu(f)[0]
    e, structure = truth(m, batch, anchor, m.config.sample_sd_hu)
    loss = DenoiserLoss(m, config.loss)
    value, parts = loss(PerfectDenoiser(m, e, structure), batch, generator(), 1.0)
    assert set(parts) == {"pixel", "structure_head", "structure_image"}
    assert value < 2e-3
    assert loss(PerfectDenoiser(m, e, structure, wrong=1.0), batch, generator(), 1.0)[0] > 100 * value


def test_the_papers_losses_are_equations_6_to_9(tiny: Tiny) -> None:
    """l2 |d|^2 + l1 |d| of the noise, and |G_struct - O(y)|_1 + |O(G_img) - O(y)|_1 of the image that it means."""
    config = tiny(stage="denoiser", loss=PAPER, data={"augmented": 0.0})
    m, batch = setting(config, mean=None, denoiser=SIZE, diffusion={"prediction": "epsilon", "levels": "linear"})
    up_hu = m.features(batch.lr_hu, batch.spacing_mm).up_hu
    e, wanted = truth(m, batch, up_hu, m.config.sample_sd_hu)
    _, parts = DenoiserLoss(m, config.loss)(PerfectDenoiser(m, e, wanted + 0.1, wrong=0.3), batch, generator(), 1.0)
    g = m.diffusion.draw_levels(len(e), generator())[:, None, None, None]
    d = (g / (1 - g)).sqrt().expand_as(e) * 0.3  # what an error of e is as an error of the noise
    assert float(parts["pixel"]) == pytest.approx(float((5 * d**2 + d).mean()), rel=1e-3)
    assert float(parts["structure_head"]) == pytest.approx(0.5 * 0.1, rel=1e-3)
    image = hr_crop(up_hu, m.config.scale) + from_channels(e + 0.3, 2, 2) * m.config.sample_sd_hu
    made, target = (
        m.operator(x.clamp(-1000, 600)[:, 0], hr_spacing(batch, m.config.scale))
        for x in (image, hr_crop(batch.hr_hu, m.config.scale))
    )
    assert float(parts["structure_image"]) == pytest.approx(0.5 * float((made - target).abs().mean()), rel=0.02)


def test_a_teacher_stands_for_its_share_of_the_truth(tiny: Tiny, tmp_path: Path) -> None:
    """An untrained teacher gives the interpolation, so who follows it to 80 % gives a fifth of the true residual."""
    config = tiny(loss={"structure_head": 0.0, "teacher": str(tmp_path / "teacher")})
    m, batch = setting(config)
    assert m.mean is not None
    m.mean.to_image.weight.data.zero_()
    m.mean.to_image.bias.data.zero_()
    m.save_pretrained(tmp_path / "teacher")
    residual, _ = truth(m, batch, m.features(batch.lr_hu, batch.spacing_mm).up_hu, m.config.residual_sd_hu)
    loss = MeanLoss(m, config.loss)
    assert loss(Oracle(0.2 * residual, None), batch, generator(), 1.0)[0] < 1e-4
    assert loss(Oracle(residual, None), batch, generator(), 1.0)[0] > 0.1


def test_mirroring_leaves_what_the_teacher_says_in_place(tiny: Tiny) -> None:
    m, batch = setting(tiny())
    up = m.features(batch.lr_hu, batch.spacing_mm).up_hu
    for parameter in m.mean.parameters():  # then its image is the interpolation, which has no direction
        parameter.data.zero_()
    for seed in range(8):
        assert taught_hu(m, batch, torch.Generator().manual_seed(seed)) == pytest.approx(up, abs=1e-2)


def test_a_teacher_of_another_scale_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(loss={"teacher": str(tmp_path / "teacher")})
    Model(ModelConfig(scale=(1, 4, 4), mean=SIZE)).save_pretrained(tmp_path / "teacher")
    with pytest.raises(UhrctError, match=r"loss\.teacher=.*take a model"):
        MeanLoss(setting(config)[0], config.loss)


def test_relative_counts_crops_alike(tiny: Tiny) -> None:
    """Interpolation itself costs about l2 in each crop, whether it is smooth or full of metal."""
    config = tiny(loss={"structure_head": 0.0, "l1": 0.0})
    m, batch = setting(config)
    for factor in (1.0, 10.0):
        stronger = Batch(batch.lr_hu * factor, batch.hr_hu * factor, batch.spacing_mm)
        value, parts = MeanLoss(m, config.loss)(Oracle(torch.zeros(4, 4, 16, 16), None), stronger, generator(), 1.0)
        assert value == pytest.approx(config.loss.l2, rel=0.1)
        assert set(parts) == {"pixel", "interpolation"}
        assert value == pytest.approx(float(parts["interpolation"]))


@pytest.mark.parametrize(("stage", "loss"), [("mean", MeanLoss), ("denoiser", DenoiserLoss)])
def test_every_parameter_of_the_stage_learns_and_no_other(tiny: Tiny, stage: str, loss: Any) -> None:
    config = tiny(stage=stage, loss={"structure_image": 0.1})
    m, batch = setting(config, denoiser=SIZE)
    m.requires_grad_(False)
    network = getattr(m, stage).requires_grad_(True)
    loss(m, config.loss)(network, batch, generator(), 1.0)[0].backward()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    # blocks start as the identity, so single gradients may be zero at first, but not those of the heads
    assert network.to_image.weight.grad.abs().max() > 0
    assert network.to_structure.weight.grad.abs().max() > 0
    other = m.denoiser if stage == "mean" else m.mean
    assert other is not None
    assert all(p.grad is None for p in other.parameters())


def test_noise_of_the_denoiser_comes_from_the_generator_alone(tiny: Tiny) -> None:
    config = tiny(stage="denoiser")
    m, batch = setting(config, denoiser=SIZE)
    assert m.denoiser is not None
    loss = DenoiserLoss(m, config.loss)
    first = loss(m.denoiser, batch, generator(), 1.0)[0]
    torch.rand(3)
    assert torch.equal(loss(m.denoiser, batch, generator(), 1.0)[0], first)
    assert not torch.equal(loss(m.denoiser, batch, torch.Generator().manual_seed(6), 1.0)[0], first)


@pytest.mark.parametrize("scale", [(1, 4, 4), (5, 2, 2)])
def test_every_scale_learns_in_a_few_steps(tiny: Tiny, scale: tuple[int, int, int]) -> None:
    """On one batch the loss falls: targets and outputs are in the same place at every scale."""
    config = tiny(data={"crop": 8, "batch": 2, "degraded": 1.0}, loss={"structure_head": 0.0})
    torch.manual_seed(0)
    m = Model(ModelConfig(scale=scale, context=2, properties=True, mean=SIZE))
    hu = correlated_noise((40, 96, 96), 2.5, torch.Generator().manual_seed(1))
    hu = (300 * (hu + hu.roll(1, 0) + hu.roll(2, 0))).short()
    patient = Patient("p", hu, (0.7, 0.7), (0, 96, 0, 96), 1.0, 1.0, 1.0)
    batch = BatchMaker([patient], config.data, m.acquisition, context=2)(0)
    assert m.mean is not None
    loss = MeanLoss(m, config.loss)
    optimizer = torch.optim.Adam(m.mean.parameters(), 1e-2)
    values = []
    for _ in range(40):
        value = loss(m.mean, batch, generator(), 1.0)[0]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.85 * values[0]
