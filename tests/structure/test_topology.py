"""Betti numbers: equal to GUDHI's, right for known shapes, laws of the errors."""

from __future__ import annotations

import gudhi
import numpy as np
import pytest
from test_vessels import vessels

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.structure.topology import betti_error_sums, betti_errors, betti_numbers


def by_gudhi(mask):
    """Homology of the union of closed cells: what persists from filtration value 0."""
    complex_ = gudhi.CubicalComplex(top_dimensional_cells=np.where(np.pad(mask, 1), 0.0, 1.0))
    complex_.compute_persistence()
    return tuple(
        sum(1 for birth, death in complex_.persistence_intervals_in_dimension(k) if birth == 0 and death > 0)
        for k in range(mask.ndim)
    )


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(40, 33), (17, 12, 14)])
def test_random_masks_equal_gudhi(shape, share):
    for seed in range(2):
        mask = np.random.default_rng(seed).random(shape) < share
        assert betti_numbers(mask) == by_gudhi(mask)


def test_real_vessels_equal_gudhi(pair):
    a, b = vessels(pair.reference, pair), vessels(pair.test, pair)
    assert betti_numbers(a) == by_gudhi(a)
    crops = [(y, x) for y in range(0, a.shape[0], 64) for x in range(0, a.shape[1], 64)]
    errors = [np.abs(np.subtract(*(by_gudhi(m[y : y + 64, x : x + 64]) for m in (a, b)))) for y, x in crops]
    everywhere = np.ones_like(a)
    assert betti_errors(a, b, everywhere) == pytest.approx(np.mean(errors, 0))
    assert betti_errors(a, b, everywhere)[0] > 0


def test_known_shapes():
    ring = np.pad(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool), 2)
    assert betti_numbers(ring) == (1, 1)
    assert betti_numbers(np.eye(5, dtype=bool)) == (1, 0)  # 8-connected
    diagonal_hole = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    assert betti_numbers(diagonal_hole) == (1, 1)  # the background is 4-connected: the hole is closed
    shell = np.ones((5, 5, 5), bool)
    shell[2, 2, 2] = False
    assert betti_numbers(shell) == (1, 0, 1)
    torus = np.zeros((3, 7, 7), bool)
    torus[:, 1:6, 1:6] = True
    torus[:, 3, 3] = False
    assert betti_numbers(torus) == (1, 1, 0)
    assert betti_numbers(np.zeros((4, 4), bool)) == (0, 0)
    assert betti_numbers(np.zeros((4, 4, 4), bool)) == (0, 0, 0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_identity_symmetry_and_flips(ndim):
    shape = (128, 64, 64)[:ndim]
    a, b = (np.random.default_rng(seed).random(shape) < 0.1 for seed in (0, 1))
    inside = np.zeros(shape, bool)
    inside[10:90] = True
    value = betti_errors(a, b, inside)
    assert min(value) > 0
    assert betti_errors(a, a, inside) == (0, 0)
    assert betti_errors(b, a, inside) == value
    for axis in range(ndim):
        assert betti_errors(*(np.flip(m, axis) for m in (a, b, inside))) == pytest.approx(value)


def test_only_crops_with_lung_count_and_their_number_does_not_depend_on_the_test():
    a = np.zeros((64, 192), bool)
    b, inside = a.copy(), a.copy()
    b[10, 10] = b[20, 20] = b[30, 150] = True  # two pieces in the first crop, one in the third
    inside[:, :128] = True
    assert betti_errors(a, b, inside) == (1, 0)
    assert betti_error_sums(a, b, inside) == ((2, 0), 2)
    inside[40, 130] = True
    assert betti_errors(a, b, inside) == (1, 0)
    assert betti_error_sums(a, b, inside)[1] == 3


def test_what_has_no_value_or_does_not_fit():
    a = np.ones((8, 8), bool)
    with pytest.raises(Undefined, match="lung"):
        betti_errors(a, a, ~a)
    with pytest.raises(UhrctError, match="fit"):
        betti_errors(a, a, a[:7])
    with pytest.raises(UhrctError):
        betti_errors(a, a[:7], a)
    with pytest.raises(UhrctError):
        betti_numbers(np.ones(4))
