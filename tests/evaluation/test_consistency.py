"""Consistency with the low-resolution scan: values by hand, padding, shapes that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.consistency import consistency
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample

A = Acquisition((1, 2, 2))


def test_block_means_by_hand(pair):
    box = Acquisition((1, 2, 2), psf_fwhm=0.0)
    hr = pair.reference
    means = (hr[::2, ::2] + hr[1::2, ::2] + hr[::2, 1::2] + hr[1::2, 1::2]) / 4
    assert consistency(hr, means, box) == pytest.approx(0, abs=1e-9)
    assert consistency(pair.test, means, box) == pytest.approx(
        np.abs(
            (pair.test[::2, ::2] + pair.test[1::2, ::2] + pair.test[::2, 1::2] + pair.test[1::2, 1::2]) / 4 - means
        ).mean(),
        rel=1e-6,
    )


def test_the_truth_agrees_interpolation_does_not_and_the_projection_does(pair):
    lr = torch.from_numpy(pair.lr)
    projected = A.project(upsample(lr, 2, 2), lr).numpy()
    assert consistency(pair.reference, pair.lr, A) < 1e-6
    assert consistency(pair.test, pair.lr, A) > 1
    assert consistency(projected.clip(-1e9), pair.lr, A) < consistency(pair.test, pair.lr, A) / 5
    for axis in (0, 1):
        assert consistency(np.flip(pair.test, axis), np.flip(pair.lr, axis), A) == pytest.approx(
            consistency(pair.test, pair.lr, A)
        )


def test_it_depends_on_the_acquisition(pair):
    assert consistency(pair.reference, pair.lr, Acquisition((1, 2, 2), psf_fwhm=1.5)) > 1
    assert consistency(pair.reference, pair.lr, Acquisition((1, 2, 2), "bicubic")) > 1


def test_scales_along_z():
    rng = np.random.default_rng(0)
    hr = rng.normal(0, 50, (3, 8, 8))
    operator = Acquisition((3, 1, 1))
    assert consistency(hr, hr.mean(0, keepdims=True) + 2, operator) == pytest.approx(2)


def test_padding_does_not_count_and_the_far_rest_is_cut():
    rng = np.random.default_rng(0)
    hr = rng.normal(0, 50, (17, 16))
    lr = A.forward(torch.from_numpy(hr[:16])).numpy()
    assert consistency(hr, lr, A) == pytest.approx(0, abs=1e-9)
    hr[:4, :4], lr[:2, :2] = -2000, -2000
    assert consistency(hr, lr, A) == pytest.approx(0, abs=1e-6)
    lr[0, 0] = -3024
    assert consistency(hr, lr, A) == pytest.approx(0, abs=1e-6)
    lr[7, 7] += 48
    seen = 64 - 9  # without 2 x 2 of padding and the ring that its PSF reaches
    assert consistency(hr, lr, A) == pytest.approx(48 / seen, rel=0.1)


def test_what_does_not_fit_is_refused():
    hr, lr, nan = np.zeros((16, 16)), np.zeros((8, 8)), np.full((8, 8), np.nan)
    for test, x in ((hr, lr[:7]), (hr[:14], lr), (hr, nan), (hr[None], lr), (hr, lr[0]), (hr[:0], lr[:0])):
        with pytest.raises(UhrctError) as refusal:
            consistency(test, x, A)
        assert not isinstance(refusal.value, Undefined)
    with pytest.raises(Undefined, match="padding"):
        consistency(hr, np.full((8, 8), -2000.0), A)
