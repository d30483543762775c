"""Losses in the structure domain: nothing for the truth, as strong as they are told, exact truth where there is one."""

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
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import Batch, BatchMaker, hr_crop, lr_channels
from uhrct.training.data.patients import load_patients
from uhrct.training.losses import make_loss
from uhrct.training.structure_losses import (
    VESSEL,
    StructureTerms,
    in_lungs,
    loss_operator,
    reference_vessels,
    skeleton,
    topology_loss,
)

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


def setting(config: TrainingConfig) -> tuple[Model, Batch]:
    torch.manual_seed(0)
    m = Model(ModelConfig(mean=SIZE))
    return m, BatchMaker(load_patients(config.corpus, {}, torch.device("cpu")), config, m)(0)


def of_image(m: Model, config: TrainingConfig, batch: Batch, residual: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """(terms, the pixel loss's gradient) of a network that says `residual`, which collects the terms' gradient."""
    up_hu = m.features(batch.lr_hu, batch.spacing_mm).up_hu
    wanted = lr_channels((batch.hr_hu - up_hu) / m.config.residual_sd_hu, m)
    terms = StructureTerms(m, config)

    def pixel(image: Tensor) -> Tensor:
        return (image - wanted).square().mean()

    leaf = residual.clone().requires_grad_()
    (pull,) = torch.autograd.grad(pixel(leaf), leaf)
    return terms(residual, pixel, batch, up_hu), pull


def truth(m: Model, batch: Batch) -> Tensor:
    up_hu = m.features(batch.lr_hu, batch.spacing_mm).up_hu
    return lr_channels((batch.hr_hu - up_hu) / m.config.residual_sd_hu, m)


FORMS: list[dict[str, Any]] = [
    {"structure_share": 0.15, "structure_power": 2, "structure_operator": kind, "structure_contrast_hu": 250.0}
    for kind in ("vc", "frangi", "jerman")
]
FORMS += [
    {"structure_share": 0.3, "structure_operator": "surrogate"},
    {"topology": "recall"},
    {"topology": "cldice", "topology_share": 0.2},
]


@pytest.mark.parametrize("form", FORMS, ids=[f.get("structure_operator") or f["topology"] for f in FORMS])
def test_tied_terms_pull_with_their_share_of_the_pixel_gradient(tiny: Tiny, form: dict[str, Any]) -> None:
    config = tiny(**form, structure_items=1.0)
    m, batch = setting(config)
    image = (0.5 * truth(m, batch)).requires_grad_()
    parts, pull = of_image(m, config, batch, image)
    assert set(parts) == {"topology" if "topology" in form else "structure_image"}
    (value,) = parts.values()
    assert value > 0
    (gradient,) = torch.autograd.grad(value, image)
    share = config.topology_share if "topology" in form else config.structure_share
    assert float(gradient.norm() / pull.norm()) == pytest.approx(share, rel=1e-4)


def test_both_kinds_of_terms_keep_to_their_own_share(tiny: Tiny) -> None:
    config = tiny(structure_share=0.15, topology="recall", topology_share=0.05, structure_items=1.0)
    m, batch = setting(config)
    image = (0.5 * truth(m, batch)).requires_grad_()
    parts, pull = of_image(m, config, batch, image)
    for name, share in (("structure_image", 0.15), ("topology", 0.05)):
        (gradient,) = torch.autograd.grad(parts[name], image, retain_graph=True)
        assert float(gradient.norm() / pull.norm()) == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", ["", "frangi"])
def test_a_fixed_weight_gives_value_and_gradient_of_the_plain_formula(tiny: Tiny, power: int, kind: str) -> None:
    config = tiny(structure_image_weight=0.3, structure_power=power, structure_operator=kind, structure_items=1.0)
    m, batch = setting(config)
    image = (0.5 * truth(m, batch)).requires_grad_()
    parts, _ = of_image(m, config, batch, image)
    operator = replace(m.operator, kind=kind or "vc")
    up_hu = m.features(batch.lr_hu, batch.spacing_mm).up_hu
    hr = hr_crop(up_hu, m) + from_channels(image, 2, 2) * m.config.residual_sd_hu
    spacing = [(a / 2, b / 2) for a, b in batch.spacing_mm]
    made, wanted = (operator(x.clamp(-1000, 600), spacing) for x in (hr, hr_crop(batch.hr_hu, m)))
    plain = 0.3 * (made - wanted).abs().pow(power).mean()
    assert torch.allclose(parts["structure_image"], plain, rtol=1e-5)
    a, b = (torch.autograd.grad(v, image)[0] for v in (parts["structure_image"], plain))
    assert torch.allclose(a, b, atol=1e-6 * float(b.abs().max()) + 1e-12)


def test_a_step_along_the_gradient_brings_the_maps_nearer(tiny: Tiny) -> None:
    """The sign and the place of what is attached: the structure error falls, without any pixel loss."""
    config = tiny(structure_share=1.0, structure_power=2, structure_contrast_hu=250.0, structure_items=1.0)
    m, batch = setting(config)
    image = torch.zeros_like(truth(m, batch)).requires_grad_()
    terms = StructureTerms(m, config)
    up_hu = m.features(batch.lr_hu, batch.spacing_mm).up_hu
    wanted = terms._reference(batch)

    def error(residual: Tensor) -> float:
        hr = hr_crop(up_hu, m) + from_channels(residual, 2, 2) * m.config.residual_sd_hu
        return float((terms._map(hr, batch) - wanted).square().mean().detach())

    parts, _ = of_image(m, config, batch, image)
    (gradient,) = torch.autograd.grad(parts["structure_image"], image)
    assert error(image - 0.2 * gradient / gradient.abs().max()) < error(image)


def test_metal_beyond_the_window_pulls_on_nothing(tiny: Tiny) -> None:
    config = tiny(structure_share=0.15)
    m, batch = setting(config)
    metal = Batch(batch.lr_hu + 4000, batch.hr_hu + 4000, batch.spacing_mm)
    image = (0.5 * truth(m, metal)).requires_grad_()
    parts, _ = of_image(m, config, metal, image)
    assert parts["structure_image"].item() == 0
    assert torch.autograd.grad(parts["structure_image"], image)[0].abs().max() == 0


def test_a_share_of_the_items_pulls_as_all_would_on_average(tiny: Tiny) -> None:
    """A batch of four equal items: the two that are looked at are pulled twice as far, the others not at all.

    The first half of a batch is plain, and they are of these as far as there are enough.
    """
    m, batch = setting(tiny())
    same = Batch(*(v[:1].expand(4, -1, -1, -1) for v in (batch.lr_hu, batch.hr_hu)), batch.spacing_mm[:1] * 4)
    image = (0.5 * truth(m, same)).requires_grad_()
    forms: list[dict[str, float]] = [{"structure_share": 0.15}, {"structure_image_weight": 0.3}]
    for form, varied in itertools.product(forms, (0.0, 0.5, 0.75)):
        gradients = []
        for share in (1.0, 0.5):
            parts, _ = of_image(m, tiny(**form, structure_items=share, augmented=varied), same, image)
            gradients.append(torch.autograd.grad(parts["structure_image"], image)[0])
        everyone, some = gradients
        seen = [0, 1] if varied == 0.5 else [0, 2]
        assert torch.allclose(some[seen], 2 * everyone[seen], rtol=1e-3, atol=1e-9)
        assert some[[k for k in range(4) if k not in seen]].abs().max() == 0
        assert everyone.abs().max() > 0


def test_no_more_items_are_looked_at_than_wanted(tiny: Tiny) -> None:
    """A quarter of eight is two, however many are plain."""
    m, batch = setting(tiny())
    same = Batch(*(v[:1].expand(8, -1, -1, -1) for v in (batch.lr_hu, batch.hr_hu)), batch.spacing_mm[:1] * 8)
    image = (0.5 * truth(m, same)).requires_grad_()
    for varied in (0.0, 0.125, 0.25, 0.375, 0.5, 0.75):
        config = tiny(structure_share=0.15, structure_items=0.25, augmented=varied)
        parts, _ = of_image(m, config, same, image)
        pulled = torch.autograd.grad(parts["structure_image"], image)[0].abs().amax((1, 2, 3)) > 0
        assert pulled.sum() == 2, varied


def test_no_term_costs_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    m, batch = setting(tiny())
    monkeypatch.setattr(StructureTerms, "_map", lambda *_: pytest.fail("an operator was called that nothing asks for"))
    assert m.mean is not None
    make_loss(m, tiny())(m.mean, batch, torch.Generator())


# --- which operator


def test_the_operator_of_the_loss_may_differ_from_the_priors(tiny: Tiny) -> None:
    m, _ = setting(tiny())
    assert loss_operator(m, tiny(structure_share=0.1)) == m.operator
    other = loss_operator(m, tiny(structure_share=0.1, structure_operator="jerman", structure_contrast_hu=250))
    assert other == replace(m.operator, kind="jerman", contrast_hu=250.0)
    assert m.operator.kind == "vc"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure_operator": "sobel"}, "'sobel': need one of"),
        ({"structure_operator": "surrogate", "structure_contrast_hu": 250.0}, "leave it out"),
        ({"structure_operator": "nowhere.safetensors"}, "no such surrogate"),
        ({"topology": "betti"}, "choose from recall, cldice"),
        ({"structure_power": 3}, "give 1"),
        ({"structure_items": 0.0}, "share of the batch"),
        ({"structure_image_weight": 0.1}, "give one of them"),
    ],
)
def test_senseless_settings(tiny: Tiny, changes: dict[str, Any], message: str) -> None:
    m, _ = setting(tiny())
    with pytest.raises(UhrctError, match=message) as caught:
        StructureTerms(m, tiny(**{"structure_share": 0.15, **changes}))
    assert "\n" not in str(caught.value)


# --- topology


def cross(gap: int = 0) -> Tensor:
    """Two vessels that cross, one of them broken over `gap` pixels."""
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 22:26, 4:44] = 1
    mask[..., 4:44, 10:13] = 1
    mask[..., 22:26, 30 : 30 + gap] = 0
    return mask


@pytest.mark.parametrize("kind", ["recall", "cldice", "lengths"])
def test_topology_is_nothing_for_the_truth_and_grows_with_the_gap(kind: str) -> None:
    losses = [float(topology_loss(kind, cross(gap), cross())) for gap in (0, 4, 8, 12)]
    assert losses[0] < 1e-3
    assert losses == sorted(losses)
    assert losses[1] > 0.01
    assert float(topology_loss(kind, torch.zeros_like(cross()), torch.zeros_like(cross()))) < 1e-3


def test_cldice_and_lengths_mind_the_invented_and_recall_does_not() -> None:
    more = cross()
    more[..., 36:39, 20:44] = 1
    assert float(topology_loss("recall", more, cross())) < 1e-3
    assert float(topology_loss("cldice", more, cross())) > 0.02
    assert float(topology_loss("lengths", more, cross())) > 0.02


def test_a_vessel_broken_and_one_invented_cost_alike() -> None:
    """However wide the others are; and an invented one so many times as much as is said."""

    def lines(*rows: int, half: int) -> torch.Tensor:
        mask = torch.zeros(1, 1, 60, 40)
        for row in rows:
            mask[..., row - half : row + half + 1, :] = 1
        return mask

    two = lines(10, 30, half=2)
    broken = topology_loss("lengths", lines(10, half=2), two).item()
    third = two + lines(50, half=1)
    assert broken == pytest.approx(0.5, abs=1e-3)
    assert topology_loss("lengths", third, two).item() == pytest.approx(broken, abs=1e-3)
    assert topology_loss("lengths", third, two, invented_cost=3.0).item() == pytest.approx(3 * broken, abs=2e-3)


def test_lengths_pull_towards_what_is_measured() -> None:
    """Of a map in doubt, a broken piece is pulled up and an invented one down, and what is settled is left alone."""
    made = cross(8) + 0.2 * (cross() - cross(8))
    made[..., 36:39, 20:44] = 0.3
    made.requires_grad_()
    (gradient,) = torch.autograd.grad(topology_loss("lengths", made, cross()), made)
    assert (gradient[..., 23:25, 31:37] < 0).all()
    assert (gradient[..., 37:39, 20:44] > 0).all()
    assert gradient[..., 30:36, 4:9].abs().max() == 0
    moved = (made.detach() - 1e3 * gradient).clamp(0, 1)
    before, after = (vessel_lengths(cross()[0, 0] > 0, m[0, 0] >= VESSEL, (1.0, 1.0)) for m in (made.detach(), moved))
    assert before.broken > 2
    assert before.invented > 10
    assert after.broken == 0
    assert after.invented == 0


def test_a_gap_pulls_where_it_is() -> None:
    made = (0.1 * torch.ones_like(cross()) + 0.2 * cross(8)).requires_grad_()
    (gradient,) = torch.autograd.grad(topology_loss("recall", made, cross()), made)
    assert (gradient[..., 22:26, 30:38] < 0).any()
    elsewhere = gradient.clone()
    elsewhere[..., 21:27, 29:39] = 0
    assert elsewhere.abs().max() == 0  # what is up to the threshold already is left alone


def test_thinning_agrees_with_hard_skeletons() -> None:
    """Not pixel by pixel, but within one pixel of each other, all along."""
    mask = cross()
    ours = skeleton(mask)[0, 0] > 0.5
    other = torch.from_numpy(hard_skeleton(mask[0, 0].bool().numpy()))
    assert ours.sum() < 0.6 * mask.sum()

    def near(line: Tensor) -> Tensor:
        return torch.nn.functional.max_pool2d(line[None].float(), 5, 1, 2)[0] > 0

    assert float((ours & near(other)).sum() / ours.sum()) > 0.95
    assert float((other & near(ours)).sum() / other.sum()) > 0.95


# --- where vessels are, and exact truth


def with_lungs(batch: Batch, inside: bool) -> Batch:
    return replace(batch, lungs=torch.full_like(batch.hr_hu, inside, dtype=torch.bool))


def test_vessels_are_looked_for_in_lungs_alone(tiny: Tiny) -> None:
    m, batch = setting(tiny())
    everywhere = torch.ones_like(hr_crop(batch.hr_hu, m))
    assert reference_vessels(everywhere, with_lungs(batch, False), m).max() == 0
    assert reference_vessels(everywhere, with_lungs(batch, True), m).min() == 1


@pytest.mark.parametrize("changes", [{"topology": "lengths"}, {"vessel_weight": 1.0}, {"structure_where": "lungs"}])
def test_batches_know_the_lungs_where_a_term_asks(tiny: Tiny, changes: dict[str, Any]) -> None:
    """The made-up patients' lung is an ellipse of -850 HU; tissue around it and the room's air are none."""
    _, batch = setting(tiny(augmentations=(), batch=8, **changes))
    assert batch.lungs is not None
    assert batch.lungs.shape == batch.hr_hu.shape
    agree = (batch.lungs == ((batch.hr_hu < -400) & (batch.hr_hu > -960))).float().mean()
    assert agree > 0.9  # bright vessels inside belong to it
    assert not batch.lungs[batch.hr_hu < -960].any()
    assert setting(tiny())[1].lungs is None  # where nobody asks, nobody looks


def test_the_difference_can_be_held_to_the_lungs(tiny: Tiny) -> None:
    config = tiny(structure_share=0.15, structure_power=2, structure_where="lungs", structure_items=1.0)
    m, batch = setting(config)
    nothing = torch.zeros_like(truth(m, batch))
    inside, outside = (
        float(of_image(m, config, with_lungs(batch, b), nothing)[0]["structure_image"].detach()) for b in (True, False)
    )
    assert inside > 0
    assert outside == 0


def test_exact_maps_say_which_of_what_shows_is_a_vessel(tiny: Tiny) -> None:
    m, batch = setting(tiny())
    lung = with_lungs(batch, True)
    exact = torch.full_like(batch.hr_hu, torch.nan)
    exact[..., 20:24, :] = 1
    exact[..., 24:30, :] = 0
    known = hr_crop(exact, m)
    for shows in (0.0, 1.0):
        wanted = torch.full_like(hr_crop(batch.hr_hu, m), shows)
        vessels = reference_vessels(wanted, replace(lung, structure=exact), m)
        assert torch.equal(vessels[~known.isnan()], shows * known[~known.isnan()])
        assert (vessels[known.isnan()] == shows).all()


@pytest.mark.parametrize("kind", ["recall", "cldice"])
def test_no_image_is_better_than_the_truth_with_an_exact_map_too(tiny: Tiny, kind: str) -> None:
    config = tiny(topology=kind, structure_items=1.0)
    m, batch = setting(config)
    exact = torch.full_like(batch.hr_hu, torch.nan)
    exact[..., :40] = 1  # much that no image shows
    for seen in (batch, replace(batch, structure=exact)):
        perfect, interpolated = (
            float(of_image(m, config, seen, residual)[0]["topology"].detach())
            for residual in (truth(m, batch), torch.zeros_like(truth(m, batch)))
        )
        assert perfect < interpolated
        assert kind == "cldice" or perfect < 1e-3


def test_what_lies_outside_the_lungs_is_nobodys_invention(tiny: Tiny) -> None:
    config = tiny(topology="cldice", structure_items=1.0)
    m, batch = setting(config)
    body = with_lungs(batch, False)
    parts, _ = of_image(m, config, body, torch.zeros_like(truth(m, body)))
    assert parts["topology"].detach().abs() < 1e-3


def test_late_terms_wait_for_their_share_of_the_training(tiny: Tiny) -> None:
    config = tiny(structure_share=0.15, structure_power=2, topology="lengths", structure_from=0.5)
    m, batch = setting(config)
    loss = make_loss(m, config)
    early, late = (set(loss(m.mean, replace(batch, done=d), torch.Generator())[1]) for d in (0.49, 0.5))
    assert late - early == {"structure_image", "topology"}


def test_the_head_learns_the_exact_map_in_place_of_the_operators(tiny: Tiny) -> None:
    config = tiny()
    m, batch = setting(config)
    assert m.mean is not None
    loss = make_loss(m, config)
    plain = loss(m.mean, batch, torch.Generator())[1]["structure_head"]
    unknown = torch.full_like(batch.hr_hu, torch.nan)
    same = loss(m.mean, replace(batch, structure=unknown), torch.Generator())[1]["structure_head"]
    assert torch.equal(same, plain)
    f = m.features(batch.lr_hu, batch.spacing_mm)
    prior = from_channels(f.prior, 2, 2)  # what an untrained head says
    nothing = loss(m.mean, replace(batch, structure=prior), torch.Generator())[1]["structure_head"]
    assert nothing < 1e-6 < plain


def test_emphasis_moves_weight_to_vessels_and_keeps_the_sum(tiny: Tiny) -> None:
    config = tiny(vessel_weight=4.0)
    m, batch = setting(config)
    terms = StructureTerms(m, config)
    wanted = terms._reference(batch)
    weight = terms.emphasis(batch)
    assert isinstance(weight, Tensor)
    assert torch.allclose(weight.mean((1, 2, 3)), torch.ones(len(weight)), atol=1e-5)
    image = from_channels(weight, 2, 2)
    lungs = in_lungs(batch, m) > 0
    vessel, tissue = (wanted > 0.8) & lungs, (wanted < 0.05) & lungs
    both = [k for k in range(len(image)) if vessel[k].any() and tissue[k].any()]
    assert both
    for k in both:
        assert float(image[k][vessel[k]].mean() / image[k][tissue[k]].mean()) == pytest.approx(5, rel=0.2)
    assert StructureTerms(m, tiny(structure_share=0.1)).emphasis(batch) == 1.0
