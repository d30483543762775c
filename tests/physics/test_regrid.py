"""Slabs onto another grid: the same corner, the same HU, whatever the slabs."""

import numpy as np
import pytest

from uhrct.core.volume import Grid
from uhrct.physics.regrid import Regrid
from uhrct.physics.resampling import resize_matrix

GRID = Grid((12, 20, 24), (1.0, 0.5, 0.4), (3.0, -5.0, 8.0))


def regridded(hu, target, cuts=(5, 6), **settings):
    regrid = Regrid(GRID, target, **settings)
    out = [regrid.feed(part) for part in np.split(hu, cuts)]
    return np.concatenate(out)


def smooth(seed=0):
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(GRID.shape)
    return (100 * np.sin(z / 4 + rng.random()) + 80 * np.cos(y / 5) + 60 * np.sin(x / 6)).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 0.3, 0.3), (0.7, 0.5, 0.4), (2.5, 1.1, 0.9), (3.0, 0.2, 0.2)])
def test_exactly_the_spacing_from_the_same_corner_with_every_voxel_once(spacing):
    target = GRID.resampled(spacing)
    assert target.spacing_mm == spacing
    assert np.allclose(target.corner_mm, GRID.corner_mm)
    assert all(abs(a - b) <= s / 2 + 1e-9 for a, b, s in zip(target.extent_mm, GRID.extent_mm, spacing, strict=True))
    assert regridded(smooth(), target).shape == target.shape


def test_slabs_do_not_show():
    target = GRID.resampled((0.7, 0.3, 0.3))
    whole = regridded(smooth(), target, cuts=())
    assert np.array_equal(regridded(smooth(), target, cuts=(1, 2, 9)), whole)
    assert np.array_equal(regridded(smooth(), target, cuts=tuple(range(1, 12))), whole)


def test_it_is_the_product_of_one_matrix_per_axis():
    target = GRID.resampled((2.0, 0.75, 0.4))
    rows = resize_matrix(20, target.shape[1], 1.5)
    planes = resize_matrix(12, target.shape[0], 2.0)
    expected = np.einsum("kz,iy,zyx->kix", planes, rows, smooth().astype(np.float64))
    assert np.abs(regridded(smooth(), target) - expected).max() < 1e-3


def test_the_same_grid_leaves_every_voxel():
    assert np.array_equal(regridded(smooth(), GRID.resampled(GRID.spacing_mm)), smooth())


def test_constants_stay_and_structure_stays_in_its_place():
    target = GRID.resampled((0.6, 0.3, 0.25))
    assert np.allclose(regridded(np.full(GRID.shape, -873, np.float32), target), -873, atol=1e-2)
    ball = np.zeros(GRID.shape, np.float32)
    ball[5:8, 8:13, 10:16] = 1
    fine = regridded(ball, target, padded=False)

    def middle_mm(image, grid):
        at = np.array([np.average(i, weights=image.clip(0)) for i in np.indices(image.shape)])
        return np.array(grid.corner_mm) + grid.direction @ ((at + 0.5) * grid.spacing_mm)

    assert np.allclose(middle_mm(fine, target), middle_mm(ball, GRID), atol=0.05)


def test_padding_stays_padding_and_does_not_bleed():
    hu = np.full(GRID.shape, -900, np.float32)
    hu[:, :6] = -2000
    target = GRID.resampled((1.0, 0.25, 0.4))
    out = regridded(hu, target)
    assert (out[:, :12] == -2000).all()
    assert (out[:, 12:] > -1050).all()
    assert (regridded(hu, target, padded=False)[:, 12:] < -1050).any()  # the test would notice
