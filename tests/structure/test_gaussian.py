"""Laws of the derivative matrices: exact on polynomials, equal to the convolutions that they replace."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from uhrct.core.errors import UhrctError
from uhrct.structure.gaussian import (
    BLOCK,
    band_matmul,
    derivative_kernels,
    derivative_matrices,
    hessian_2d,
    hessian_3d,
    kernel_radius,
)

CPU = torch.device("cpu")
SIGMAS = st.floats(0.06, 8.0)


@settings(max_examples=40, deadline=None)
@given(sigma=SIGMAS)
def test_moments_are_exact_on_polynomials_at_every_sigma(sigma):
    k = derivative_kernels(sigma) / np.array([[1.0], [sigma], [sigma**2]])
    x = np.arange(-kernel_radius(sigma), kernel_radius(sigma) + 1.0)
    moments = np.array([[(row * basis).sum() for basis in (x**0, x, x**2 / 2)] for row in k])
    np.testing.assert_allclose(moments[0, :2], [1, 0], atol=1e-10)
    np.testing.assert_allclose(moments[1], [0, 1, 0], atol=1e-10)
    np.testing.assert_allclose(moments[2], [0, 0, 1], atol=1e-10)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_kernels_are_the_gaussian_derivatives(sigma, order):
    r = kernel_radius(sigma)
    impulse = np.zeros(2 * r + 1)
    impulse[r] = 1
    scipy_kernel = ndimage.gaussian_filter1d(impulse, sigma, order=order, radius=r)[::-1] * sigma**order
    ours = derivative_kernels(sigma)[order]
    assert np.abs(ours - scipy_kernel).max() < 0.03 * np.abs(scipy_kernel).max()


@pytest.mark.parametrize("n", [5, 40, 2 * BLOCK, 3 * BLOCK + 37])
def test_matrices_equal_the_correlation_with_replicated_edges(n):
    sigma = 2.3  # its kernel is longer than the shortest axis
    y = np.random.default_rng(0).normal(size=(n, 3))
    for matrix, kernel in zip(
        derivative_matrices(n, sigma, CPU, torch.float64), derivative_kernels(sigma), strict=True
    ):
        expected = ndimage.correlate1d(y, kernel, axis=0, mode="nearest")
        ours = band_matmul(matrix, torch.from_numpy(y), kernel_radius(sigma))
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_nothing_lies_outside_the_band():
    n, sigma = 64, 1.7
    i = torch.arange(n)
    outside = (i[:, None] - i).abs() > kernel_radius(sigma)
    assert not derivative_matrices(n, sigma, CPU, torch.float64)[:, outside].any()


@pytest.mark.parametrize("sigma", [(1.0, 1.0), (0.4, 2.1)])
def test_hessian_of_a_quadratic_is_its_matrix(sigma):
    y, x = torch.meshgrid(*[torch.arange(40, dtype=torch.float64) - 20] * 2, indexing="ij")
    image = 3 * y**2 / 2 - 5 * x * y + 7 * x**2 / 2 + 11 * y - 13 * x + 1000
    sy, sx = sigma
    inside = (slice(12, -12),) * 2
    for component, value in zip(hessian_2d(image, [sy], [sx]), (3 * sy**2, -5 * sy * sx, 7 * sx**2), strict=True):
        torch.testing.assert_close(component[inside], torch.full_like(component[inside], value))


def test_hessian_of_a_quadratic_volume_is_its_matrix():
    z, y, x = torch.meshgrid(*[torch.arange(20, dtype=torch.float64) - 10] * 3, indexing="ij")
    image = (2 * z**2 + 3 * y**2 + 5 * x**2) / 2 + 7 * z * y + 11 * z * x + 13 * y * x
    sz, sy, sx = 0.4, 1.0, 1.6
    expected = (2 * sz * sz, 3 * sy * sy, 5 * sx * sx, 7 * sz * sy, 11 * sz * sx, 13 * sy * sx)
    inside = (slice(7, -7),) * 3
    for component, value in zip(hessian_3d(image, sz, sy, sx), expected, strict=True):
        torch.testing.assert_close(component[inside], torch.full_like(component[inside], value))


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.01, float("nan"), float("inf")])
def test_sigmas_that_no_grid_can_hold_are_refused(sigma):
    with pytest.raises(UhrctError, match="sigma"):
        derivative_kernels(sigma)


def test_matrices_that_inference_mode_cached_serve_training():
    image = torch.randn(140, 150)
    sigma = [1.2345]  # not in the cache yet
    with torch.inference_mode():
        hessian_2d(image, sigma, sigma)
    leaf = image.clone().requires_grad_()
    hessian_2d(leaf, sigma, sigma)[0].sum().backward()
    assert leaf.grad is not None
