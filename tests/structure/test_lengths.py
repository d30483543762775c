"""Broken and invented length in mm: known lines, the length of spanning trees, laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree
from skimage.draw import line_nd
from test_vessels import vessels

from uhrct.core.errors import UhrctError
from uhrct.structure.lengths import line_lengths, vessel_lengths
from uhrct.structure.vessels import skeleton


def spanning_tree_mm(line, spacing_mm):
    """Length of the shortest trees through neighbouring points, without lone points."""
    points = np.argwhere(line)
    i, j = cKDTree(points).query_pairs(np.sqrt(line.ndim) + 1e-6, output_type="ndarray").T
    mm = np.linalg.norm((points[i] - points[j]) * spacing_mm, axis=1)
    return minimum_spanning_tree(coo_matrix((mm, (i, j)), shape=(len(points),) * 2)).sum()


def test_real_centre_lines_are_as_long_as_their_spanning_trees(pair):
    line = skeleton(vessels(pair.reference, pair))
    length = line_lengths(line, pair.spacing_mm)
    lone = np.isclose(length, np.sqrt(np.prod(pair.spacing_mm)))
    padded = np.pad(line, 1).astype(int)
    neighbours = sum(np.roll(padded, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))[1:-1, 1:-1] - 1
    lone &= line & (neighbours == 0)
    expected = spanning_tree_mm(line, pair.spacing_mm)
    assert expected > 5
    assert length[~lone].sum() == pytest.approx(expected, rel=0.03)  # a loop is longer than its tree


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.5, 0.9), (2.5, 0.7, 0.6)])
def test_straight_lines_have_their_length(spacing):
    ndim = len(spacing)
    for axis in range(ndim):
        line = np.zeros((20,) * ndim, bool)
        where = [10] * ndim
        where[axis] = slice(3, 15)
        line[tuple(where)] = True
        assert line_lengths(line, spacing).sum() == pytest.approx(11 * spacing[axis])
    diagonal = np.zeros((20,) * ndim, bool)
    diagonal[tuple([np.arange(3, 15)] * ndim)] = True
    assert line_lengths(diagonal, spacing).sum() == pytest.approx(11 * np.linalg.norm(spacing))


def test_corners_are_not_counted_twice():
    corner = np.zeros((12, 12), bool)
    corner[2:9, 3] = corner[8, 3:10] = True
    assert line_lengths(corner, (1, 1)).sum() == pytest.approx(12)
    lone = np.zeros((5, 5), bool)
    lone[2, 2] = True
    assert line_lengths(lone, (2, 8)).sum() == pytest.approx(4)
    assert line_lengths(np.zeros((5, 5), bool), (1, 1)).sum() == 0


def test_voxels_at_opposite_edges_are_no_neighbours():
    edges = np.zeros((8, 8), bool)
    edges[0, 0] = edges[7, 7] = edges[0, 7] = True
    assert line_lengths(edges, (1, 1)).sum() == pytest.approx(3)  # three lone voxels


@pytest.mark.parametrize("spacing", [(0.7, 0.5), (1.5, 0.7, 0.5)])
def test_a_gap_is_broken_and_a_spur_is_invented(spacing):
    ndim = len(spacing)
    whole = np.zeros((48,) * ndim, bool)
    whole[line_nd((24,) * ndim, (24,) * (ndim - 1) + (44,), endpoint=True)] = True
    gap = whole.copy()
    gap[..., 30:38] = False
    result = vessel_lengths(whole, gap, spacing)
    assert result.reference == pytest.approx(20 * spacing[-1])
    assert result.broken == pytest.approx(6 * spacing[-1])  # 8 voxels, one at each end within tolerance
    assert result.invented == 0
    mirrored = vessel_lengths(gap, whole, spacing)
    assert (mirrored.broken, mirrored.invented) == (0, result.broken)
    assert (mirrored.reference, mirrored.test) == (result.test, result.reference)


def test_the_tolerance_is_one_voxel_along_every_axis():
    whole = np.zeros((40, 40), bool)
    whole[20, 5:35] = True
    for shift, broken in ((0, 0), (1, 0), (2, 29)):
        assert vessel_lengths(whole, np.roll(whole, shift, 0), (1, 1)).broken == broken


def test_laws_on_real_vessels(pair):
    a, b = vessels(pair.reference, pair), vessels(pair.test, pair)
    same, value = vessel_lengths(a, a, pair.spacing_mm), vessel_lengths(a, b, pair.spacing_mm)
    assert same.broken == same.invented == 0
    assert same.reference == same.test == value.reference > 10
    assert value.broken > value.invented  # interpolation loses vessels
    assert value.broken <= value.reference
    mirrored = vessel_lengths(b, a, pair.spacing_mm)
    assert (mirrored.broken, mirrored.invented) == (value.invented, value.broken)
    doubled = vessel_lengths(a, b, tuple(2 * s for s in pair.spacing_mm))
    assert doubled == pytest.approx([2 * v for v in value])
    for axis in (0, 1):  # thinning has a sense of direction, so not exactly
        flipped = vessel_lengths(np.flip(a, axis), np.flip(b, axis), pair.spacing_mm)
        assert flipped.broken == pytest.approx(value.broken, rel=0.15, abs=3)


def test_nothing_is_longer_than_nothing():
    none, some = np.zeros((8, 8), bool), np.eye(8, dtype=bool)
    assert vessel_lengths(none, none, (1, 1)) == (0, 0, 0, 0)
    assert vessel_lengths(some, none, (1, 1)).broken == pytest.approx(7 * np.sqrt(2))
    for bad in ((1,), (1, 1, 1), (1, 0), (1, float("inf"))):
        with pytest.raises(UhrctError, match="spacing"):
            vessel_lengths(some, none, bad)
    with pytest.raises(UhrctError):
        vessel_lengths(some, none[:7], (1, 1))
