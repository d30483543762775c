import numpy as np
import pytest
import torch
import torch.nn.functional as F

from uhrct.physics.resampling import apply_in_plane, as_tensor, gaussian_matrix, lanczos_matrix, resize_matrix, upsample


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upsampling_is_half_pixel_aligned_bicubic(scale):
    image = torch.randn(1, 1, 13, 24, dtype=torch.float64)
    reference = F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
    assert torch.allclose(upsample(image, scale, scale), reference, atol=1e-9)


def test_antialiased_downsampling_equals_an_independent_one_away_from_borders():
    image = torch.randn(1, 1, 48, 48, dtype=torch.float64)
    reference = F.interpolate(image, size=(24, 24), mode="bicubic", antialias=True)
    down = as_tensor(resize_matrix(48, 24), image)
    assert torch.allclose(apply_in_plane(image, down, down)[..., 4:-4, 4:-4], reference[..., 4:-4, 4:-4], atol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(7, 14), (30, 20), (16, 64), (9, 5)])
def test_constants_stay_and_ramps_stay_inside(n, m):
    matrix = resize_matrix(n, m)
    assert np.allclose(matrix @ np.ones(n), 1)
    edges = np.linspace(0, n, m + 1)
    middles = (edges[1:] + edges[:-1]) / 2 - 0.5
    inner = slice(m // 3, -m // 3)
    tolerance = 1e-9 if m % n == 0 or n % m == 0 else 0.05  # -0.75 is not exact on ramps off the half-pixel phases
    assert np.abs(matrix @ np.arange(n) - middles)[inner].max() < max(tolerance, 0.13 if m > n else tolerance)


def test_blur_is_an_independent_librarys():
    from scipy.ndimage import gaussian_filter1d

    line = np.random.default_rng(0).normal(size=64)
    expected = gaussian_filter1d(line, 1.3, mode="nearest", radius=int(4 * 1.3 + 1))
    assert np.allclose(gaussian_matrix(64, 1.3) @ line, expected, atol=1e-12)


def test_no_blur_is_the_identity():
    assert (gaussian_matrix(5, 0.0) == np.eye(5)).all()


@pytest.mark.parametrize(("n_in", "n_out"), [(20, 40), (13, 52), (48, 24)])
def test_lanczos_equals_pillow_away_from_the_edge(n_in: int, n_out: int) -> None:
    """Pillow forgets what lies outside, here the edge value goes on: inside both are the same."""
    from PIL import Image

    line = np.random.default_rng(0).normal(size=(1, n_in)).astype(np.float32)
    theirs = np.asarray(Image.fromarray(line, mode="F").resize((n_out, 1), Image.Resampling.LANCZOS))[0]
    ours = lanczos_matrix(n_in, n_out) @ line[0]
    rim = int(np.ceil(4 * max(n_out / n_in, 1)))
    np.testing.assert_allclose(ours[rim:-rim], theirs[rim:-rim], atol=1e-5)
    np.testing.assert_allclose(lanczos_matrix(n_in, n_out).sum(1), 1)
