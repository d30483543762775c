"""The scanner as a linear operator A: how a low-resolution CT arises from a high-resolution one.

In plane, a Gaussian point-spread function; along z, a slice-sensitivity profile; then the mean over the low-resolution
voxel. A is separable, A = Az (x) Ay (x) Ax. So adjoint and pseudo-inverse are products of small matrices and exact:
``A(project(y, x)) == x`` up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from uhrct.core.arguments import choice, number, scale_factors
from uhrct.core.errors import UhrctError
from uhrct.physics.resampling import (
    FWHM_PER_SIGMA,
    apply_along_z,
    apply_in_plane,
    as_tensor,
    average_matrix,
    gaussian_matrix,
    resize_matrix,
)

if TYPE_CHECKING:
    import torch

KINDS = ("scanner", "bicubic")
#: error in HU that networks leave at edges. Noise of this size is as much reason to doubt a difference between scan and
#: result as the error is to correct it.
ERROR_HU = 30.0


@dataclass(frozen=True)
class Acquisition:
    """A linear model of how a low-resolution (LR) scan arises from a high-resolution (HR) one.

    Methods take tensors (..., y, x), or (..., z, y, x) if scale[0] > 1. Sides of HR tensors must be multiples of the
    scale.

    Parameters
    ----------
    scale : (z, y, x)
        HR voxels per LR voxel along each axis.
    kind : "scanner" or "bicubic"
        "scanner": Gaussian PSF, then the mean over the LR voxel. "bicubic": antialiased bicubic downsampling in
        plane, as in the literature, and the mean along z.
    psf_fwhm : float
        Full width at half maximum of the in-plane PSF, in LR pixels (see `from_mm` for mm).
    slice_thickness : float
        Width of the slice profile in LR slice distances: 1 for contiguous slices (5 mm every 5 mm), 2 for overlapping
        ones (5 mm every 2.5 mm), below 1 for gaps. Used only if scale[0] > 1.
    slice_fwhm : float
        Full width at half maximum of a Gaussian blur of this profile, in LR slice distances.
    sharpening : float
        Edge enhancement by the reconstruction kernel, applied last: the share of in-plane detail (LR image minus its
        blur by one pixel) that is added.

    Example
    -------
    >>> import torch
    >>> A = Acquisition((1, 2, 2))
    >>> y = torch.randn(8, 8, dtype=torch.float64); x = A.forward(torch.randn(8, 8, dtype=torch.float64))
    >>> bool((A.forward(A.project(y, x)) - x).abs().max() < 1e-10)
    True
    """

    scale: tuple[int, int, int]
    kind: str = "scanner"
    psf_fwhm: float = 0.6
    slice_fwhm: float = 0.0
    slice_thickness: float = 1.0
    sharpening: float = 0.0

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)
        scale_factors("scale", self.scale)
        number("sharpening", self.sharpening, 0, 10)  # below 0 the kernel would smooth, which cannot be undone
        number("psf_fwhm", self.psf_fwhm, 0, 100)
        number("slice_fwhm", self.slice_fwhm, 0, 100)
        number("slice_thickness", self.slice_thickness, 0, 100)

    @classmethod
    def from_mm(
        cls,
        scale: tuple[int, int, int],
        *,
        lr_spacing_mm: tuple[float, float, float],
        psf_fwhm_mm: float,
        slice_thickness_mm: float | None = None,
        slice_fwhm_mm: float = 0.0,
    ) -> Acquisition:
        """The scanner with PSF and slice profile in mm. Pixels are assumed square; the y spacing is used.

        `lr_spacing_mm[0]` is the distance between slices. It is the slice thickness too, unless that is given.
        """
        z, y, _ = lr_spacing_mm
        thickness = 1.0 if slice_thickness_mm is None else slice_thickness_mm / z
        return cls(scale, psf_fwhm=psf_fwhm_mm / y, slice_fwhm=slice_fwhm_mm / z, slice_thickness=thickness)

    @property
    def slice_by_slice(self) -> bool:
        """Whether each LR slice depends only on the HR slices inside it."""
        return self.scale[0] == 1 or (self.slice_fwhm == 0 and self.slice_thickness <= 1)

    def forward(self, hr: torch.Tensor) -> torch.Tensor:
        """x = A y."""
        lr = self._apply(hr, tuple(self.axis_matrix(n // s, i) for n, s, i in self._sides(hr, self.scale)))
        return sharpened(lr, self.sharpening)

    def adjoint(self, lr: torch.Tensor) -> torch.Tensor:
        """A^T x."""
        lr = sharpened(lr, self.sharpening, transposed=True)
        return self._apply(lr, tuple(self.axis_matrix(n, i).T for n, _, i in self._sides(lr)))

    def pinv(self, lr: torch.Tensor, damping: float = 0.0) -> torch.Tensor:
        """A^+ x, the HR image of least norm that A maps to x.

        With `damping` each factor B of A is inverted as B^T (B B^T + damping)^-1 (Tikhonov). A wide PSF passes little
        of the high frequencies, so the exact inverse amplifies the noise there.
        """
        lr = unsharpened(lr, self.sharpening)
        return self._apply(lr, tuple(_right_inverse(self, n, i, damping) for n, _, i in self._sides(lr)))

    def project(self, hr: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        """y + A^+ (x - A y), the nearest image to `hr` that measures as `lr`.

        The projection is orthogonal: if `lr` is exact, the error cannot grow.
        """
        return hr + self.pinv(lr - self.forward(hr))

    def project_within_noise(self, hr: torch.Tensor, lr: torch.Tensor, noise_hu: float = 0.0) -> torch.Tensor:
        """The projection, but weaker where exact agreement would copy or amplify the scan's noise.

        Parameters
        ----------
        hr : (..., y', x');  lr : (..., y, x), HU, as for `project`
        noise_hu : float
            Known noise of the scan. Used where it exceeds the estimate `noise_sigma_hu` of the slice.
        """
        import torch

        damping = round((noise_hu / ERROR_HU) ** 2, 3)
        for _ in range(2):  # the weight depends on the remaining difference, which the first pass reduces
            difference = lr - self.forward(hr)
            slices = zip(lr.flatten(0, -3), difference.flatten(0, -3), strict=True)
            weight = torch.stack([measurement_weight(x, d, noise_hu) for x, d in slices])
            hr = hr + self.pinv(weight.reshape(lr.shape) * difference, damping)
        return hr

    def axis_matrix(self, n_lr: int, axis: int) -> np.ndarray:
        """A's factor along one axis (0: z), shape (n_lr, n_lr * scale[axis])."""
        if self.kind == "bicubic" and axis > 0:
            return resize_matrix(n_lr * self.scale[axis], n_lr)
        if axis == 0:
            return _scanner_axis(n_lr, self.scale[0], self.slice_fwhm, self.slice_thickness)
        return _scanner_axis(n_lr, self.scale[axis], self.psf_fwhm if self.scale[axis] > 1 else 0.0)

    def _sides(self, image: torch.Tensor, divisor: tuple[int, int, int] = (1, 1, 1)) -> list[tuple[int, int, int]]:
        """(length, scale, axis number) of each axis on which this operator acts."""
        first = 0 if self.scale[0] > 1 else 1
        sides = list(zip(image.shape[first - 3 :], divisor[first:], range(first, 3), strict=True))
        for n, s, _ in sides:
            if n % s:
                raise UhrctError(
                    f"shape {tuple(image.shape)} is not a multiple of the scale {self.scale}; crop it first"
                )
        return sides

    def _apply(self, image: torch.Tensor, matrices: tuple[np.ndarray, ...]) -> torch.Tensor:
        *along_z, rows, columns = (as_tensor(m, image) for m in matrices)
        image = apply_in_plane(image, rows, columns)
        return apply_along_z(image, along_z[0]) if along_z else image


def sharpened(lr: torch.Tensor, share: float, *, transposed: bool = False) -> torch.Tensor:
    """An edge-enhancing kernel on LR slices (..., y, x): (1 + share) x - share G x, G a blur by one pixel."""
    if not share:
        return lr
    blurs = (gaussian_matrix(n, 1.0) for n in lr.shape[-2:])
    rows, columns = (as_tensor(g.T if transposed else g, lr) for g in blurs)
    return lr + share * (lr - apply_in_plane(lr, rows, columns))


def unsharpened(lr: torch.Tensor, share: float) -> torch.Tensor:
    """Inverse of `sharpened`, to twelve digits."""
    if not share:
        return lr
    rows, columns = (as_tensor(gaussian_matrix(n, 1.0), lr) for n in lr.shape[-2:])
    q = share / (1 + share)  # G is a mean, so each step multiplies the error by at most q
    out = lr
    for _ in range(math.ceil(math.log(1e-12) / math.log(q))):
        out = (1 - q) * lr + q * apply_in_plane(out, rows, columns)
    return out


@lru_cache(maxsize=256)
def _scanner_axis(n_lr: int, scale: int, fwhm_lr: float, width: float = 1.0) -> np.ndarray:
    blur = gaussian_matrix(n_lr * scale, fwhm_lr * scale / FWHM_PER_SIGMA)
    return average_matrix(n_lr, scale, width) @ blur


@lru_cache(maxsize=32)
def _right_inverse(acquisition: Acquisition, n_lr: int, axis: int, damping: float = 0.0) -> np.ndarray:
    matrix = acquisition.axis_matrix(n_lr, axis)
    if acquisition.slice_thickness > 1 and axis == 0:
        # overlapping slices hardly measure the highest frequencies along z: an exact inverse would amplify noise
        return np.linalg.pinv(matrix, rcond=0.05)
    inverse = np.linalg.solve(matrix @ matrix.T + damping * np.eye(n_lr), matrix).T
    inverse[np.abs(inverse) < 1e-15] = 0  # denormal numbers in float32, which make a product ten times slower
    return inverse


def correlated_noise(shape: tuple[int, ...], fwhm_px: float, g: torch.Generator) -> torch.Tensor:
    """N(0, 1) noise (..., y, x), filtered in plane by a Gaussian of `fwhm_px` pixels (0: white)."""
    import torch

    noise = torch.randn(shape, generator=g)
    if not fwhm_px:
        return noise
    rows, columns = (gaussian_matrix(n, round(fwhm_px / FWHM_PER_SIGMA, 4)) for n in shape[-2:])
    noise = apply_in_plane(noise, as_tensor(rows, noise), as_tensor(columns, noise))
    middle_row, middle_column = rows[len(rows) // 2], columns[len(columns) // 2]
    return noise / float((middle_row**2).sum() * (middle_column**2).sum()) ** 0.5


def fwhm_of_correlation(at_one_pixel: float) -> float:
    """FWHM in pixels of the Gaussian filter that makes noise of this autocorrelation at one pixel from white noise.

    Example
    -------
    >>> round(fwhm_of_correlation(0.65), 1)
    1.8
    """
    if at_one_pixel <= 0.05:  # narrower filters are the identity on a grid
        return 0.0
    return float(FWHM_PER_SIGMA / math.sqrt(-4 * math.log(at_one_pixel)))


def noise_sigma_hu(image: torch.Tensor) -> torch.Tensor:
    """Standard deviation (HU) of a CT slice's noise, robust to its edges.

    The second difference along both axes is zero on planes and small on most edges. Its median absolute value over
    tissue and lung gives sigma. Air outside the body is left out, because reconstruction clips it. The noise is assumed
    to be white.

    Parameters
    ----------
    image : (y, x), HU

    Notes
    -----
    After Immerkaer, "Fast noise variance estimation", doi 10.1006/cviu.1996.0060, with a median instead of a mean.
    """
    import torch

    if min(image.shape) < 3:
        return torch.zeros((), device=image.device)
    d = image.double()
    d = d[2:] - 2 * d[1:-1] + d[:-2]
    d = d[:, 2:] - 2 * d[:, 1:-1] + d[:, :-2]
    inside = image[1:-1, 1:-1] > -970
    d = d[inside] if inside.any() else d.flatten()
    return (d.abs().median() / 0.6745 / 6).to(image.dtype)


def measurement_weight(
    lr: torch.Tensor, difference: torch.Tensor, noise_hu: float = 0.0, window_px: int = 5
) -> torch.Tensor:
    """Share of the difference x - A y to correct at each LR voxel: signal / (signal + noise variance), in [0, 1].

    The local mean square of the difference (window of `window_px` pixels) is the sum of the image's error and the
    scan's noise. Subtracting the noise gives the error. The weight is 0 where the image agrees within the noise
    (Morozov's discrepancy principle: a closer agreement would copy noise), and 1 for a scan without noise.

    Parameters
    ----------
    lr : (y, x), HU: the measurement x;  difference : (y, x), HU: x - A y
    noise_hu : float
        Known standard deviation of the noise. `noise_sigma_hu` assumes white noise and underestimates smooth noise.
    """
    import torch
    import torch.nn.functional as F

    half = window_px // 2
    square = F.pad(difference[None, None].double() ** 2, (half, half, half, half), mode="replicate")
    local = F.avg_pool2d(square, window_px, 1)[0, 0]
    noise_variance = noise_sigma_hu(lr).double().clamp(min=noise_hu) ** 2
    if float(noise_variance) == 0:
        return torch.ones_like(lr)
    return ((local - noise_variance).clamp(min=0) / local.clamp(min=1e-6)).to(lr.dtype)
