"""Batches that are the same whenever and wherever they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.physics.acquisition import Acquisition
from uhrct.training.config import DataSettings, TrainingConfig
from uhrct.training.data.batch import MARGIN, Scale
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Patient, load_patients
from uhrct.training.data.voxels import body_box

CPU = torch.device("cpu")
Tiny = Callable[..., TrainingConfig]


X2 = Acquisition((1, 2, 2))


def maker(config: TrainingConfig, kind: str = "scanner") -> BatchMaker:
    patients = load_patients(config.data.corpus, config.data.corpus_weights, CPU)
    return BatchMaker(patients, config.data, Acquisition((1, 2, 2), kind), seed=config.seed)


def batches(patients: list[Patient], settings: DataSettings, scale: Scale = (1, 2, 2), context: int = 0) -> BatchMaker:
    return BatchMaker(patients, settings, Acquisition(scale), context=2 if scale[0] > 1 else context)


@pytest.mark.parametrize("augmented", [0.0, 0.5, 1.0])
def test_shapes_and_degradation(tiny: Tiny, augmented: float) -> None:
    make = maker(tiny(data={"augmented": augmented, "batch": 5}))
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
    batch = maker(tiny(), "bicubic")(0)
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
    turned = set()
    for step in range(12):
        batch = batches(one_patient(ramp), tiny(data={"augmented": 0.0}).data)(step)
        for hr, spacing in zip(batch.hr_hu[:, 0], batch.spacing_mm, strict=True):
            along_x = bool((hr[0, 0] - hr[0, 1]).abs() > 0.5)
            turned.add(along_x)
            assert spacing == pytest.approx((1.0, 1.6) if along_x else (1.6, 1.0))
    assert turned == {True, False}


def test_rescaled_items_say_their_coarser_spacing(tiny: Tiny) -> None:
    """On a grid made coarser by f the same ramp is f times as steep a pixel, and as steep a millimetre."""
    ramp = (10 * torch.arange(120)).short().expand(1, 120, 120).contiguous()
    make = batches(one_patient(ramp), tiny(data={"augmented": 1.0}).data)
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
    make = batches([p], tiny(data={"augmented": 0.0}).data)
    for step in range(10):
        assert (make(step).hr_hu > -300).flatten(1).any(1).all()


def test_shares_by_weight(tiny: Tiny) -> None:
    hu = [torch.full((1, 64, 64), v, dtype=torch.int16) for v in (0, 100)]
    patients = [replace(one_patient(h)[0], name=str(k), weight=float(k)) for k, h in enumerate(hu)]
    batch = batches(patients, tiny(data={"augmented": 0.0, "batch": 32}).data)(0)
    assert (batch.hr_hu == 100).all()  # weight 0 is never drawn


def test_too_small_slices_are_named(tiny: Tiny) -> None:
    with pytest.raises(UhrctError, match="series a: slices are smaller than a crop of 104 pixels"):
        maker(tiny(data={"crop": 40}))
    maker(tiny(data={"crop": 24}))  # (24 + 12) * 2 = 72 fits exactly
    assert maker(tiny(data={"crop": 24}))(0).hr_hu.shape[-1] == 72


def test_augmented_items_differ_in_grid_kernel_and_noise(tiny: Tiny) -> None:
    """An edge between two even regions: noise moves the regions, the kernel the edge, the grid the spacing."""
    edge = torch.zeros(1, 120, 120, dtype=torch.int16)
    edge[..., 60:] = 400
    make = batches(one_patient(edge), tiny(data={"augmented": 1.0, "batch": 16}).data)
    noise_hu, overshoot_hu, spacings = [], [], set()
    for step in range(3):
        batch = make(step)
        spacings |= set(batch.spacing_mm)
        for hr in batch.hr_hu[:, 0]:
            even = hr[(hr - hr.flatten().median()).abs() < 120]
            noise_hu.append(float(even.std()))
            overshoot_hu.append(float(hr.max() - 400))
    assert min(noise_hu) < 1  # about half of the items have no more noise
    assert max(noise_hu) > 5
    assert min(overshoot_hu) < 1
    quiet = [o for n, o in zip(noise_hu, overshoot_hu, strict=True) if n < 1]
    assert max(quiet, default=0) > 20 or max(overshoot_hu) > 40
    assert len({round(max(s), 2) for s in spacings}) > 2
    assert batch.hr_hu.min() >= -1024


def thin_patient(n: int = 90) -> Patient:
    """HU = 10 x slice number, 1 mm apart: a batch tells by its values where it was cut."""
    hu = (10 * torch.arange(n))[:, None, None].expand(n, 64, 64).short().contiguous()
    return Patient("thin", hu, (0.7, 0.7), (0, 64, 0, 64), 1.0, 1.0, 1.0)


def test_thick_slices_are_means_of_the_thin_ones_inside(tiny: Tiny) -> None:
    make = batches([thin_patient()], tiny(data={"augmented": 0.0, "crop": 8, "batch": 8}).data, (5, 2, 2))
    increments = set()
    for step in range(4):
        batch = make(step)
        assert batch.hr_hu.shape == (8, 5, 40, 40)
        assert batch.lr_hu.shape == (8, 5, 20, 20)
        assert batch.properties is not None
        for lr, hr, properties in zip(batch.lr_hu, batch.hr_hu, batch.properties, strict=True):
            assert torch.allclose(lr[2], hr.mean((0, 1, 2)), atol=0.01)
            apart = float((hr[1] - hr[0]).abs().mean()) / 10  # mm between fine slices
            increment = 2.5 * 4 ** float(properties[-1])
            assert increment == pytest.approx(5 * apart, rel=1e-3)
            increments.add(round(increment))
            neighbours = (lr[1:] - lr[:-1]).mean((1, 2)).abs() / 10
            for d in neighbours.tolist():  # a neighbour is one increment off, or left out
                assert d == pytest.approx(5 * apart, rel=1e-3) or d == pytest.approx(0, abs=1e-3)
    assert len(increments) > 1
    assert increments <= {5, 10, 15}


def test_neighbours_in_plane_are_skipped_slices(tiny: Tiny) -> None:
    batch = batches([thin_patient()], tiny(data={"augmented": 0.0, "batch": 64}).data, context=1)(0)
    assert batch.properties is not None
    seen = set()
    for lr, properties in zip(batch.lr_hu, batch.properties, strict=True):
        below, middle, above = lr.mean((1, 2)).tolist()
        increment = 2.5 * 4 ** float(properties[-1])
        offsets = {round(abs(below - middle) / 10), round(abs(above - middle) / 10)}
        assert offsets <= {0, round(increment)}
        seen.add((round(increment), len(offsets)))
    assert {i for i, _ in seen} == {1, 2, 3}
    assert 2 in {n for _, n in seen}  # some with one neighbour only


def test_short_and_thick_series_are_left_out_through_plane(tiny: Tiny) -> None:
    short, good = replace(thin_patient(34), name="short"), thin_patient()
    thick = replace(good, name="thick", spacing_z_mm=2.0)
    settings = tiny(data={"crop": 8, "max_slice_spacing_mm": 1.5}).data
    make = batches([short, thick, good], settings, (5, 1, 1))
    assert [p.name for p in make.patients] == ["thin"]
    assert make.left_out == [
        "1 series left out, fewer than 35 slices: short",
        "1 series left out, slices more than 1.5 mm apart (data.max_slice_spacing_mm): thick",
    ]
    assert len(batches([short, thick], settings).patients) == 2  # in plane both are fine
    with pytest.raises(UhrctError, match=r"no series can be used at scale .*fewer than 35 slices"):
        batches([short, thick], settings, (5, 1, 1))


def test_degraded_items_come_with_their_properties(tiny: Tiny) -> None:
    flat = replace(thin_patient(), hu=torch.full((20, 120, 120), 40, dtype=torch.int16))
    batch = batches([flat], tiny(data={"augmented": 0.0, "degraded": 1.0, "batch": 32, "crop": 40}).data)(1)
    noise_hu = torch.tensor([s.noise_hu for s in batch.scans])
    sharpened = 1 + torch.tensor([s.sharpening for s in batch.scans])
    measured = batch.lr_hu.std((1, 2, 3))
    assert (noise_hu == 0).any()
    assert noise_hu.max() > 20
    assert ((measured - noise_hu).abs() < 0.15 * noise_hu + 1e-3).all()  # noise comes after the kernel
    assert (sharpened > 1).any()
    clean = batches([flat], tiny(data={"augmented": 0.0, "batch": 8}).data)(1)
    assert all(s.noise_hu == s.sharpening == 0 for s in clean.scans)


def test_real_pairs_are_shown_as_measured(tiny: Tiny) -> None:
    """LR voxels that no simulation gives: they must arrive, in their place, beside an HR that is not varied."""
    p = thin_patient()
    measured = (50 * torch.arange(18) + 7000)[:, None, None].expand(18, 64, 64).short().contiguous()
    data = tiny(data={"crop": 8, "batch": 16, "augmented": 0.5, "degraded": 1.0}).data
    make = batches([replace(p, lr_hu=measured)], data, (5, 1, 1))
    batch = make(0)
    for lr, hr in zip(batch.lr_hu, batch.hr_hu, strict=True):
        # slice k measures 50 k + 7000, the fine slices below it 50 k to 50 k + 40
        assert float(lr[2].mean()) - 7000 == pytest.approx(float(hr.mean()) - 20, abs=0.01)
        assert float(hr[:, 0, 0].diff().abs().mean()) == pytest.approx(10)
    # of another scale it is a plain patient
    assert batches([replace(p, lr_hu=measured)], tiny(data={"crop": 8}).data, (5, 2, 2))(0).lr_hu.max() < 1500
