"""Fidelity metrics: equal to scikit-image and the paper, and their laws."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from skimage import metrics

from uhrct.core.errors import UhrctError
from uhrct.core.hu import METRIC_WINDOWS_HU
from uhrct.evaluation.fidelity import mae, psnr, rmse, ssim

WIDE, LUNG = METRIC_WINDOWS_HU["wide"], METRIC_WINDOWS_HU["lung"]
EVERY = {
    "psnr": lambda a, b: psnr(a, b, window_hu=WIDE),
    "ssim": lambda a, b: ssim(a, b, window_hu=WIDE),
    "rmse": rmse,
    "mae": mae,
}
IDENTITY = {"psnr": math.inf, "ssim": 1.0, "rmse": 0.0, "mae": 0.0}


def scan(seed=0, shape=(3, 40, 36)):
    """HU that leave every window on both sides."""
    return np.random.default_rng(seed).uniform(-1200, 900, shape)


def noisy(reference, sd, seed=1):
    return reference + sd * np.random.default_rng(seed).normal(size=reference.shape)


@pytest.mark.parametrize("window_hu", METRIC_WINDOWS_HU.values(), ids=METRIC_WINDOWS_HU)
def test_psnr_and_ssim_equal_scikit_image_on_clipped_images(window_hu):
    a, b = scan(), noisy(scan(), 60)
    low, high = window_hu
    x, y = np.clip(a, low, high), np.clip(b, low, high)
    expected = metrics.peak_signal_noise_ratio(x, y, data_range=high - low)
    assert psnr(a, b, window_hu=window_hu) == pytest.approx(expected, rel=1e-12)
    p, q = ((v - low) / (high - low) for v in (x, y))  # SSIM is not blind to an offset: [0, 1], not HU
    per_slice = [
        metrics.structural_similarity(
            u, v, win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
        )
        for u, v in zip(p, q, strict=True)
    ]
    assert ssim(a, b, window_hu=window_hu) == pytest.approx(np.mean(per_slice), abs=1e-9)


def test_ssim_equals_the_papers_formula():
    a, b = scan(), noisy(scan(), 200)
    x, y = ((np.clip(v, *WIDE) + 1000) / 1600 for v in (a, b))

    def local_mean(v):
        return ndimage.gaussian_filter(v, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]

    mx, my = local_mean(x), local_mean(y)
    vx, vy, cov = local_mean(x * x) - mx**2, local_mean(y * y) - my**2, local_mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    paper = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(a, b, window_hu=WIDE) == pytest.approx(paper.mean(), abs=1e-9)


def test_rmse_and_mae_equal_scikit_image_and_know_no_window():
    a, b = scan(), noisy(scan(), 60)
    assert rmse(a, b) == pytest.approx(math.sqrt(metrics.mean_squared_error(a, b)), rel=1e-12)
    assert mae(a, b) == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
    assert rmse(a, a + 5000) == pytest.approx(5000)


def test_psnr_is_blind_outside_its_window_and_only_there():
    a = np.array([[-3000.0, -800.0, 2000.0]])
    b = np.array([[-1001.0, -800.0, 900.0]])
    assert psnr(a, b, window_hu=WIDE) == math.inf
    assert psnr(a, b, window_hu=LUNG) < 30


@pytest.mark.parametrize("name", EVERY)
def test_identity_symmetry_and_flips(name):
    metric, a, b = EVERY[name], scan(), noisy(scan(), 80)
    assert metric(a, a) == pytest.approx(IDENTITY[name])
    value = metric(a, b)
    assert value != pytest.approx(IDENTITY[name])
    assert metric(b, a) == pytest.approx(value, rel=1e-9)
    for axis in range(3):
        assert metric(np.flip(a, axis), np.flip(b, axis)) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_integers_of_a_scan_are_not_wrapped(name):
    a = np.full((12, 12), -30000, np.int16)
    a[:6] = 30000
    b = -a
    assert EVERY[name](a, b) == pytest.approx(EVERY[name](a.astype(float), b.astype(float)))
    assert EVERY[name](a, b) != pytest.approx(IDENTITY[name])


@pytest.mark.parametrize("name", EVERY)
def test_a_volume_is_judged_as_its_slices(name):
    a, b = scan(), noisy(scan(), 80)
    slices = np.array([EVERY[name](x, y) for x, y in zip(a, b, strict=True)])
    if name == "psnr":
        expected = -10 * np.log10(np.mean(10 ** (-0.1 * slices)))
    else:
        power = 2 if name == "rmse" else 1
        expected = np.mean(slices**power) ** (1 / power)
    assert EVERY[name](a, b) == pytest.approx(expected)


@pytest.mark.parametrize("name", EVERY)
def test_what_cannot_be_compared_is_refused(name):
    for bad in (np.nan, np.inf, -np.inf):
        b = scan()
        b[1, 2, 3] = bad
        for pair in ((scan(), b), (b, scan())):
            with pytest.raises(UhrctError, match="NaN"):
                EVERY[name](*pair)
    for shapes in (((12, 12), (12, 13)), ((12, 12), (1, 12, 12)), ((0, 12), (0, 12))):
        with pytest.raises(UhrctError):
            EVERY[name](*[np.zeros(s) for s in shapes])


def test_windows_without_width_and_slices_smaller_than_the_filter_are_refused():
    for window_hu in ((600, -1000), (0, 0), (float("nan"), 0), (-1000, float("inf"))):
        for metric in (psnr, ssim):
            with pytest.raises(UhrctError, match="window"):
                metric(scan(), scan(), window_hu=window_hu)
    for shape in ((10, 40), (40, 10), (2, 2, 20, 20)):
        with pytest.raises(UhrctError, match="11 x 11"):
            ssim(np.zeros(shape), np.zeros(shape), window_hu=WIDE)


def test_importing_it_costs_no_torch():
    code = "import sys, uhrct.evaluation.fidelity; sys.exit('torch' in sys.modules or 'skimage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
