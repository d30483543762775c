"""Airways: leaks are cut, and the tree is found on a phantom and on real CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest_case import chest
from scipy import ndimage

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import fast_lung_mask
from uhrct.tasks.airways import segment_airways
from uhrct.tasks.leaks import without_leaks
from uhrct.tasks.trachea import trachea


def test_a_hole_in_the_wall_does_not_flood_the_lung() -> None:
    """Dark lung (emphysema) around a bronchus whose wall has a hole."""
    case = chest()
    hu = case.volume.hu.copy()
    z, y, x = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    mm = case.volume.spacing_mm
    z_mm, y_mm, x_mm = (a * s for a, s in zip((z, y, x), mm, strict=True))
    ball = (z_mm - 40) ** 2 + (y_mm - 61) ** 2 + (x_mm - 148) ** 2 < 12**2
    hu[ball & case.lungs & (hu < -500)] = -985
    gap = (z_mm - 40) ** 2 + (y_mm - 61) ** 2 + (x_mm - 138) ** 2 < 5**2
    hu[gap] = -985
    found = segment_airways(hu, mm, case.volume.direction).mask
    leak = found & ball & ~ndimage.binary_dilation(case.airways, iterations=3)
    assert (ball & case.lungs).sum() > 2500
    assert leak.sum() < 0.05 * (ball & case.lungs).sum()
    assert (found & case.airways).sum() > 0.6 * case.airways.sum()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.7, 0.7)])
def test_an_explosion_is_cut_and_the_tube_before_it_is_kept(spacing: tuple[float, float, float]) -> None:
    shape = tuple(round(60 / s) for s in spacing)
    z, y, x = (
        s * np.arange(n).reshape([-1 if k == a else 1 for k in range(3)])
        for a, (s, n) in enumerate(zip(spacing, shape, strict=True))
    )
    tube = np.hypot(y - 30, x - 30) + 0 * z < 2.5
    leak = (np.hypot(np.hypot(y - 30, x - 30), z - 50) < 9) & (z > 42)
    seed = tube & (z < 4)
    kept = without_leaks(tube | leak, seed, spacing)
    assert kept[tube & (z < 36)].all()
    assert (kept & leak & ~tube).sum() < 0.1 * leak.sum()


def test_two_branches_are_no_explosion() -> None:
    z, y, x = np.mgrid[:60, :60, :60]
    trunk = (np.hypot(y - 30, x - 30) < 4) & (z < 25)
    branches = np.hypot(y - 30, np.abs(x - 30) - 0.5 * (z - 24)) < 3
    tree = trunk | (branches & (z >= 24))
    kept = without_leaks(tree, trunk & (z < 3), (1.0, 1.0, 1.0))
    assert (kept == tree).mean() > 0.999


def test_a_phantom_without_a_leak(phantom) -> None:
    found = segment_airways(phantom.volume.hu, phantom.volume.spacing_mm, phantom.volume.direction).mask
    outside = found & ~ndimage.binary_dilation(phantom.airways, iterations=2)
    assert outside.sum() < 0.01 * found.sum()
    assert ndimage.label(found, np.ones((3, 3, 3)))[1] == 1
    assert ndimage.binary_dilation(found)[phantom.points("airway", 2.0)].mean() > 0.9


def test_a_real_scan_without_a_leak(shared_ct: Path) -> None:
    """No truth here. A tree of airways is thin everywhere but in the trachea, and takes a small part of the chest."""
    folder = shared_ct / "test" / "tcga_34_2605"
    if not folder.is_dir():
        pytest.skip("real CT not here: tcga_34_2605 is missing in ../shared/ct")
    scan = io.read(folder)
    found = segment_airways(scan.hu, scan.spacing_mm, scan.direction).mask
    lungs = fast_lung_mask(scan.hu, scan.spacing_mm)
    assert 2 < found.sum() * np.prod(scan.spacing_mm) / 1000 < 40
    in_lungs = found & lungs
    depth_mm = ndimage.distance_transform_edt(in_lungs, sampling=scan.spacing_mm)
    assert depth_mm.max() < 5
    assert in_lungs.sum() < 0.02 * lungs.sum()


def test_the_number_of_slices_is_that_along_the_body() -> None:
    volume = chest((1.0, 1.0, 1.0)).volume
    few = Volume(volume.hu[40:48], volume.spacing_mm)
    with pytest.raises(Exception, match="8 slices"):
        segment_airways(few.hu, few.spacing_mm, few.direction)


def test_the_air_between_back_and_table_is_no_trachea() -> None:
    z, y, x = np.mgrid[:20, :100, :100]
    chest = np.where(np.hypot(y - 50, x - 50) < 48, 40, -1000)
    lungs = (np.hypot(y - 50, x - 25) < 15) | (np.hypot(y - 50, x - 75) < 15)
    chest[lungs] = -850
    chest[(np.hypot(y - 50, x - 50) < 5) & (z < 8)] = -1000
    gap = (abs(y - 88) < 2) & (abs(x - 50) < 15)  # longer than the trachea
    chest[gap] = -1000
    found = trachea(chest, lungs, (2.0, 2.0, 2.0))
    assert found[4, 50, 50]
    assert not found[gap].any()
