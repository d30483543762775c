"""Leaving out the air around the body changes nothing but the air."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from uhrct.core.volume import Volume
from uhrct.models.model import Model
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.air import MARGIN_PX, occupied
from uhrct.upscaling.upscaler import Upscaler

#: rows and columns of the body in each slice
BODIES = (slice(40, 70), slice(50, 84)), (slice(44, 80), slice(30, 60)), (slice(42, 62), slice(52, 66))


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    """Three slices with a body of another size and place in each, a table of foam, and noise everywhere."""
    hu = np.random.default_rng(0).normal(-1000, 15, (3, 128, 140)).round().astype(np.int16)
    for plane, (rows, columns) in zip(hu, BODIES, strict=True):
        plane[rows, columns] = np.maximum(slice_hu[:36, :36], -300)[
            : rows.stop - rows.start, : columns.stop - columns.start
        ]
    hu[:, 110:114, 20:120] = -940
    return Volume(hu, (0.8, 1.3, 1.3))


def result(model: Model, volume: Volume, **settings: Any) -> np.ndarray:
    return np.concatenate([slab.hu for slab in Upscaler(model, **settings).slabs(volume)])


@pytest.mark.parametrize("name", ["x2", "x4-fast", "5x2x2"])
def test_the_body_is_bit_identical_and_the_air_is_interpolated(scan: Volume, name: str) -> None:
    model = Model.from_pretrained(name)
    known = {"precision": torch.float32, "psf_fwhm_mm": 0.8, "noise_hu": 15.0}
    quick, whole = (result(model, scan, skip_air=skip, **known) for skip in (True, False))
    sz, sy, sx = model.config.scale
    for k, (rows, columns) in enumerate(BODIES):
        y, x = slice(rows.start * sy, rows.stop * sy), slice(columns.start * sx, columns.stop * sx)
        np.testing.assert_array_equal(quick[k * sz : (k + 1) * sz, y, x], whole[k * sz : (k + 1) * sz, y, x])
    quick, whole = (result(model, scan, skip_air=skip, consistency="off", **known) for skip in (True, False))
    corner = slice(0, 8 * sy), slice(0, 8 * sx)
    middle = torch.from_numpy(scan.hu[[0, 0, 1, 2, 2]][None].astype(np.float32))
    up = upsample_stack(middle if sz > 1 else middle[:, 1:4], model.config.scale)[0, :, *corner]
    np.testing.assert_allclose(quick[sz : 2 * sz, *corner], up, atol=0.51)  # whole numbers
    assert whole[:, *corner].std() < 0.95 * quick[:, *corner].std()  # the network removes noise there


def test_the_networks_see_less(tiny_model: Model, scan: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = type(tiny_model.mean).forward

    def counted(self: Any, x: torch.Tensor, *rest: Any, **numbers: Any) -> Any:
        seen.append(x.shape[-2] * x.shape[-1])
        return forward(self, x, *rest, **numbers)

    monkeypatch.setattr(type(tiny_model.mean), "forward", counted)
    result(tiny_model, scan)
    result(tiny_model, scan, skip_air=False)
    assert seen[0] < 0.8 * seen[-1]


def test_a_slice_does_not_depend_on_the_others_of_its_pass(tiny_model: Model, scan: Volume) -> None:
    scan = scan.on_grid(scan.grid, scan.hu.astype(np.float32))
    one, all_at_once, tiles = (
        result(tiny_model, scan, precision=torch.float32, **s) for s in ({"batch": 1}, {"batch": 3}, {"tile": 24})
    )
    assert np.abs(one - all_at_once).max() < 0.01
    assert np.abs(one - tiles).max() < 0.01


def test_air_alone(tiny_model: Model, scan: Volume) -> None:
    empty = scan.on_grid(scan.grid, np.full(scan.shape, -1000, np.int16))
    assert (result(tiny_model, empty) == -1000).mean() > 0.99


def test_lung_alone_is_no_air() -> None:
    """A small field of view may hold nothing but lung at its rim."""
    lung = torch.from_numpy(np.random.default_rng(0).normal(-860, 30, (1, 80, 90)).astype(np.float32))
    assert occupied(lung) == [(0, 80, 0, 90)]


def test_noise_and_foam_are_air_and_skin_is_not(scan: Volume) -> None:
    for box, (rows, columns) in zip(occupied(torch.from_numpy(scan.hu.astype(np.float32))), BODIES, strict=True):
        top, bottom, left, right = box
        assert top in (rows.start - MARGIN_PX, rows.start - MARGIN_PX - 1)
        assert bottom in (rows.stop + MARGIN_PX, rows.stop + MARGIN_PX + 1)
        assert left in (columns.start - MARGIN_PX, columns.start - MARGIN_PX - 1)
        assert right in (columns.stop + MARGIN_PX, columns.stop + MARGIN_PX + 1)
