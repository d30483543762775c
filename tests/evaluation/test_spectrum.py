"""Texture: equal to SciPy's transforms, right on known waves, laws on real slices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.spectrum import octave_edges, texture


def by_scipy(hu, spacing_mm):
    """The same octaves from two one-dimensional tapered transforms, ring by ring."""
    image = np.clip(hu, -1000, 600)
    taper = np.outer(*(signal.windows.hann(n + 2)[1:-1] for n in image.shape))
    image = (image - np.average(image, weights=taper)) * taper
    power = np.abs(np.fft.fft(np.fft.fft(image, axis=0), axis=1)) ** 2
    fy, fx = (np.fft.fftfreq(n, s) for n, s in zip(image.shape, spacing_mm, strict=True))
    nyquist = 0.5 / max(spacing_mm)
    rings = []
    for k in range(4):
        ring = [
            power[i, j]
            for i, y in enumerate(fy)
            for j, x in enumerate(fx)
            if nyquist / 2 ** (k + 1) < np.sqrt(y * y + x * x) <= nyquist / 2**k
        ]
        rings.append(np.mean(ring))
    return np.array(rings)


def test_it_equals_rings_of_full_transforms(pair):
    y, x = (n // 2 - 48 for n in pair.reference.shape)
    a, b = (image[y : y + 96, x : x + 80] for image in (pair.reference, pair.test))
    expected = by_scipy(b, pair.spacing_mm) / by_scipy(a, pair.spacing_mm)
    assert texture(a, b, pair.spacing_mm) == pytest.approx(expected, rel=1e-6)
    assert np.ptp(expected) > 0.3


@pytest.mark.parametrize("octave", range(4))
@pytest.mark.parametrize("spacing", [(0.7, 0.7), (0.6, 0.8)])
@pytest.mark.parametrize("angle", [0, 35])
def test_a_wave_answers_in_its_own_octave(octave, spacing, angle):
    _, high = octave_edges(spacing)[octave]
    assert high == pytest.approx(0.5 / max(spacing) / 2**octave)
    y, x = np.mgrid[:128, :128] * np.reshape(spacing, (2, 1, 1))
    along = y * np.cos(np.radians(angle)) + x * np.sin(np.radians(angle))
    rng = np.random.default_rng(0).normal(size=(128, 128))
    ratios = texture(rng, rng + 3 * np.sin(2 * np.pi * 0.75 * high * along), spacing)
    assert int(np.argmax(ratios)) == octave
    others = [r for k, r in enumerate(ratios) if k != octave]
    assert ratios[octave] > 2 * max(others)
    assert others == pytest.approx([1] * 3, abs=1.5)


def test_laws_on_real_slices(pair):
    a, b = pair.reference, pair.test
    value = texture(a, b, pair.spacing_mm)
    assert texture(a, a, pair.spacing_mm) == pytest.approx([1] * 4)
    assert texture(b, a, pair.spacing_mm) == pytest.approx([1 / v for v in value])
    for axis in (0, 1):
        assert texture(np.flip(a, axis), np.flip(b, axis), pair.spacing_mm) == pytest.approx(value)
    assert texture(a.T, b.T, pair.spacing_mm[::-1]) == pytest.approx(value)
    assert value[0] < value[1] < value[2] < value[3] < 1.1  # interpolation loses the fine octaves
    inside = np.clip(a, -900, 500)
    assert texture(inside, inside + 50, pair.spacing_mm) == pytest.approx([1] * 4)  # an offset is no texture


def test_constants_have_none_and_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0).normal(size=(32, 32))
    for constant in (np.full((32, 32), 40.0), np.full((32, 32), 1 / 3), rng - 3000):
        with pytest.raises(Undefined, match="constant"):
            texture(constant, rng, (0.7, 0.7))
    assert texture(rng, np.zeros((32, 32)), (0.7, 0.7)) == pytest.approx([0] * 4)
    nan = rng.copy()
    nan[3, 3] = np.nan
    for a, b, spacing in (
        (rng, rng[:31], (1, 1)),
        (rng[:15], rng[:15], (1, 1)),
        (rng, nan, (1, 1)),
        (nan, rng, (1, 1)),
        (rng[None], rng[None], (1, 1)),
        (rng, rng, (1, 1, 1)),
        (rng, rng, (1, 0)),
    ):
        with pytest.raises(UhrctError) as refusal:
            texture(a, b, spacing)
        assert not isinstance(refusal.value, Undefined)
