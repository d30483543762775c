"""Vessels: plates are no vessels, and most of the visible tree is found on a phantom and on real CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest_case import chest
from scipy import ndimage

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import fast_lung_mask
from uhrct.tasks.vessels import segment_vessels


def test_a_fissure_is_no_vessel() -> None:
    case = chest()
    hu = case.volume.hu.copy()
    z, y, x = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    fissure = (np.abs(y - (72 + 0.3 * x - 0.2 * z)) < 0.6) & case.lungs & (hu < -700)
    hu[fissure] = -650
    found = segment_vessels(hu, case.volume.spacing_mm, case.volume.direction).mask
    away = fissure & ~ndimage.binary_dilation(case.vessels | case.airways, iterations=4)
    assert away.sum() > 500
    assert (found & away).sum() < 0.05 * away.sum()


def test_noise_is_no_vessel() -> None:
    case = chest(noise_hu=40.0)
    found = segment_vessels(case.volume.hu, case.volume.spacing_mm, case.volume.direction).mask
    near = ndimage.binary_dilation(case.vessels | case.airways, iterations=3)
    assert (found & ~near).sum() < 0.03 * found.sum()


def test_the_order_of_the_axes_does_not_matter() -> None:
    case = chest((2.4, 1.2, 1.2))
    axial = segment_vessels(case.volume.hu, case.volume.spacing_mm, case.volume.direction)
    z, y, x = case.volume.spacing_mm
    hu, direction = np.ascontiguousarray(case.volume.hu.transpose(2, 0, 1)), case.volume.direction[:, [2, 0, 1]]
    turned = segment_vessels(hu, (x, z, y), direction)
    assert axial.mask.any()
    assert np.array_equal(turned.mask, axial.mask.transpose(2, 0, 1))
    assert turned.warnings == axial.warnings


def test_walls_of_airways_that_stay_are_said() -> None:
    case = chest()
    few = slice(20, 26)
    found = segment_vessels(case.volume.hu[few], case.volume.spacing_mm, case.volume.direction)
    assert any("walls of airways" in line for line in found.warnings)


def test_a_phantom(phantom) -> None:
    volume = phantom.volume
    found = segment_vessels(volume.hu, volume.spacing_mm, volume.direction).mask
    lungs = fast_lung_mask(volume.hu, volume.spacing_mm)
    assert not (found & ~lungs).any()
    near = ndimage.binary_dilation(found, np.ones((3, 3, 3)))
    deep = ndimage.binary_erosion(lungs, iterations=2)
    for kind in ("artery", "vein"):
        at = phantom.points(kind, 1.2)
        assert len(at[0]) > 100
        assert near[at][deep[at]].mean() > 0.9
    structures = ndimage.binary_dilation(phantom.vessels | phantom.airways, iterations=2)
    assert (found & ~structures).sum() < 0.06 * found.sum()  # nodules are round, not long


def test_real_thick_slices(shared_ct: Path) -> None:
    folder = shared_ct / "test" / "tcga_34_2605"
    if not folder.is_dir():
        pytest.skip("real CT not here: tcga_34_2605 is missing in ../shared/ct")
    scan = io.read(folder)
    some = Volume(scan.hu[6:10], scan.spacing_mm)
    found = segment_vessels(some.hu, some.spacing_mm, some.direction)
    lungs = fast_lung_mask(some.hu, some.spacing_mm)
    assert 0.01 < found.mask.sum() / lungs.sum() < 0.2
    assert found.warnings
