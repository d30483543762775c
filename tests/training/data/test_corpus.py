"""Batches that are the same whenever and wherever they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import Acquisition
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import MARGIN, BatchMaker
from uhrct.training.data.patients import Patient, load_patients
from uhrct.training.data.voxels import body_box

CPU = torch.device("cpu")
Tiny = Callable[..., TrainingConfig]


def maker(config: TrainingConfig, **model: object) -> BatchMaker:
    small = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1, "structure_width": 0}, **model))
    return BatchMaker(load_patients(config.corpus, config.corpus_weights, CPU), config, small)


@pytest.mark.parametrize("augmented", [0.0, 0.5, 1.0])
def test_shapes_and_degradation(tiny: Tiny, augmented: float) -> None:
    make = maker(tiny(augmented=augmented, batch=5))
    for step in range(3):
        batch = make(step)
        side = 16 + 2 * MARGIN
        assert batch.lr_hu.shape == (5, 1, side, side)
        assert batch.hr_hu.shape == (5, 1, 2 * side, 2 * side)
        assert len(batch.spacing_mm) == 5
        assert torch.allclose(Acquisition((1, 2, 2)).forward(batch.hr_hu), batch.lr_hu, atol=1e-3)
        assert torch.isfinite(batch.hr_hu).all()
        # interpolation may overshoot at metal, but nothing lies below air any more
        assert batch.hr_hu.min() >= -1100


def test_the_models_own_acquisition_counts(tiny: Tiny) -> None:
    batch = maker(tiny(), acquisition={"kind": "bicubic"})(0)
    assert torch.allclose(Acquisition((1, 2, 2), "bicubic").forward(batch.hr_hu), batch.lr_hu, atol=1e-3)


def test_a_batch_depends_on_seed_step_and_rank_alone(tiny: Tiny) -> None:
    make = maker(tiny())
    first = make(7)
    make(3)
    torch.rand(5)  # nor on the global generator, which other code draws from
    assert torch.equal(make(7).hr_hu, first.hr_hu)
    assert maker(tiny())(7).spacing_mm == first.spacing_mm
    others = [make(8), make(7, rank=1), maker(tiny(seed=1))(7)]
    seen = [first, *others]
    for i in range(4):
        for j in range(i):
            assert not torch.equal(seen[i].lr_hu, seen[j].lr_hu)


def one_patient(hu: torch.Tensor) -> list[Patient]:
    return [Patient("p", hu, (0.5, 0.8), (0, hu.shape[1], 0, hu.shape[2]), 1.0)]


def test_spacing_turns_with_the_image(tiny: Tiny) -> None:
    """A ramp along x says how an item was turned: its spacing must have turned with it."""
    ramp = torch.arange(100, dtype=torch.int16).expand(1, 90, 100).contiguous()
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    turned = set()
    for step in range(12):
        batch = BatchMaker(one_patient(ramp), tiny(augmented=0.0), model)(step)
        for hr, spacing in zip(batch.hr_hu[:, 0], batch.spacing_mm, strict=True):
            along_x = bool((hr[0, 0] - hr[0, 1]).abs() > 0.5)
            turned.add(along_x)
            assert spacing == pytest.approx((1.0, 1.6) if along_x else (1.6, 1.0))
    assert turned == {True, False}


def test_rescaled_items_say_their_coarser_spacing(tiny: Tiny) -> None:
    """On a grid made coarser by f the same ramp is f times as steep a pixel, and as steep a millimetre."""
    ramp = (10 * torch.arange(120)).short().expand(1, 120, 120).contiguous()
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    make = BatchMaker(one_patient(ramp), tiny(augmented=1.0), model)
    g = torch.Generator().manual_seed(0)
    for factor in (1.0, 1.5, 2.0):
        for _ in range(4):
            crop = make._crop(0, factor, g)
            image, (dy, dx) = crop.hu[0], crop.spacing_mm
            # over 24 pixels: antialiasing ripples a little from one to the next
            rows = (image[40, 30] - image[16, 30]).abs() / 24
            columns = (image[30, 40] - image[30, 16]).abs() / 24
            steep = float(columns / dx if columns > rows else rows / dy)  # dy, dx are those of two HR pixels
            assert steep == pytest.approx(10 / 0.8 / 2, rel=0.01)


def test_crops_lie_on_the_body(tiny: Tiny) -> None:
    hu = torch.full((1, 300, 300), -1000, dtype=torch.int16)
    hu[:, 200:280, 20:60] = 0
    p = replace(one_patient(hu)[0], body=body_box(hu))
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    make = BatchMaker([p], tiny(augmented=0.0), model)
    for step in range(10):
        assert (make(step).hr_hu > -300).flatten(1).any(1).all()


def test_shares_by_weight(tiny: Tiny) -> None:
    hu = [torch.full((1, 64, 64), v, dtype=torch.int16) for v in (0, 100)]
    patients = [replace(one_patient(h)[0], name=str(k), weight=float(k)) for k, h in enumerate(hu)]
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    batch = BatchMaker(patients, tiny(augmented=0.0, batch=32), model)(0)
    assert (batch.hr_hu == 100).all()  # weight 0 is never drawn


def test_too_small_slices_are_named(tiny: Tiny) -> None:
    with pytest.raises(UhrctError, match="patient a: slices smaller than a crop of 104 pixels"):
        maker(tiny(crop=40))
    maker(tiny(crop=24))  # (24 + 12) * 2 = 72 fits exactly
    assert maker(tiny(crop=24))(0).hr_hu.shape[-1] == 72


def test_noise_differs_between_items_and_never_goes_below_the_floor(tiny: Tiny) -> None:
    make = maker(tiny())
    flat = torch.full((8, 1, 56, 56), -1000.0)
    out = make._vary(flat, torch.Generator().manual_seed(3))
    sd = out.std((1, 2, 3))
    assert out.min() >= -1024
    assert (sd < 1e-3).any()  # about half stay clean
    assert sd.max() > 3


@pytest.mark.parametrize("only", ["grid", "kernel", "noise"])
def test_every_augmentation_changes_what_it_says(tiny: Tiny, only: str) -> None:
    step_edge = torch.zeros(1, 120, 120, dtype=torch.int16)
    step_edge[..., 60:] = 400
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    without, with_one = (
        [BatchMaker(one_patient(step_edge), tiny(augmented=1.0, augmentations=a), model)(k) for k in range(4)]
        for a in ((), (only,))
    )
    changed = [not torch.equal(a.hr_hu, b.hr_hu) for a, b in zip(without, with_one, strict=True)]
    coarser = [a.spacing_mm != b.spacing_mm for a, b in zip(without, with_one, strict=True)]
    assert any(changed)
    assert any(coarser) == (only == "grid")
    hu = torch.cat([b.hr_hu.flatten() for b in with_one])
    away = (hu.abs() > 1e-3) & ((hu - 400).abs() > 1e-3)  # from both of the object's values
    assert away.any()
    assert (away.float().mean() > 0.3) == (only == "noise")  # the others change the edges alone


def thin_patient(n: int = 90) -> Patient:
    """HU = 10 x slice number, 1 mm apart: a batch tells by its values where it was cut."""
    hu = (10 * torch.arange(n))[:, None, None].expand(n, 64, 64).short().contiguous()
    return Patient("thin", hu, (0.7, 0.7), (0, 64, 0, 64), 1.0, 1.0, 1.0)


def test_thick_slices_are_means_of_the_thin_ones_inside(tiny: Tiny) -> None:
    model = Model(ModelConfig(scale=(5, 2, 2), context=2, mean={"image_width": 8, "image_blocks": 1}))
    make = BatchMaker([thin_patient()], tiny(augmented=0.0, crop=8, batch=8), model)
    increments = set()
    for step in range(4):
        batch = make(step)
        assert batch.hr_hu.shape == (8, 5, 40, 40)
        assert batch.lr_hu.shape == (8, 5, 20, 20)
        assert batch.properties is not None
        for lr, hr, told in zip(batch.lr_hu, batch.hr_hu, batch.properties, strict=True):
            assert torch.allclose(lr[2], hr.mean((0, 1, 2)), atol=0.01)
            apart = float((hr[1] - hr[0]).abs().mean()) / 10  # mm between fine slices
            increment = 2.5 * 4 ** float(told[-1])
            assert increment == pytest.approx(5 * apart, rel=1e-3)
            increments.add(round(increment))
            neighbours = (lr[1:] - lr[:-1]).mean((1, 2)).abs() / 10
            for d in neighbours.tolist():  # a neighbour is one increment off, or left out
                assert d == pytest.approx(5 * apart, rel=1e-3) or d == pytest.approx(0, abs=1e-3)
    assert len(increments) > 1
    assert increments <= {5, 10, 15}


def test_neighbours_in_plane_are_skipped_slices(tiny: Tiny) -> None:
    model = Model(ModelConfig(context=1, mean={"image_width": 8, "image_blocks": 1}))
    batch = BatchMaker([thin_patient()], tiny(augmented=0.0, batch=64), model)(0)
    assert batch.properties is not None
    seen = set()
    for lr, told in zip(batch.lr_hu, batch.properties, strict=True):
        below, middle, above = lr.mean((1, 2)).tolist()
        increment = 2.5 * 4 ** float(told[-1])
        offsets = {round(abs(below - middle) / 10), round(abs(above - middle) / 10)}
        assert offsets <= {0, round(increment)}
        seen.add((round(increment), len(offsets)))
    assert {i for i, _ in seen} == {1, 2, 3}
    assert 2 in {n for _, n in seen}  # some with one neighbour only


def test_patients_with_too_few_slices_for_thick_ones_are_named(tiny: Tiny) -> None:
    model = Model(ModelConfig(scale=(5, 1, 1), context=2, mean={"image_width": 8, "image_blocks": 1}))
    with pytest.raises(UhrctError, match="patient thin: fewer than 35 slices"):
        BatchMaker([thin_patient(34)], tiny(crop=8), model)


def test_degraded_items_are_told_as_what_they_are(tiny: Tiny) -> None:
    flat = replace(thin_patient(), hu=torch.full((20, 120, 120), 40, dtype=torch.int16))
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}, properties=True))
    batch = BatchMaker([flat], tiny(augmented=0.0, degraded=1.0, batch=32, crop=40), model)(1)
    assert batch.properties is not None
    told = 10 * torch.expm1(batch.properties[:, 2])
    sharpened = 1 + 0.5 * batch.properties[:, 1]
    measured = batch.lr_hu.std((1, 2, 3))
    assert (told == 0).any()
    assert told.max() > 20
    assert ((measured - told).abs() < 0.15 * told + 1e-3).all()  # noise comes after the kernel
    assert (sharpened > 1).any()
    clean = BatchMaker([flat], tiny(augmented=0.0, batch=8), model)(1)
    assert clean.properties is not None
    assert (clean.properties[:, :5] == 0).all()


def test_real_pairs_are_shown_as_measured(tiny: Tiny) -> None:
    """LR voxels that no simulation gives: they must arrive, in their place, beside an HR that is not varied."""
    p = thin_patient()
    measured = (50 * torch.arange(18) + 7000)[:, None, None].expand(18, 64, 64).short().contiguous()
    model = Model(ModelConfig(scale=(5, 1, 1), context=2, mean={"image_width": 8, "image_blocks": 1}))
    make = BatchMaker([replace(p, lr_hu=measured)], tiny(crop=8, batch=16, augmented=0.5, degraded=1.0), model)
    batch = make(0)
    for lr, hr in zip(batch.lr_hu, batch.hr_hu, strict=True):
        # slice k measures 50 k + 7000, the fine slices below it 50 k to 50 k + 40
        assert float(lr[2].mean()) - 7000 == pytest.approx(float(hr.mean()) - 20, abs=0.01)
        assert float(hr[:, 0, 0].diff().abs().mean()) == pytest.approx(10)
    # of another scale it is a plain patient
    other = Model(ModelConfig(scale=(5, 2, 2), context=2, mean={"image_width": 8, "image_blocks": 1}))
    assert BatchMaker([replace(p, lr_hu=measured)], tiny(crop=8), other)(0).lr_hu.max() < 1500
