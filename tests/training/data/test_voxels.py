"""Clipping is seen where it happened, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uhrct.training.data.voxels import body_box, clipped_hu, clipping_note, is_mask, training_hu


def scan(seed: int = 0) -> np.ndarray:
    """Air, lung and tissue with noise, some bone and a little metal."""
    rng = np.random.default_rng(seed)
    hu = rng.choice([-1000, -850, 40, 500], p=[0.4, 0.2, 0.38, 0.02], size=(6, 64, 64)) + rng.normal(0, 40, (6, 64, 64))
    hu[2, 30:32, 30:32] = 2500
    return np.rint(hu).astype(np.int16)


@given(low=st.integers(-1020, -900), high=st.integers(300, 550))
@settings(max_examples=25, deadline=None)
def test_limits_are_found_exactly(low: int, high: int) -> None:
    hu = scan()
    assert clipped_hu(hu.clip(low, high)) == (low, high)
    assert clipped_hu(hu.clip(low, None)) == (low, None)
    assert clipped_hu(hu.clip(None, high)) == (None, high)


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_scan_is_not_accused(seed: int) -> None:
    assert clipped_hu(scan(seed)) == (None, None)


def test_one_voxel_beyond_the_limit_speaks_against_clipping() -> None:
    hu = scan().clip(-1000, 600)
    hu[0, 0, 0], hu[0, 0, 1] = -1001, 601
    assert clipped_hu(hu) == (None, None)


def test_a_range_that_merely_ends_is_no_clipping() -> None:
    """Each level as often as the next: nothing is piled up at the ends."""
    assert clipped_hu(np.arange(-900, 500, dtype=np.int16).repeat(64).reshape(14, 80, 80)) == (None, None)


def test_a_scanners_own_range_is_no_clipping() -> None:
    padded = scan().clip(-1024, None)
    padded[:, :10] = -1024
    padded[:, 30:34, 30:34] = 3071  # metal beyond 12 bits
    assert clipped_hu(padded) == (None, None)


def test_constants_and_masks_have_no_limits_to_tell() -> None:
    assert clipped_hu(np.zeros((1, 8, 8), np.int16)) == (None, None)
    assert clipped_hu((scan() > 0).astype(np.int16)) == (None, None)


def test_notes_say_which_end() -> None:
    assert clipping_note((-1000, None)) == "clipped below -1000 HU"
    assert clipping_note((None, 600)) == "clipped above 600 HU"


def test_masks_are_told_from_scans() -> None:
    assert is_mask((scan() > 0).astype(np.int16))
    assert not is_mask(scan())
    assert not is_mask((scan() > 0).astype(np.float32))
    assert not is_mask(scan().clip(0, None))  # HU of soft tissue and bone: many values


def test_body_and_padding() -> None:
    hu = torch.full((2, 40, 50), -1000, dtype=torch.int16)
    hu[:, 10:30, 5:45] = 0
    hu[0, 2, 3] = 500  # a speck is no body
    assert body_box(hu) == (10, 30, 5, 45)
    assert body_box(torch.full((1, 4, 6), -1000, dtype=torch.int16)) == (0, 4, 0, 6)
    assert training_hu(torch.tensor([-3024.0, -1024.4, 12000.0, 40000.0])).tolist() == [-1024, -1024, 12000, 32767]
