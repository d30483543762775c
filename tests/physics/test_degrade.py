"""`degrade` on whole volumes: slabs, noise, padding."""

import numpy as np
import pytest
import torch

from uhrct.core.volume import Volume
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.degrade import degrade


def scan(shape=(20, 12, 10), **settings):
    hu = np.random.default_rng(0).normal(-500, 200, shape).astype(np.float32)
    return Volume(hu, (1.0, 0.7, 0.7), **settings)


@pytest.mark.parametrize("thickness_mm", [None, 2.0, 5.0, 8.0, 12.5])
def test_slice_by_slice_it_is_the_operator_on_the_whole_volume(thickness_mm):
    volume = scan()
    low = degrade(volume, scale=(5, 2, 2), slice_thickness_mm=thickness_mm)
    A = Acquisition((5, 2, 2), slice_thickness=1.0 if thickness_mm is None else thickness_mm / 5)
    assert np.allclose(low.hu, A.forward(torch.from_numpy(volume.hu)).numpy(), atol=1e-3)
    assert low.spacing_mm == (5.0, 1.4, 1.4)
    assert np.allclose(low.grid.corner_mm, volume.grid.corner_mm)


def test_thickness_is_kept_apart_from_the_increment():
    thin = scan(slice_thickness_mm=1.25)
    assert degrade(thin, scale=(5, 1, 1)).slice_thickness_mm == pytest.approx(1.25 + 4 * 1.0)
    assert degrade(thin, scale=(5, 1, 1), slice_thickness_mm=8.0).slice_thickness_mm == 8.0
    assert degrade(thin, scale=(1, 2, 2)).slice_thickness_mm == 1.25


def test_thick_slices_made_thin_are_as_thick_as_their_spacing():
    overlapping = scan(slice_thickness_mm=2.0)
    assert overlapping.refined_grid((5, 1, 1)).slice_thickness_mm == pytest.approx(0.2)
    assert overlapping.refined_grid((1, 2, 2)).slice_thickness_mm == 2.0


def test_padding_of_neighbouring_slabs_does_not_bleed():
    volume = scan()
    volume.hu[:10] = -2000
    low = degrade(volume, scale=(5, 2, 2), slice_thickness_mm=5.0)
    assert (low.hu[:2] == -2000).all()
    assert (low.hu[2:] > -1500).all()
