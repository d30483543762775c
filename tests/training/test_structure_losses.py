"""Losses in the structure domain: nothing for the truth, as strong as asked, exact truth where it is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.models.dssp import from_channels
from uhrct.models.model import Model, ModelConfig
from uhrct.structure.lengths import vessel_lengths
from uhrct.structure.vessels import skeleton as hard_skeleton
from uhrct.training.config import LossSettings, TrainingConfig
from uhrct.training.data.batch import Batch, hr_crop, hr_spacing, lr_channels
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import load_patients
from uhrct.training.losses import MeanLoss
from uhrct.training.structure_losses import (
    VESSEL,
    StructureTerms,
    length_loss,
    loss_operator,
    reference_vessels,
    skeleton,
)

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}
SCALE, SD_HU = (1, 2, 2), 30.0


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(mean=SIZE))


@pytest.fixture(scope="module")
def batch(tiny: Tiny, model: Model) -> Batch:
    """Four crops, all of them in the lungs as far as losses know."""
    data = tiny().data
    patients = load_patients(data.corpus, {}, torch.device("cpu"))
    made = BatchMaker(patients, data, model.acquisition)(0)
    return replace(made, lungs=torch.ones_like(made.hr_hu, dtype=torch.bool))


def up(m: Model, batch: Batch) -> Tensor:
    return m.features(batch.lr_hu, batch.spacing_mm).up_hu


def truth(m: Model, batch: Batch) -> Tensor:
    """The residual of a perfect network."""
    return lr_channels((batch.hr_hu - up(m, batch)) / SD_HU, SCALE)


def of_image(
    m: Model, batch: Batch, image: Tensor, plain: float = 1.0, **settings: Any
) -> tuple[dict[str, Tensor], Tensor]:
    """(parts of an image, gradient of the pixel loss there)."""
    wanted = truth(m, batch)

    def pixel(image: Tensor) -> Tensor:
        return (image - wanted).square().mean()

    leaf = image.detach().clone().requires_grad_()
    (pull,) = torch.autograd.grad(pixel(leaf), leaf)
    terms = StructureTerms(m, LossSettings(**{"structure_items": 1.0, **settings}), plain)
    return terms.image(image, batch, up(m, batch), SD_HU, pixel), pull


def half(m: Model, batch: Batch) -> Tensor:
    return (0.5 * truth(m, batch)).requires_grad_()


FORMS: list[dict[str, Any]] = [
    {"structure_share": 0.15, "structure_power": 2, "structure_operator": kind, "structure_contrast_hu": 250.0}
    for kind in ("vc", "frangi", "jerman")
]
FORMS += [{"structure_share": 0.3, "structure_operator": "surrogate"}, {"structure_share": 0.15, "lengths_share": 0.05}]


@pytest.mark.parametrize("form", FORMS, ids=["vc", "frangi", "jerman", "surrogate", "lengths"])
def test_each_part_pulls_with_its_share_of_the_pixel_gradient(model: Model, batch: Batch, form: dict[str, Any]) -> None:
    image = half(model, batch)
    parts, pull = of_image(model, batch, image, **form)
    shares = {"structure_image": form["structure_share"], "lengths": form.get("lengths_share")}
    assert set(parts) == {name for name, share in shares.items() if share}
    for name, value in parts.items():
        assert value > 0
        (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
        assert float(gradient.norm() / pull.norm()) == pytest.approx(shares[name], rel=1e-4)


@pytest.mark.parametrize(("power", "kind"), [(1, ""), (2, "frangi")])
def test_a_fixed_weight_gives_value_and_gradient_of_the_plain_formula(
    model: Model, batch: Batch, power: int, kind: str
) -> None:
    image = half(model, batch)
    parts, _ = of_image(model, batch, image, structure_image=0.3, structure_power=power, structure_operator=kind)
    operator = replace(model.operator, kind=kind or "vc")
    hr = hr_crop(up(model, batch), SCALE) + from_channels(image, 2, 2) * SD_HU
    made, wanted = (operator(x.clamp(-1000, 600), hr_spacing(batch, SCALE)) for x in (hr, hr_crop(batch.hr_hu, SCALE)))
    plain = 0.3 * (made - wanted).abs().pow(power).mean()
    assert torch.allclose(parts["structure_image"], plain, rtol=1e-5)
    a, b = (torch.autograd.grad(v, image)[0] for v in (parts["structure_image"], plain))
    assert torch.allclose(a, b, atol=1e-6 * float(b.abs().max()) + 1e-12)


def test_metal_beyond_the_window_pulls_on_nothing(model: Model, batch: Batch) -> None:
    metal = Batch(batch.lr_hu + 4000, batch.hr_hu + 4000, batch.spacing_mm)
    image = half(model, metal)
    parts, _ = of_image(model, metal, image, structure_share=0.15)
    assert parts["structure_image"].item() == 0
    assert torch.autograd.grad(parts["structure_image"], image)[0].abs().max() == 0


def test_a_share_of_the_items_pulls_as_all_would_on_average(model: Model, batch: Batch) -> None:
    """Of four equal items two are looked at, and pulled twice as far; items that are not augmented come first."""
    same = Batch(*(v[:1].expand(4, -1, -1, -1) for v in (batch.lr_hu, batch.hr_hu)), batch.spacing_mm[:1] * 4)
    image = half(model, same)
    forms: list[dict[str, float]] = [{"structure_share": 0.15}, {"structure_image": 0.3}]
    for form, plain in itertools.product(forms, (1.0, 0.5, 0.25)):
        gradients = []
        for share in (1.0, 0.5):
            parts, _ = of_image(model, same, image, plain, **form, structure_items=share)
            gradients.append(torch.autograd.grad(parts["structure_image"], image)[0])
        everyone, some = gradients
        seen = [0, 1] if plain == 0.5 else [0, 2]
        assert torch.allclose(some[seen], 2 * everyone[seen], rtol=1e-3, atol=1e-9)
        assert some[[k for k in range(4) if k not in seen]].abs().max() == 0
        assert everyone.abs().max() > 0


def test_the_operator_of_the_loss_may_differ_from_the_priors(model: Model) -> None:
    assert loss_operator(model, LossSettings()) == model.operator
    other = loss_operator(model, LossSettings(structure_operator="jerman", structure_contrast_hu=250))
    assert other == replace(model.operator, kind="jerman", contrast_hu=250.0)
    for settings, message in (
        ({"structure_operator": "sobel"}, "'sobel': need one of"),
        ({"structure_operator": "surrogate", "structure_contrast_hu": 250.0}, "leave it out"),
        ({"structure_operator": "nowhere.safetensors"}, "no such surrogate"),
    ):
        with pytest.raises(UhrctError, match=message):
            loss_operator(model, LossSettings(**settings))


def test_late_parts_wait_for_their_share_of_the_training(model: Model, batch: Batch) -> None:
    loss = MeanLoss(model, LossSettings(structure_share=0.15, lengths_share=0.1, structure_from=0.5))
    early, late = (set(loss(model.mean, batch, torch.Generator(), done)[1]) for done in (0.49, 0.5))
    assert late - early == {"structure_image", "lengths"}


# --- lengths


def cross(gap: int = 0) -> Tensor:
    """Two vessels that cross, one of them broken over `gap` pixels."""
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 22:26, 4:44] = 1
    mask[..., 4:44, 10:13] = 1
    mask[..., 22:26, 30 : 30 + gap] = 0
    return mask


def test_lengths_cost_nothing_for_the_truth_and_more_for_gaps_and_inventions() -> None:
    losses = [float(length_loss(cross(gap), cross())) for gap in (0, 4, 8, 12)]
    assert losses[0] < 1e-3
    assert losses == sorted(losses)
    assert losses[1] > 0.01
    assert float(length_loss(torch.zeros_like(cross()), torch.zeros_like(cross()))) < 1e-3
    more = cross()
    more[..., 36:39, 20:44] = 1
    assert float(length_loss(more, cross())) > 0.02


def test_a_vessel_broken_and_one_invented_cost_alike() -> None:
    """However wide the other vessels are; an invented one costs more if asked."""

    def lines(*rows: int, half: int) -> torch.Tensor:
        mask = torch.zeros(1, 1, 60, 40)
        for row in rows:
            mask[..., row - half : row + half + 1, :] = 1
        return mask

    two = lines(10, 30, half=2)
    broken = length_loss(lines(10, half=2), two).item()
    third = two + lines(50, half=1)
    assert broken == pytest.approx(0.5, abs=1e-3)
    assert length_loss(third, two).item() == pytest.approx(broken, abs=1e-3)
    assert length_loss(third, two, invented_cost=3.0).item() == pytest.approx(3 * broken, abs=2e-3)


def test_lengths_pull_towards_what_is_measured() -> None:
    """In a map in doubt, a broken piece is pulled up and an invented one down. Clear values are left alone."""
    made = cross(8) + 0.2 * (cross() - cross(8))
    made[..., 36:39, 20:44] = 0.3
    made.requires_grad_()
    (gradient,) = torch.autograd.grad(length_loss(made, cross()), made)
    assert (gradient[..., 23:25, 31:37] < 0).all()
    assert (gradient[..., 37:39, 20:44] > 0).all()
    assert gradient[..., 30:36, 4:9].abs().max() == 0
    moved = (made.detach() - 1e3 * gradient).clamp(0, 1)
    before, after = (vessel_lengths(cross()[0, 0] > 0, m[0, 0] >= VESSEL, (1.0, 1.0)) for m in (made.detach(), moved))
    assert before.broken > 2
    assert before.invented > 10
    assert after.broken == 0
    assert after.invented == 0


def test_thinning_agrees_with_hard_skeletons() -> None:
    """Not pixel by pixel, but within one pixel everywhere."""
    mask = cross()
    ours = skeleton(mask)[0, 0] > 0.5
    other = torch.from_numpy(hard_skeleton(mask[0, 0].bool().numpy()))
    assert ours.sum() < 0.6 * mask.sum()

    def near(line: Tensor) -> Tensor:
        return torch.nn.functional.max_pool2d(line[None].float(), 5, 1, 2)[0] > 0

    assert float((ours & near(other)).sum() / ours.sum()) > 0.95
    assert float((other & near(ours)).sum() / other.sum()) > 0.95


# --- where vessels are, and exact truth


def test_vessels_are_looked_for_in_lungs_alone(model: Model, batch: Batch) -> None:
    everywhere = torch.ones_like(hr_crop(batch.hr_hu, SCALE))
    assert reference_vessels(everywhere, batch, SCALE).min() == 1
    outside = replace(batch, lungs=torch.zeros_like(batch.lungs))
    assert reference_vessels(everywhere, outside, SCALE).max() == 0
    parts, _ = of_image(model, outside, torch.zeros_like(truth(model, batch)), lengths_share=0.1)
    assert parts["lengths"].detach().abs() < 1e-3


def test_batches_know_the_lungs_where_a_loss_asks(tiny: Tiny, model: Model) -> None:
    """The lung of the made-up patients is an ellipse of -850 HU; tissue around it and the air outside are not lung."""
    data = tiny(data={"augmented": 0.0, "batch": 8}).data
    patients = load_patients(data.corpus, {}, torch.device("cpu"))
    batch = BatchMaker(patients, data, model.acquisition, lungs=True)(0)
    assert batch.lungs is not None
    assert batch.lungs.shape == batch.hr_hu.shape
    agree = (batch.lungs == ((batch.hr_hu < -400) & (batch.hr_hu > -960))).float().mean()
    assert agree > 0.9  # bright vessels inside belong to it
    assert not batch.lungs[batch.hr_hu < -960].any()


def test_exact_maps_say_which_of_what_shows_is_a_vessel(batch: Batch) -> None:
    exact = torch.full_like(batch.hr_hu, torch.nan)
    exact[..., 20:24, :] = 1
    exact[..., 24:30, :] = 0
    known = hr_crop(exact, SCALE)
    for shows in (0.0, 1.0):
        wanted = torch.full_like(known, shows)
        vessels = reference_vessels(wanted, replace(batch, structure=exact), SCALE)
        assert torch.equal(vessels[~known.isnan()], shows * known[~known.isnan()])
        assert (vessels[known.isnan()] == shows).all()


def test_no_image_is_better_than_the_truth_with_an_exact_map_too(model: Model, batch: Batch) -> None:
    exact = torch.full_like(batch.hr_hu, torch.nan)
    exact[..., :40] = 1  # much that no image shows
    for seen in (batch, replace(batch, structure=exact)):
        perfect, interpolated = (
            float(of_image(model, seen, residual, lengths_share=0.1)[0]["lengths"].detach())
            for residual in (truth(model, batch), torch.zeros_like(truth(model, batch)))
        )
        assert perfect < interpolated


def test_the_head_learns_the_exact_map_in_place_of_the_operators(model: Model, batch: Batch) -> None:
    terms = StructureTerms(model, LossSettings())
    head = model.features(batch.lr_hu, batch.spacing_mm).prior  # the map of an untrained head
    cut = head[..., 6:-6, 6:-6]
    plain = terms.head(cut, batch)["structure_head"]
    unknown = torch.full_like(batch.hr_hu, torch.nan)
    assert torch.equal(terms.head(cut, replace(batch, structure=unknown))["structure_head"], plain)
    exact = replace(batch, structure=from_channels(head, 2, 2))
    assert terms.head(cut, exact)["structure_head"] < 1e-6 < plain
