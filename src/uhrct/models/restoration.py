"""The restoration of one slice as one graph, which other programs can run: HU and numbers in, fine HU out.

`Model` prepares its inputs with matrices that depend on size and spacing. Here the same steps are made of operations
for any size and spacing: interpolation as one convolution, the structure map with matrices that are made from the
spacing inside the graph.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.hu import PADDING_HU
from uhrct.models.dssp import from_channels, to_channels
from uhrct.models.model import Model, normalised
from uhrct.physics.field_of_view import continued_padding
from uhrct.physics.resampling import resize_matrix
from uhrct.physics.scan_properties import SILENT_HU, ScanProperties
from uhrct.structure.eigenvalues import eigenvalues_2x2
from uhrct.structure.gaussian import TRUNCATE

#: what a restoration is told unless the caller says more: blur and noise are unknown, and most noise shall go
UNKNOWN = ScanProperties(psf_known=False, noise_known=False, denoise=0.75)
#: scan properties that are inputs, in the units of `ScanProperties`; 1 and 0 stand for true and false
PROPERTIES = tuple(vars(UNKNOWN))
#: spacing in mm if the caller gives none; used by the structure map
USUAL_SPACING_MM = (0.7, 0.7)
#: largest radius of a Gaussian in fine pixels. It serves pixels down to 0.1 mm.
LARGEST_RADIUS = 96


class Restoration(nn.Module):
    """The posterior mean of one slice, before it is made consistent with the scan and rounded.

    Padding (-1500 HU and below) keeps its values in the result; tissue that its edge cuts is continued. Two steps of
    `uhrct upscale` are missing here: it interpolates the air around the body, and it finds a circular field of view
    that is filled with another constant.

    Parameters
    ----------
    model : Model
        It needs a mean network, and a structure operator on slices.

    Raises
    ------
    UhrctError
        If the model has no mean network.

    Example
    -------
    >>> from uhrct.models.model import ModelConfig
    >>> model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval()
    >>> Restoration(model)(torch.full((1, 1, 16, 20), -1000.0)).shape
    torch.Size([1, 1, 32, 40])
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.mean is None:
            raise UhrctError("these weights have no network for the posterior mean; take others")
        config = model.config
        self.network = model.mean
        self.scale, self.context = config.scale, config.context
        self.residual_sd_hu = config.residual_sd_hu
        self.operator = model.operator
        #: names of the inputs in the order of `forward`; the network does not use the others
        self.inputs = ["hu", *(PROPERTIES if config.properties else ())]
        if self.network.structure is not None:
            self.inputs.append("spacing_mm")
        self.register_buffer("taps", _taps(config.scale, config.slices), persistent=False)
        self.taps: Tensor

    def forward(
        self,
        hu: Tensor,
        psf_fwhm: Tensor | None = None,
        sharpening: Tensor | None = None,
        noise_hu: Tensor | None = None,
        slice_thickness: Tensor | None = None,
        increment_mm: Tensor | None = None,
        noise_correlation: Tensor | None = None,
        psf_known: Tensor | None = None,
        noise_known: Tensor | None = None,
        denoise: Tensor | None = None,
        spacing_mm: Tensor | None = None,
    ) -> Tensor:
        """Fine slices in HU, (n, sz, y sy, x sx).

        Parameters
        ----------
        hu : (n, 2 context + 1, y, x), each slice in the middle of its neighbours
        psf_fwhm to denoise : one number each, as in `ScanProperties`; None: as in `UNKNOWN`
        spacing_mm : (2,), of the pixels along y and x
        """
        given = [psf_fwhm, sharpening, noise_hu, slice_thickness, increment_mm, noise_correlation, psf_known]
        given += [noise_known, denoise]
        properties = {
            name: torch.tensor(float(getattr(UNKNOWN, name))) if value is None else value
            for name, value in zip(PROPERTIES, given, strict=True)
        }
        middle = hu[:, self.context, None]
        hu = continued_padding(hu.float().flatten(0, 1)).reshape(hu.shape)
        up = F.conv2d(F.pad(hu, (2, 2, 2, 2), mode="replicate"), self.taps)  # the fine voxels of a pixel are channels
        prior = None
        if self.network.structure is not None:
            spacing = torch.tensor(USUAL_SPACING_MM) if spacing_mm is None else spacing_mm
            prior = self._prior(up, spacing.to(hu.device))
        residual = self.network(normalised(hu), prior, properties=conditions(properties)[None].to(hu.device))[0]
        # where the scan has padding, so has the result
        fine = torch.where(middle <= PADDING_HU, middle, up + residual * self.residual_sd_hu)
        return from_channels(fine, *self.scale[1:])

    def _prior(self, up: Tensor, spacing_mm: Tensor) -> Tensor:
        """The structure map of the interpolation, each fine slice by itself; channels as those of `up`."""
        _, sy, sx = self.scale
        fine = from_channels(up, sy, sx)
        # an offset changes no derivative, but -1000 HU of lung would cost digits
        fine = self.operator.sign * (fine - fine.mean((-2, -1), keepdim=True))
        sigma_mm = torch.tensor(self.operator.sigma_mm, dtype=torch.float64)
        r0, r1, r2 = gaussian_matrices(fine.shape[-2], sigma_mm / (spacing_mm[0].double() / sy)).to(fine)
        c0, c1, c2 = gaussian_matrices(fine.shape[-1], sigma_mm / (spacing_mm[1].double() / sx)).to(fine).mT
        hessian = (r2 @ (fine @ c0), r1 @ (fine @ c1), r0 @ (fine @ c2))
        return to_channels(self.operator.response(eigenvalues_2x2(*hessian)).amax(0), sy, sx)


def conditions(properties: dict[str, Tensor]) -> Tensor:
    """`ScanProperties.conditions` for tensors: the numbers as a network gets them.

    Example
    -------
    >>> told = {name: torch.tensor(float(value)) for name, value in vars(ScanProperties(noise_hu=20.0)).items()}
    >>> bool(torch.allclose(conditions(told), torch.tensor(ScanProperties(noise_hu=20.0).conditions())))
    True
    """
    p = properties
    psf, noise = p["psf_known"], p["noise_known"]
    loud = (p["noise_hu"] >= SILENT_HU).to(noise.dtype)
    return torch.stack(
        [
            psf * (p["psf_fwhm"] - 0.6) / 0.4,
            psf * p["sharpening"] / 0.5,
            psf,
            noise * torch.log(1 + p["noise_hu"] / 10),
            noise * loud * p["noise_correlation"],
            noise,
            p["denoise"],
            p["slice_thickness"] - 1,
            torch.log(p["increment_mm"].clamp(min=0.1) / 2.5) / (2 * math.log(2)),
        ]
    )


def told(scan: ScanProperties) -> dict[str, np.ndarray]:
    """The inputs for scan properties by name, float32."""
    return {name: np.asarray(getattr(scan, name), np.float32) for name in PROPERTIES}


def gaussian_matrices(n: int, sigma_px: Tensor) -> Tensor:
    """`uhrct.structure.gaussian.derivative_matrices` of several sigmas, made of operations that a graph can hold.

    Parameters
    ----------
    n : samples of the axis
    sigma_px : (s,) float64

    Returns
    -------
    Tensor, (3, s, 1, 1, n, n), float64
        Orders 0, 1 and 2 of each sigma.

    Example
    -------
    >>> from uhrct.structure.gaussian import derivative_matrices
    >>> made = gaussian_matrices(20, torch.tensor([0.7, 1.7]).double())[:, 1, 0, 0]
    >>> bool(torch.allclose(made, derivative_matrices(20, 1.7, made.device, made.dtype), atol=1e-6))
    True
    """
    reach = LARGEST_RADIUS + 1
    sigma = sigma_px[:, None]
    x = torch.arange(-reach, reach + 1, dtype=torch.float64)
    radius = torch.ceil(TRUNCATE * sigma).clamp(1, LARGEST_RADIUS)
    g = torch.exp(-0.5 * (x / sigma) ** 2) * (x.abs() <= radius)  # 0 at both ends of x
    g = g / g.sum(1, keepdim=True)
    g1 = x * g
    g1 = sigma * g1 / (x * g1).sum(1, keepdim=True)
    g2 = (x**2 - (x**2 * g).sum(1, keepdim=True)) * g
    g2 = sigma**2 * g2 / (0.5 * x**2 * g2).sum(1, keepdim=True)
    kernels = torch.stack([g, g1, g2])[:, :, None, None]
    i = torch.arange(n)
    # outside of the line its edge samples are repeated: they get all weights up to, or from, some offset
    before = kernels.cumsum(-1)
    left = before[..., (-i - 1).clamp(min=-reach) + reach]
    right = before[..., -1:] - before[..., (n - 1 - i).clamp(max=reach) + reach]
    inside = kernels[..., (i[None] - i[:, None]).clamp(-reach, reach) + reach]
    return inside + left[..., None] * (i == 0) + right[..., None] * (i == n - 1)


def _taps(scale: tuple[int, int, int], slices: int) -> Tensor:
    """Weights of the cubic interpolation, (sz sy sx, slices, 5, 5): each fine voxel from the pixels around its own."""
    sz, sy, sx = scale
    z = np.eye(slices)[slices // 2 : slices // 2 + 1] if sz == 1 else _middle(slices, sz)
    weights = np.einsum("az,by,cx->abczyx", z, _middle(5, sy), _middle(5, sx))
    return torch.from_numpy(weights.reshape(sz * sy * sx, slices, 5, 5)).float()


def _middle(n: int, scale: int) -> np.ndarray:
    """Rows of the interpolation for the fine samples inside the middle one of n samples, (scale, n)."""
    if scale == 1:
        return np.eye(n)[n // 2 : n // 2 + 1]
    return resize_matrix(n, n * scale)[n // 2 * scale : (n // 2 + 1) * scale]
