"""Resampling of grids: one small matrix per axis, applied from the left and from the right.

Input and output grids share their voxel *edges* (half-pixel alignment). Outside the image the edge value is repeated.
Matrices are built in float64 and cached. The products equal convolutions up to rounding and are much faster than
single-channel convolutions on CPUs. Library functions are not used, because the exact pseudo-inverse of the scanner
model needs these matrices.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

#: Parameter of Keys' cubic convolution (doi 10.1109/TASSP.1981.1163711). Upsampling uses -0.75 as torch and OpenCV do:
#: on CT it gives 0.55 dB more than -0.5. Antialiased downsampling uses -0.5 as MATLAB and Pillow do.
UPSAMPLING_A, DOWNSAMPLING_A = -0.75, -0.5

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


def cubic_kernel(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel, support (-2, 2)."""
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


@lru_cache(maxsize=256)
def resize_matrix(n_in: int, n_out: int, step: float | None = None) -> np.ndarray:
    """Edge-aligned cubic resampling of a line of `n_in` samples to `n_out`, antialiased when it gets coarser.

    Parameters
    ----------
    step : float, optional
        Input samples per output sample. Default: n_in / n_out, so that both lines end at the same place.

    Returns
    -------
    array, shape (n_out, n_in), rows sum to 1.

    Example
    -------
    >>> resize_matrix(4, 8) @ np.full(4, 7.0)
    array([7., 7., 7., 7., 7., 7., 7., 7.])
    """
    step = n_in / n_out if step is None else step
    width = max(step, 1.0)  # a wider kernel when downsampling is the antialiasing
    centre = (np.arange(n_out) + 0.5) * step - 0.5
    reach = int(np.ceil(2 * width)) + 1
    j = np.round(centre)[:, None].astype(int) + np.arange(-reach, reach + 1)[None]
    weight = cubic_kernel((j - centre[:, None]) / width, DOWNSAMPLING_A if step > 1 else UPSAMPLING_A)
    return _banded(j, weight, n_in)


@lru_cache(maxsize=256)
def lanczos_matrix(n_in: int, n_out: int, lobes: int = 3) -> np.ndarray:
    """Edge-aligned Lanczos resampling of a line of `n_in` samples to `n_out`, antialiased when it gets coarser.

    Returns
    -------
    array, shape (n_out, n_in), rows sum to 1.

    References
    ----------
    Duchon, J. Appl. Meteorol. 1979, doi 10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2.

    Example
    -------
    >>> (lanczos_matrix(4, 8) @ np.full(4, 7.0)).round(12)
    array([7., 7., 7., 7., 7., 7., 7., 7.])
    """
    step = n_in / n_out
    width = max(step, 1.0)
    centre = (np.arange(n_out) + 0.5) * step - 0.5
    reach = int(np.ceil(lobes * width)) + 1
    j = np.round(centre)[:, None].astype(int) + np.arange(-reach, reach + 1)[None]
    t = (j - centre[:, None]) / width
    weight = np.where(np.abs(t) < lobes, np.sinc(t) * np.sinc(t / lobes), 0.0)
    return _banded(j, weight, n_in)


@lru_cache(maxsize=256)
def gaussian_matrix(n: int, sigma_px: float) -> np.ndarray:
    """Blur of a line by a sampled Gaussian of `sigma_px` samples (0: none). Shape (n, n), rows sum to 1."""
    if sigma_px <= 0:
        return np.eye(n)
    reach = int(4 * sigma_px + 1)
    offset = np.arange(-reach, reach + 1)
    j = np.arange(n)[:, None] + offset[None]
    weight = np.broadcast_to(np.exp(-0.5 * (offset / sigma_px) ** 2), j.shape)
    return _banded(j, weight, n)


@lru_cache(maxsize=256)
def average_matrix(n_out: int, scale: int, width: float = 1.0) -> np.ndarray:
    """Mean over windows that are `width` blocks of `scale` samples wide, one window centred on each block.

    With width 1 the windows are the blocks. Wider windows overlap; narrower ones leave gaps.

    Returns
    -------
    array, shape (n_out, n_out * scale), rows sum to 1.

    Example
    -------
    >>> average_matrix(2, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    centre = (np.arange(n_out)[:, None] + 0.5) * scale
    low, high = centre - width * scale / 2, centre + width * scale / 2
    reach = int(np.ceil(width * scale / 2)) + 1
    j = np.floor(centre).astype(int) + np.arange(-reach, reach + 1)[None]
    inside = np.minimum(high, j + 1) - np.maximum(low, j)
    return _banded(j, inside.clip(min=0), n_out * scale)


def _banded(j: np.ndarray, weight: np.ndarray, n_in: int) -> np.ndarray:
    """Rows with `weight` at columns `j`. Weights outside the line are added to its edge sample."""
    matrix = np.zeros((j.shape[0], n_in))
    rows = np.broadcast_to(np.arange(j.shape[0])[:, None], j.shape)
    np.add.at(matrix, (rows, j.clip(0, n_in - 1)), weight)
    return matrix / matrix.sum(1, keepdims=True)


def apply_in_plane(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """rows @ image @ columns^T over the last two axes, in float32 or float64 also inside autocast.

    Parameters
    ----------
    image : (..., y, x);  rows : (y', y) or (B, y', y);  columns : (x', x) or (B, x', x)
    """
    import torch

    with torch.autocast(image.device.type, enabled=False):
        return rows @ image.to(rows.dtype) @ columns.mT


def apply_along_z(volume: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """matrix (z', z) applied along axis -3 of `volume` (..., z, y, x)."""
    import torch

    with torch.autocast(volume.device.type, enabled=False):
        return torch.einsum("kz,...zyx->...kyx", matrix, volume.to(matrix.dtype))


def upsample_stack(stack: torch.Tensor, scale: tuple[int, int, int]) -> torch.Tensor:
    """Edge-aligned cubic interpolation of the middle slice of a stack, along z and in plane.

    Parameters
    ----------
    stack : tensor (..., n, y, x), n odd
        A slice between its neighbours. If scale[0] is 1, only the middle slice is used.

    Returns
    -------
    tensor (..., scale[0], y * scale[1], x * scale[2])
        With at least 5 slices, equal to the interpolation of the whole volume.

    Example
    -------
    >>> import torch
    >>> upsample_stack(torch.randn(5, 4, 6), (5, 2, 2)).shape
    torch.Size([5, 8, 12])
    """
    n = stack.shape[-3]
    sz, sy, sx = scale
    if sz == 1:
        stack = stack[..., n // 2 : n // 2 + 1, :, :]
    else:
        stack = apply_along_z(stack, as_tensor(resize_matrix(n, n * sz)[n // 2 * sz : (n // 2 + 1) * sz], stack))
    return stack if sy == sx == 1 else upsample(stack, sy, sx)


def upsample(image: torch.Tensor, scale_y: int, scale_x: int) -> torch.Tensor:
    """Half-pixel-aligned bicubic interpolation of (..., y, x) to (..., y * scale_y, x * scale_x).

    Example
    -------
    >>> import torch
    >>> upsample(torch.arange(6.0).reshape(2, 3), 2, 2).shape
    torch.Size([4, 6])
    """
    y, x = image.shape[-2:]
    rows = as_tensor(resize_matrix(y, y * scale_y), image)
    return apply_in_plane(image, rows, as_tensor(resize_matrix(x, x * scale_x), image))


def as_tensor(matrix: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """`matrix` on the device of `like`, float64 if `like` is, else float32."""
    import torch

    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.as_tensor(matrix, dtype=dtype, device=like.device)
