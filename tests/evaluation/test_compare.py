"""Comparison of volumes: grids that must agree, means with undefined slices, the LR scan of a test."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.evaluation import compare as module
from uhrct.evaluation.compare import _Betti3D, acquisition_between, check_grids, compare
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.measures import MEASURES, VESSEL_THRESHOLD, score_all
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.physics.acquisition import Acquisition
from uhrct.structure.topology import betti_errors
from uhrct.structure.vessels import vessel_mask

GRID = Grid((4, 30, 20), (2.5, 0.7, 0.8), (-10.0, 20.0, 30.0))


def changed(**what):
    return Grid(**{**{f: getattr(GRID, f) for f in ("shape", "spacing_mm", "origin_mm", "direction")}, **what})


def turned(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ GRID.direction


def chest(n=3, seed=0):
    """Two lungs with vessels that run through the slices, noisy."""
    z, y, x = np.mgrid[:n, :96, :128]
    hu = np.where(np.hypot((y - 48) / 0.75, x - 64) < 58, 40.0, -1000.0)
    for cx in (40, 88):
        hu[np.hypot((y - 48) / 1.3, x - cx) < 20] = -850
        for dy, dx, r in ((0, 0, 2.0), (-9, 7, 1.2), (12, -6, 1.6)):
            hu += 880 * np.exp(-0.5 * ((y - 48 - dy) ** 2 + (x - cx - dx - z) ** 2) / r**2) * (hu < -800)
    hu += np.random.default_rng(seed).normal(0, 10, hu.shape)
    return Volume(hu.astype(np.float32), (1.0, 0.8, 0.8))


def as_test(reference, hu):
    return reference.on_grid(reference.grid, hu.astype(np.float32))


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (changed(shape=(4, 30, 21)), ["shape (4, 30, 20) against (4, 30, 21)"]),
        (changed(spacing_mm=(2.5, 0.7, 0.81)), ["spacing", "by up to 0.01 mm"]),
        (changed(origin_mm=(-10.0, 20.0, 33.0)), ["origin", "by 3 mm"]),
        (changed(direction=turned(2)), ["direction", "by 2 degrees"]),
        (changed(direction=-GRID.direction), ["direction", "by 180 degrees"]),
        (changed(shape=(1, 1, 1), spacing_mm=(5.0, 0.7, 0.8)), ["shape", "spacing", "by up to 2.5 mm"]),
    ],
)
def test_grids_that_differ_are_refused(test, words):
    with pytest.raises(UhrctError) as refusal:
        check_grids(GRID, test)
    for word in (*words, "grids differ", "resampled"):
        assert word in str(refusal.value)


def test_rounding_by_file_formats_is_no_difference():
    check_grids(GRID, GRID)
    rounded = tuple(float(np.float32(s)) for s in GRID.spacing_mm)
    check_grids(GRID, changed(spacing_mm=rounded, origin_mm=(-10.004, 20.0, 30.0), direction=turned(0.01)))


@pytest.mark.parametrize("scale", [(1, 4, 4), (5, 1, 1), (2, 2, 2)])
def test_the_grid_of_an_lr_scan_gives_its_scale(scale):
    shape = tuple(n // s * s for n, s in zip((11, 34, 35), scale, strict=True))
    hr = Grid((11, 34, 35), (1.0, 0.7, 0.8), (5.0, 6.0, 7.0))
    lr = Grid(shape, hr.spacing_mm, hr.origin_mm).coarsened(scale)
    assert acquisition_between(hr, lr) == Acquisition(scale)
    assert acquisition_between(hr, lr, "bicubic") == Acquisition(scale, "bicubic")
    assert acquisition_between(hr, lr, psf_fwhm_mm=1.0).psf_fwhm == pytest.approx(1.0 / lr.spacing_mm[1])


def test_an_lr_scan_of_elsewhere_is_refused():
    hr = Grid((4, 32, 32), (1.0, 0.7, 0.7))
    lr = hr.coarsened((1, 2, 2))
    shifted = Grid(lr.shape, lr.spacing_mm, (0.0, 0.0, 0.0))  # centre on centre: half a pixel off
    odd = Grid((4, 21, 21), (1.0, 1.05, 1.05), lr.origin_mm)
    for wrong, word in ((shifted, "apart"), (odd, "whole"), (hr, "one grid")):
        with pytest.raises(UhrctError, match=word):
            acquisition_between(hr, wrong)


def test_means_and_slices_equal_score_all():
    reference = chest()
    test = as_test(reference, reference.hu + np.random.default_rng(1).normal(0, 40, reference.shape))
    result = compare(reference, test)
    assert result.names() == [m for m in MEASURES if m != "consistency_hu"]
    alone = score_all(reference.hu[1], test.hu[1], reference.spacing_mm[1:])
    for name, pick in (("psnr_wide", np.argmin), ("vif_wide", np.argmin), ("smse_vc", np.argmax)):
        assert result.slices[1].values[name] == alone.values[name]
        values = [s.values[name] for s in result.slices]
        assert result.mean(name) == pytest.approx(np.mean(values))
        assert result.worst(name) == (int(pick(values)), values[int(pick(values))])
    assert result.mean("vessel_mm") > 3


def test_the_lungs_are_found_in_any_order_of_the_axes(monkeypatch):
    axial = chest(n=12)
    inside = lung_mask(axial.hu, axial.spacing_mm)
    seen = []
    monkeypatch.setattr(module, "_Betti3D", lambda lungs: seen.append(lungs) or _Betti3D(lungs))
    z, y, x = axial.spacing_mm
    hu, direction = np.ascontiguousarray(axial.hu.transpose(2, 0, 1)), axial.direction[:, [2, 0, 1]]
    sagittal = Volume(hu, (x, z, y), direction=direction)
    compare(sagittal, sagittal)
    assert inside.mean() > 0.1
    assert np.array_equal(seen[0], inside.transpose(2, 0, 1))


def test_the_rim_of_padding_does_not_count():
    reference = chest(2)
    outside = np.broadcast_to(np.hypot(*np.mgrid[-48:48, -64:64]) > 50, reference.shape)
    padded = as_test(reference, np.where(outside, -2000, reference.hu))
    beside = ndimage.binary_dilation(outside, np.ones((1, 3, 3)), iterations=2) & ~outside
    test = as_test(reference, np.where(outside, -2000, np.where(beside, 500, reference.hu)))
    assert compare(padded, test).mean("rmse_hu") == 0
    assert compare(padded, test, count_padding=True).mean("rmse_hu") > 100
    inner = as_test(reference, np.where(outside, -2000, reference.hu + 20))
    assert compare(padded, inner).mean("rmse_hu") > 10


def test_undefined_slices_do_not_count_and_are_counted():
    reference = chest(4)
    hu = reference.hu + 10
    hu[1] = reference.hu[1]  # equal: PSNR is infinite
    hu[2, 5, 5] = np.nan
    result = compare(reference, as_test(reference, hu))
    assert [z for z, _ in result.defined("psnr_wide")] == [0, 3]
    assert [z for z, _ in result.defined("rmse_hu")] == [0, 1, 3]
    assert result.mean("rmse_hu") == pytest.approx(20 / 3, rel=1e-4)
    data = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert data["means"]["psnr_wide"]["slices_defined"] == 2
    assert data["means"]["psnr_wide"]["slices"] == 4
    assert data["slices"][2]["rmse_hu"] is None
    assert "NaN" in data["slices"][2]["undefined"]["rmse_hu"]
    assert data["slices"][1]["undefined"]["psnr_wide"] == "no difference inside the window"
    assert data["volume"]["flicker"] is None
    assert "NaN" in data["volume"]["undefined"]["flicker"]


def test_nothing_defined_anywhere():
    empty = Volume(np.full((2, 48, 48), 40, np.int16), (1.0, 1.0, 1.0))
    result = compare(empty, empty)
    for name in ("psnr_wide", "vif_wide", "cldice_25", "broken_mm", "texture_1"):
        assert result.mean(name) is None
        assert result.worst(name) is None
        assert result.reason(name)
    assert result.volume.values == {"flicker": None, "betti0_error_3d": None, "betti1_error_3d": None}
    one = compare(Volume(empty.hu[:1], (1, 1, 1)), Volume(empty.hu[:1], (1, 1, 1)))
    assert "one slice" in one.reason("flicker")
    assert "one slice" in one.reason("betti0_error_3d")


def test_betti_errors_of_volumes_equal_those_of_the_stacked_masks(monkeypatch):
    import uhrct.evaluation.compare as module

    reference = chest(5)
    hu = reference.hu.copy()
    hu[2] = -850  # every vessel is broken in the middle
    seen = []
    genuine = module.lung_mask
    monkeypatch.setattr(module, "lung_mask", lambda *a, **k: seen.append(genuine(*a, **k)) or seen[-1])
    result = compare(reference, as_test(reference, hu))
    a, b = (
        vessel_mask(structure_maps(x, (0.8, 0.8), SMSE_OPERATORS["vc"]), seen[0], VESSEL_THRESHOLD)
        for x in (reference.hu, hu)
    )
    expected = betti_errors(a, b, seen[0])
    assert expected[0] > 0
    assert (result.volume.values["betti0_error_3d"], result.volume.values["betti1_error_3d"]) == expected
    monkeypatch.setattr(module, "CROP", 2)  # slabs end in the middle, and at the end
    slabs = [betti_errors(a[k : k + 2], b[k : k + 2], seen[0][k : k + 2]) for k in (0, 2, 4)]
    assert compare(reference, as_test(reference, hu)).volume.values["betti0_error_3d"] == pytest.approx(
        np.mean([s[0] for s in slabs])
    )


@pytest.mark.parametrize("scale", [(1, 2, 2), (2, 1, 1), (2, 2, 2)])
def test_consistency_of_volumes(scale):
    reference = chest(5)
    operator = Acquisition(scale)
    n = 5 // scale[0] * scale[0]
    lr_hu = torch.stack(
        [operator.forward(torch.from_numpy(reference.hu[k : k + scale[0]]))[0] for k in range(0, n, scale[0])]
    )
    grid = Grid((n, 96, 128), reference.spacing_mm).coarsened(scale)
    lr = Volume(lr_hu.numpy(), grid.spacing_mm, grid.origin_mm, grid.direction)
    result = compare(reference, as_test(reference, reference.hu + 3), lr=lr)
    assert result.acquisition == operator
    assert result.mean("consistency_hu") == pytest.approx(3, abs=0.01)
    assert len(result.defined("consistency_hu")) == n
    if n < 5:
        assert "does not reach" in result.slices[4].reasons["consistency_hu"]


def test_overlapping_slabs_have_no_consistency_of_their_own():
    reference = chest(4)
    lr = Volume(reference.hu[::2], (2.0, 0.8, 0.8), (0.0, 0.0, 0.5))
    result = compare(reference, reference, lr=lr, acquisition=Acquisition((2, 1, 1), slice_fwhm=1.0))
    assert result.mean("consistency_hu") is None
    assert "overlap" in result.reason("consistency_hu")
