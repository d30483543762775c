"""clDice: equal to the authors' formula on real vessels, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.morphology import skeletonize

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.structure.vessels import cldice, skeleton, vessel_mask


def vessels(hu, pair, threshold=None):
    structure = structure_maps(hu[None], pair.spacing_mm, SMSE_OPERATORS["vc"])[0]
    return vessel_mask(structure, pair.lungs, threshold or pair.vessel_from)


@pytest.mark.parametrize("times", [0.4, 1])
def test_it_equals_the_authors_formula(pair, times):
    a, b = (vessels(hu, pair, times * pair.vessel_from) for hu in (pair.reference, pair.test))
    v_l, v_p, s_l, s_p = a, b, skeletonize(a), skeletonize(b)
    t_prec = np.sum(s_p * v_l) / np.sum(s_p)
    t_sens = np.sum(s_l * v_p) / np.sum(s_l)
    assert cldice(a, b) == pytest.approx(2 * t_prec * t_sens / (t_prec + t_sens))
    assert 0.2 < cldice(a, b) < 1
    assert cldice(b, a) == pytest.approx(cldice(a, b))


def test_vessels_lie_in_lungs_and_are_bright(pair):
    mask = vessels(pair.reference, pair)
    assert 30 < mask.sum() < 0.06 * mask.size
    assert not (mask & ~pair.lungs).any()
    assert np.median(pair.reference[mask]) > np.median(pair.reference[pair.lungs]) + 150


def test_identity_and_flips_on_real_vessels(pair):
    a, b = vessels(pair.reference, pair), vessels(pair.test, pair)
    assert cldice(a, a) == 1
    for axis in (0, 1):  # thinning depends on the direction a little
        assert cldice(np.flip(a, axis), np.flip(b, axis)) == pytest.approx(cldice(a, b), abs=0.03)


@pytest.mark.parametrize("ndim", [2, 3])
def test_half_a_line_is_two_thirds(ndim):
    whole = np.zeros((41,) * ndim, bool)
    whole[(20,) * (ndim - 1)][:40] = True
    half = whole.copy()
    half[(20,) * (ndim - 1)][20:] = False
    assert cldice(whole, half) == pytest.approx(2 / 3)  # precision 1, sensitivity 1/2


def test_width_does_not_count_and_a_shift_within_the_vessel_does_not():
    wide, thin = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    wide[15:24, 2:38] = True
    thin[18:21, 2:38] = True
    assert cldice(wide, thin) == pytest.approx(1, abs=0.1)
    assert cldice(thin, np.roll(thin, 12, 0)) == 0


def test_empty_masks():
    some, none = np.eye(8, dtype=bool), np.zeros((8, 8), bool)
    assert cldice(some, none) == 0
    for test in (some, none):
        with pytest.raises(Undefined, match="no vessel"):
            cldice(none, test)
    assert not skeleton(none).any()


def test_what_does_not_fit_is_refused():
    a = np.ones((8, 8), bool)
    for reference, test in ((a, a[:7]), (a[0], a[0]), (a[:0], a[:0])):
        with pytest.raises(UhrctError):
            cldice(reference, test)
    with pytest.raises(UhrctError):
        vessel_mask(np.ones((8, 8)), a[:7], 0.5)
    for threshold in (0, -1, float("nan")):
        with pytest.raises(UhrctError, match="threshold"):
            vessel_mask(np.ones((8, 8)), a, threshold)
    with pytest.raises(UhrctError):
        skeleton(np.ones(5))
