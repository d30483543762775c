"""Laws of SMSE: broken vessels count; an offset in HU or a distant implant does not."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from uhrct.core.errors import UhrctError
from uhrct.evaluation.structure_error import SMSE_OPERATORS, smse
from uhrct.structure import StructureOperator

SPACING = (0.7, 0.7)
OPERATORS = pytest.mark.parametrize("operator", SMSE_OPERATORS.values(), ids=SMSE_OPERATORS)


def vessel(gap=0, shape=(64, 64)):
    image = np.full(shape, -850.0)
    image[:, 30:33] = 0
    if gap:
        image[32 - gap // 2 : 32 + gap - gap // 2] = -850
    return ndimage.gaussian_filter(image, 0.6)


@OPERATORS
def test_identity_symmetry_and_flips(operator):
    a, b = vessel(), vessel(gap=6)
    value = smse(a, b, SPACING, operator=operator)
    assert smse(a, a, SPACING, operator=operator) == 0
    assert 0 < value < 1
    assert smse(b, a, SPACING, operator=operator) == pytest.approx(value)
    assert smse(a[::-1], b[::-1], SPACING, operator=operator) == pytest.approx(value, rel=1e-4)
    assert smse(a.T, b.T, SPACING, operator=operator) == pytest.approx(value, rel=1e-4)


@OPERATORS
def test_it_grows_with_what_is_broken(operator):
    values = [smse(vessel(), vessel(gap=gap), SPACING, operator=operator) for gap in (0, 2, 6, 12, 24)]
    assert (np.diff(values) > 0).all()


@OPERATORS
def test_a_broken_vessel_counts_and_a_shift_in_hu_or_a_distant_implant_does_not(operator):
    broken = smse(vessel(), vessel(gap=8), SPACING, operator=operator)
    assert broken > 5e-4
    assert smse(vessel(), vessel() + 40, SPACING, operator=operator) < 1e-6 * broken
    implants = [vessel(), vessel(gap=8)]
    for image in implants:
        image[:6, :6] = 8000  # would lower a map that is divided by its maximum
    assert smse(*implants, SPACING, operator=operator) == pytest.approx(broken, rel=0.02)


@OPERATORS
def test_it_is_the_mean_squared_difference_of_the_maps_averaged_over_slices(operator):
    a = np.stack([vessel(), vessel()])
    b = np.stack([vessel(gap=4), vessel(gap=12)])
    maps = [operator(torch.from_numpy(x), SPACING).numpy() for x in (a, b)]
    expected = np.mean((maps[0] - maps[1]) ** 2)
    assert smse(a, b, (5.0, *SPACING), operator=operator) == pytest.approx(expected, rel=1e-4)
    assert smse(a, b, SPACING, operator=operator) == pytest.approx(expected, rel=1e-4)


def test_constants_are_the_published_ones():
    """A change of these constants changes the meaning of every SMSE printed so far."""
    frangi, vc = SMSE_OPERATORS["frangi"], SMSE_OPERATORS["vc"]
    assert frangi == StructureOperator("frangi", sigma_mm=(0.7, 1.2, 2.0), contrast_hu=250.0, beta=0.5)
    assert vc == StructureOperator("vc", sigma_mm=(0.7, 1.2, 2.0), contrast_hu=250.0, k1=2.375, k2=7.0)
    printed = [1000 * smse(vessel(), vessel(gap=8), SPACING, operator=o) for o in (frangi, vc)]
    assert printed == pytest.approx([1.5217, 1.3003], rel=0.005)
    assert 1000 * smse(vessel(), vessel(gap=8), SPACING) == pytest.approx(printed[0])


def test_what_cannot_be_compared_is_refused():
    a, nan = vessel(), vessel()
    nan[3, 3] = np.nan
    for reference, test, spacing in [
        (a, a[:-1], SPACING),
        (a, nan, SPACING),
        (nan, a, SPACING),
        (a[0], a[0], SPACING),
        (a[:0], a[:0], SPACING),
        (a, a, (1.0, *SPACING)),
        (a, a, (0.7,)),
        (a, a, (0.7, 0.0)),
    ]:
        with pytest.raises(UhrctError):
            smse(reference, test, spacing)
    with pytest.raises(UhrctError, match="slice"):
        smse(a, a, SPACING, operator=StructureOperator(ndim=3))
