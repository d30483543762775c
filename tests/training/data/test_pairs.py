"""Real pairs: whatever the offset, an LR slice covers exactly the HR slices that it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layouts import thick_and_thin

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.training.data.pairs import Pair, align


def covers(pair: Pair) -> bool:
    """Whether each LR slice is the mean of the HR slices that it stands for, on the grid that this gives."""
    n, s = pair.lr.shape[0], pair.scale
    means = pair.hr.hu.reshape(n, s, *pair.hr.shape[1:]).astype(np.float64).mean(1)
    coarse = pair.hr.grid.coarsened((s, 1, 1))
    same_place = np.allclose(coarse.origin_mm, pair.lr.origin_mm, atol=1e-6)
    return same_place and np.abs(means - pair.lr.hu).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("first", range(-2, 9))
def test_every_offset_is_cut_to_common_edges(first: int) -> None:
    thick, thin = thick_and_thin(0, first=first)
    pair = align(thick, thin)
    assert pair.scale == 5
    assert pair.hr.shape[0] == 5 * pair.lr.shape[0] >= 20
    assert covers(pair)


def test_the_published_grid_loses_only_its_ends() -> None:
    """Centres on every fifth slice, 31 thin slices: 7 thick ones, of which the outer two reach out of the thin scan."""
    thick, thin = thick_and_thin(0)
    assert (thick.shape[0], thick.origin_mm) == (7, thin.origin_mm)
    pair = align(thick, thin)
    assert (pair.lr.shape[0], pair.hr.shape[0]) == (5, 25)
    assert np.array_equal(pair.hr.hu, thin.hu[3:28])
    assert pair.notes == ("cut to LR slices 1 to 5 of 7, HR slices 3 to 27 of 31",)


def test_an_exact_pair_is_left_whole() -> None:
    thick, thin = thick_and_thin(0, slices=30, first=0)
    pair = align(thick, replace(thin, hu=thin.hu[: 5 * thick.shape[0]]))
    assert (pair.lr.shape, pair.notes) == (thick.shape, ())


def test_voxels_overrule_headers_that_lie() -> None:
    thick, thin = thick_and_thin(1)
    pair = align(replace(thick, origin_mm=(-170.0, -160.0, -248.0)), thin)
    assert "headers place LR slice 0 on HR slice 0, voxels on -2" in pair.notes[0]
    assert np.array_equal(pair.hr.hu, align(thick, thin).hr.hu)


def test_spacing_that_headers_lost_comes_from_the_names() -> None:
    thick, thin = thick_and_thin(2)
    lost = align(replace(thick, spacing_mm=thin.spacing_mm), thin, (5.0, 1.0))
    assert covers(lost)
    assert (lost.lr.spacing_mm[0], lost.lr.slice_thickness_mm, lost.hr.slice_thickness_mm) == (5.0, 5.0, 1.0)
    assert "taken from the names" in lost.notes[0]


def test_noise_and_another_kernel_do_not_hide_the_patient() -> None:
    thick, thin = thick_and_thin(3)
    noisy = thick.hu + np.random.default_rng(0).normal(0, 60, thick.shape)
    pair = align(replace(thick, hu=noisy.astype(np.float32)), thin)
    assert np.array_equal(pair.hr.hu, align(thick, thin).hr.hu)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: replace(v, hu=thick_and_thin(99)[0].hu), "not the same patient"),
        (lambda v: replace(v, spacing_mm=(4.3, 0.7, 0.7)), "no whole number of times"),
        (lambda v: replace(v, spacing_mm=(5.0, 0.9, 0.7)), "0.9"),
        (lambda v: replace(v, hu=v.hu[:, 1:]), "against"),
        (lambda v: replace(v, origin_mm=(-168.0, -160.0, -250.0)), "beside the thin scan"),
        (lambda v: replace(v, origin_mm=(-170.0, -160.0, 400.0)), "lies within"),
        (lambda v: replace(v, direction=-v.direction), "different directions"),
    ],
    ids=["another patient", "ratio", "pixels", "shape", "beside", "elsewhere", "upside down"],
)
def test_what_is_no_pair_is_refused(change, words: str) -> None:  # type: ignore[no-untyped-def]
    thick, thin = thick_and_thin(4)
    assert isinstance(thin, Volume)
    with pytest.raises(UhrctError, match=words):
        align(change(thick), thin)
