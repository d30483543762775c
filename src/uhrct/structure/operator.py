"""The imaging enhancement operator: an image in HU becomes a structure map in [0, 1], comparable between scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import cast

import torch
from torch import Tensor

from uhrct.core.arguments import number
from uhrct.core.errors import UhrctError
from uhrct.structure.eigenvalues import eigenvalues_2x2, eigenvalues_3x3
from uhrct.structure.gaussian import hessian_2d, hessian_3d
from uhrct.structure.vesselness import frangi, jerman, v_c

KINDS = ("vc", "frangi", "jerman")
POLARITIES = ("bright", "dark")
LARGEST_SIGMA_MM = 50

Spacing = Sequence[float] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class StructureOperator:
    """V_C, Frangi's or Jerman's vesselness with fixed constants in HU and scales in mm. It is differentiable.

    At each scale it computes H_ij = sigma² (I * d²G / dx_i dx_j), the eigenvalues in closed form, and the formula of
    `kind` (`uhrct.structure.vesselness`). The result is the maximum over scales. Nothing is divided by the image's own
    maximum, so two maps can be compared. The sampling does not matter as long as the grid resolves the scale.

    Parameters
    ----------
    kind : "vc", "frangi" or "jerman"
        V_C responds to lines and discs (in 3D: tubes and balls), Frangi to lines, Jerman to all with one strength.
    sigma_mm : tuple of float
        Scales, in any order.
    contrast_hu : float
        The constant c of the gate: half height at an eigenvalue of 1.18 c. Quantum noise must stay well below.
    polarity : "bright" or "dark"
        Vessels, nodules and fissures against lung; or airways.
    ndim : 2 or 3
        Slice by slice, or volumes.

    Raises
    ------
    UhrctError
        For a setting out of range, or (on call) a shape or a spacing that does not fit.

    References
    ----------
    V_C: Chu et al., MICCAI 2023, doi 10.1007/978-3-031-43999-5_25, eqs. 2-5. Frangi et al., MICCAI 1998,
    doi 10.1007/BFb0056195. Jerman et al., IEEE TMI 2016, doi 10.1109/TMI.2016.2550102.

    Example
    -------
    >>> y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    >>> vessel = -850 + 800 * torch.exp(-0.5 * ((x - 32) / 2) ** 2)  # runs along y, 800 HU over lung
    >>> structure = StructureOperator("vc")(vessel, spacing_mm=(0.7, 0.7))
    >>> structure.shape, f"{structure[32, 32]:.2f}", f"{structure[32, 8]:.2f}"
    (torch.Size([64, 64]), '0.99', '0.00')
    """

    kind: str = "vc"
    sigma_mm: tuple[float, ...] = (0.7, 1.2, 2.0)  # vessels up to 5 mm wide
    contrast_hu: float = 100.0  # 40 HU of noise gives less than 0.1
    polarity: str = "bright"
    ndim: int = 2
    k1: float = 19 / 8  # V_C: a blob gives (k1 + 1)(k2 + 1) / 27 = 1, like a line
    k2: float = 7.0  # V_C: a line gives (k2 + 1) / 8 = 1
    alpha: float = 0.5  # Frangi 1998, section 2.2: plate against line (3D)
    beta: float = 0.5  # Frangi 1998, section 2.2: blob against line
    tau: float = 0.75  # Jerman 2016: the middle of the published 0.5 ... 1
    strongest: float = 8.0  # Jerman's image maximum, in contrast_hu: same half height as the gate

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UhrctError(f"structure operator {self.kind!r}: need one of {', '.join(KINDS)}")
        if self.polarity not in POLARITIES:
            raise UhrctError(f"polarity {self.polarity!r}: need one of {', '.join(POLARITIES)}")
        if self.ndim not in (2, 3):
            raise UhrctError(f"ndim is {self.ndim}, need 2 (slices) or 3 (volumes)")
        object.__setattr__(self, "sigma_mm", tuple(float(s) for s in self.sigma_mm))  # JSON gives lists
        if not self.sigma_mm or not all(0 < s <= LARGEST_SIGMA_MM for s in self.sigma_mm):
            raise UhrctError(f"sigma_mm is {self.sigma_mm}, need one or more scales above 0, to {LARGEST_SIGMA_MM} mm")
        for name in ("k1", "k2", "alpha", "beta", "tau", "strongest"):
            number(name, getattr(self, name), 0, 1e6)
        if not (math.isfinite(self.contrast_hu) and self.contrast_hu > 0):
            raise UhrctError(f"contrast_hu is {self.contrast_hu}, need more than 0 HU")

    def __call__(self, hu: Tensor, spacing_mm: Spacing) -> Tensor:
        """Structure map of an image.

        Parameters
        ----------
        hu : Tensor, (..., y, x), or (..., z, y, x) for ndim = 3
            Image in HU, of any floating dtype.
        spacing_mm : tuple of ndim floats, or (ndim = 2) a sequence of such tuples
            Distance of samples in the order of the axes. A sequence holds one for each item of the first
            dimension of a (B, y, x) or (B, C, y, x) batch.

        Returns
        -------
        Tensor, shaped like `hu`, in [0, 1]
            float64 for float64, float32 for anything else, also inside autocast.
        """
        spacings = self.spacings(hu, spacing_mm)
        with torch.autocast(hu.device.type, enabled=False):  # bf16 has too few bits for HU
            image = hu if hu.dtype == torch.float64 else hu.float()
            # An offset changes no derivative, but -1000 HU of lung would cost digits.
            image = image - image.detach().mean(dim=tuple(range(-self.ndim, 0)), keepdim=True)
            strongest = self._at_scale(image, self.sigma_mm[0], spacings)
            for sigma in self.sigma_mm[1:]:
                strongest = torch.maximum(strongest, self._at_scale(image, sigma, spacings))
        return strongest

    def _at_scale(self, image: Tensor, sigma_mm: float, spacings: list[tuple[float, ...]]) -> Tensor:
        sigma_px = [[sigma_mm / s for s in axis] for axis in zip(*spacings, strict=True)]
        lambdas: tuple[Tensor, ...]
        if self.ndim == 2:
            h2 = hessian_2d(self.sign * image, sigma_px[0], sigma_px[1])
            lambdas = eigenvalues_2x2(*h2)
        else:
            h3 = hessian_3d(self.sign * image, sigma_px[0][0], sigma_px[1][0], sigma_px[2][0])
            lambdas = eigenvalues_3x3(*h3)
        return self.response(lambdas)

    @property
    def sign(self) -> float:
        """Of the image whose structures have large positive eigenvalues."""
        return -1.0 if self.polarity == "bright" else 1.0

    def response(self, lambdas: Sequence[Tensor]) -> Tensor:
        """The map of one scale from ascending eigenvalues in HU of `sign` times the image."""
        if self.kind == "vc":
            return v_c(lambdas, c=self.contrast_hu, k1=self.k1, k2=self.k2)
        if self.kind == "frangi":
            return frangi(lambdas, c=self.contrast_hu, alpha=self.alpha, beta=self.beta)
        return jerman(lambdas, floor=self.tau * self.strongest * self.contrast_hu)

    def spacings(self, hu: Tensor, spacing_mm: Spacing) -> list[tuple[float, ...]]:
        """The checked spacings: one for all items, or one for each."""
        if not hu.is_floating_point() or hu.ndim < self.ndim or hu.numel() == 0:
            raise UhrctError(
                f"image of shape {tuple(hu.shape)} and {hu.dtype}: "
                f"need a floating image of {self.ndim} dimensions or more"
            )
        if len(spacing_mm) == 0:
            raise UhrctError(f"spacing_mm is empty, need {self.ndim} distances above 0 mm")
        per_item = not isinstance(spacing_mm[0], Real)
        rows = cast("Sequence[Sequence[float]]", spacing_mm if per_item else [spacing_mm])
        spacings = [tuple(float(v) for v in row) for row in rows]
        for spacing in spacings:
            if len(spacing) != self.ndim or not all(math.isfinite(v) and v > 0 for v in spacing):
                raise UhrctError(f"spacing_mm is {spacing}, need {self.ndim} distances above 0 mm")
        if per_item and (self.ndim != 2 or hu.ndim not in (3, 4) or hu.shape[0] != len(spacings)):
            raise UhrctError(
                f"{len(spacings)} spacings for an image of shape {tuple(hu.shape)}: "
                "need one for each item of a (B, y, x) or (B, C, y, x) batch of slices"
            )
        return [spacings[0]] if len(set(spacings)) == 1 else spacings
