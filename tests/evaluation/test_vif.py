"""VIF against two other implementations on real slices, and its laws."""

from __future__ import annotations

import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.core.hu import METRIC_WINDOWS_HU
from uhrct.core.undefined import Undefined
from uhrct.evaluation.vif import vif

WIDE = METRIC_WINDOWS_HU["wide"]


def grey(hu, window_hu=WIDE):
    low, high = window_hu
    return (np.clip(hu, low, high) - low) / (high - low) * 255


@pytest.mark.parametrize("window_hu", [WIDE, METRIC_WINDOWS_HU["mediastinum"]])
def test_it_equals_sewar(pair, window_hu):
    from sewar.full_ref import vifp

    expected = vifp(grey(pair.reference, window_hu), grey(pair.test, window_hu), sigma_nsq=2)
    assert vif(pair.reference, pair.test, window_hu=window_hu) == pytest.approx(float(np.real(expected)), abs=1e-6)


def test_it_equals_torchmetrics(pair):
    import torch
    from torchmetrics.functional.image import visual_information_fidelity

    a, b = (torch.from_numpy(grey(x))[None, None] for x in (pair.reference, pair.test))
    expected = float(visual_information_fidelity(b, a, sigma_n_sq=2.0))  # torchmetrics takes (test, reference)
    assert vif(pair.reference, pair.test, window_hu=WIDE) == pytest.approx(expected, abs=1e-6)


def test_inverted_contrast_keeps_nothing_as_in_sewar(pair):
    from sewar.full_ref import vifp

    low, high = WIDE
    inverted = low + high - pair.reference.clip(low, high)
    assert vif(pair.reference, inverted, window_hu=WIDE) == pytest.approx(0, abs=1e-9)
    half = np.where(np.arange(pair.reference.shape[1]) < 40, inverted, pair.reference.clip(low, high))
    expected = float(np.real(vifp(grey(pair.reference), grey(half), sigma_nsq=2)))
    assert vif(pair.reference, half, window_hu=WIDE) == pytest.approx(expected, abs=1e-6)


def test_the_scale_of_grey_levels_and_the_order_matter(pair):
    value = vif(pair.reference, pair.test, window_hu=WIDE)
    assert vif(pair.test, pair.reference, window_hu=WIDE) != pytest.approx(value, abs=0.01)
    assert vif(pair.reference, pair.test, window_hu=(-1000, 7000)) != pytest.approx(value, abs=0.01)


def test_identity_and_flips(pair):
    assert vif(pair.reference, pair.reference, window_hu=WIDE) == pytest.approx(1, abs=1e-6)
    a, b = (x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2] for x in (pair.reference, pair.test))
    value = vif(a, b, window_hu=WIDE)
    for axis in (0, 1):  # the flip keeps other pixels when every second one is dropped
        assert vif(np.flip(a, axis), np.flip(b, axis), window_hu=WIDE) == pytest.approx(value, abs=0.01)


def test_volumes_are_means_of_slices(pair):
    a, b = np.stack([pair.reference, pair.test]), np.stack([pair.test, pair.reference])
    expected = np.mean([vif(x, y, window_hu=WIDE) for x, y in zip(a, b, strict=True)])
    assert vif(a, b, window_hu=WIDE) == pytest.approx(expected)


def test_a_constant_reference_has_no_information():
    rng = np.random.default_rng(0).normal(size=(48, 48))
    with pytest.raises(Undefined, match="constant"):
        vif(np.full((48, 48), 40.0), rng, window_hu=WIDE)
    with pytest.raises(Undefined):  # constant inside the window alone
        vif(-2000 + rng, rng, window_hu=WIDE)
    assert vif(-500 + 100 * rng, np.zeros((48, 48)), window_hu=WIDE) == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_compared_is_refused():
    a, nan = np.zeros((48, 48)), np.zeros((48, 48))
    nan[3, 3] = np.nan
    for reference, test in ((a, a[:-1]), (a, nan), (nan, a), (a[:40], a[:40]), (a[0], a[0]), (a[:0], a[:0])):
        with pytest.raises(UhrctError) as refusal:
            vif(reference, test, window_hu=WIDE)
        assert not isinstance(refusal.value, Undefined)
    with pytest.raises(UhrctError, match="window"):
        vif(a, a, window_hu=(600, -1000))
