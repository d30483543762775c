"""Flicker: known noise, correlated noise, and anatomy, which must not count."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.flicker import flicker

SPACING = (1.0, 0.7, 0.7)


def noise(seed, sd=15.0, along_z=0.0, shape=(8, 96, 96)):
    white = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (along_z, 0.8, 0.8))
    return sd * white / white.std()


def body(shape=(8, 96, 96)):
    """Soft tissue with a lung, vessels that run obliquely through the slices, and air around."""
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    hu = np.where(np.hypot(y - 48, x - 48) < 44, 40.0, -1000.0)
    hu[np.hypot(y - 48, x - 30) < 12] = -850
    hu[np.hypot(y - 48, x - 30 - z) < 2] = 40
    hu[np.hypot(y - 60, x - 55 - 2 * z) < 4] = 300  # a contrasted vessel wanders through the tissue
    return hu


@pytest.mark.parametrize("along_z", [0.0, 1.0])  # independent slices, and slices that overlap
def test_known_tests_of_a_known_truth(along_z):
    truth = body()
    reference = truth + noise(0, along_z=along_z)
    assert flicker(reference, reference, SPACING) == 0
    assert flicker(reference, truth, SPACING) == pytest.approx(1, abs=0.03)
    again = truth + noise(1, along_z=along_z)
    assert flicker(reference, again, SPACING) == pytest.approx(np.sqrt(2), abs=0.07)
    assert flicker(reference, reference + 30, SPACING) == pytest.approx(0, abs=1e-6)  # an offset does not flicker
    drift = reference + 5 * np.arange(8.0)[:, None, None]
    assert flicker(reference, drift, SPACING) == pytest.approx(0, abs=1e-6)  # nor does a drift
    assert flicker(reference, truth + noise(1, sd=45, along_z=along_z), SPACING) > 2.5


def test_flips_and_order_of_slices_do_not_matter():
    reference, test = body() + noise(0), body() + noise(1)
    value = flicker(reference, test, SPACING)
    for axis in range(3):
        assert flicker(np.flip(reference, axis), np.flip(test, axis), SPACING) == pytest.approx(value)


def test_lung_and_edges_do_not_count():
    """A test that is wrong at every edge and in the lung, and right in tissue, does not flicker."""
    truth = body()
    reference = truth + noise(0)
    soft = (truth > -200) & (truth < 250)
    worse = np.where(soft, reference, reference + noise(3, sd=200))
    assert flicker(reference, worse, SPACING) < 0.1


def test_on_a_real_scan(shared_ct):
    files = sorted((shared_ct / "validation" / "rider0117").glob("*.dcm"))[40:44]
    if not files:
        pytest.skip("real CT not here: rider0117 is missing in ../shared/ct")
    hu = np.concatenate([io.read(f).hu for f in files]).clip(min=-1024)
    spacing = (0.8, 0.645, 0.645)
    smooth = ndimage.gaussian_filter(hu.astype(float), (0, 2, 2))
    assert 0.5 < flicker(hu, smooth, spacing) < 1.05
    assert flicker(hu, smooth + noise(0, sd=60, shape=hu.shape), spacing) > 1.2


def test_what_has_no_value_says_why():
    truth = body()
    with pytest.raises(Undefined, match="one slice"):
        flicker(truth[:1], truth[:1], SPACING)
    with pytest.raises(Undefined, match="homogeneous"):
        flicker(truth - 900, truth, SPACING)
    with pytest.raises(Undefined, match="no noise"):
        flicker(truth, truth + noise(0), SPACING)
    nan = truth.copy()
    nan[3, 3, 3] = np.nan
    for a, b, spacing in (
        (truth, truth[1:], SPACING),
        (truth, nan, SPACING),
        (nan, truth, SPACING),
        (truth[0], truth[0], SPACING),
        (truth, truth, SPACING[:2]),
        (truth, truth, (1, 1, 0)),
    ):
        with pytest.raises(UhrctError) as refusal:
            flicker(a, b, spacing)
        assert not isinstance(refusal.value, Undefined)
