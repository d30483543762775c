"""Bias, residual and the question whether two volumes belong together."""

from __future__ import annotations

import numpy as np
import pytest
from audit_case import chest

from uhrct.audit.agreement import Agreement
from uhrct.core.errors import InputRefused

SCAN = chest().scan.hu


def measured(change: np.ndarray | float) -> dict:
    agreement = Agreement()
    for k in range(3):
        agreement.add(SCAN[k], SCAN[k] + change)
    return agreement.as_dict(6.0, 0.0)


def test_bias_is_the_offset_of_each_tissue_with_its_sign():
    found = measured(-7.0)
    assert found["bias_hu"]["lung"] == pytest.approx(-7)
    assert found["bias_hu"]["soft tissue"] == pytest.approx(-7)
    assert found["bias_hu"]["bone"] is None  # there is none
    assert found["residual_hu"] == pytest.approx(7)


def test_noise_looks_like_noise_and_blur_does_not():
    noise = np.random.default_rng(1).normal(0, 6, SCAN[0].shape)
    found = measured(noise)
    assert found["residual_looks_like_noise"]
    assert abs(found["residual_correlation_of_neighbours"]) < 0.1
    from scipy import ndimage

    blur = ndimage.gaussian_filter(SCAN[0], 1.5) - SCAN[0]
    assert measured(blur)["residual_looks_like_noise"] is False


def test_another_scan_is_refused_and_the_own_one_is_not():
    for other, refused in ((SCAN, False), (SCAN + 9.0, False), (np.roll(SCAN, 12, 1), True)):
        agreement = Agreement()
        agreement.add(SCAN[0], other[0])
        if refused:
            with pytest.raises(InputRefused, match="do not show the same scan"):
                agreement.check()
        else:
            agreement.check()


def test_a_constant_image_and_padding_have_no_correlation():
    agreement = Agreement()
    agreement.add(np.full((32, 32), 40.0), np.full((32, 32), 40.0))
    agreement.add(np.full((32, 32), -2000.0), np.full((32, 32), 0.0))
    assert agreement.correlation() is None
    agreement.check()
    assert agreement.as_dict(None, 0.0)["residual_hu"] == pytest.approx(0)
