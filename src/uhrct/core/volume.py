"""A CT volume: Hounsfield units on a regular grid with a position in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from uhrct.core import exchange
from uhrct.core.arguments import number, shown
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import as_held
from uhrct.core.slices import Slices

Vector = exchange.Vector


@dataclass(frozen=True, eq=False)
class Volume:
    """Hounsfield units on a regular grid with a position in the patient.

    Parameters
    ----------
    hu : array, shape (z, y, x)
        HU. Held as int16 or float32: other integers become int16 if all fit, else float32; other floating-point types
        become float32.
    spacing_mm : (z, y, x)
        Distance between voxel centres in mm, positive.
    origin_mm : (L, P, S)
        Patient coordinates (DICOM LPS, mm) of the *centre* of voxel (0, 0, 0).
    direction : array, shape (3, 3)
        Column i is the unit LPS vector along array axis i (z, y, x), so that the centre of voxel k lies
        at ``origin_mm + direction @ (spacing_mm * k)``. For an axial scan whose first slice is nearest to the feet, it
        is the matrix that reverses the order of axes.
    slice_thickness_mm : float or None
        Nominal thickness of the acquired slices, if known. It may differ from the distance between them.
    meta : dict
        Data that a format carries from input to output (for DICOM: the source headers). Not interpreted here, except
        that `repr` shows the name under "format".

    Raises
    ------
    UhrctError
        If a spacing is not positive and finite.
    InputRefused
        If the array is not 3D or holds no real numbers, or directions are not orthonormal.

    Example
    -------
    >>> v = Volume(np.zeros((2, 3, 4), np.int16), spacing_mm=(2.0, 0.7, 0.7))
    >>> fine = v.refined_grid((1, 2, 2))
    >>> fine.shape, fine.spacing_mm, fine.origin_mm
    ((2, 6, 8), (2.0, 0.35, 0.35), (-0.175, -0.175, 0.0))
    """

    hu: np.ndarray
    spacing_mm: Vector
    origin_mm: Vector = (0.0, 0.0, 0.0)
    direction: np.ndarray = field(default_factory=lambda: np.eye(3)[::-1].copy())
    slice_thickness_mm: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.hu, np.ndarray | Slices):
            raise UhrctError(f"`hu` is a {type(self.hu).__name__}; give a numpy array (z, y, x)")
        if self.hu.ndim != 3:
            raise InputRefused(f"a volume has 3 dimensions (z, y, x), this array has {self.hu.ndim}")
        if self.hu.dtype not in (np.int16, np.float32):
            try:
                object.__setattr__(self, "hu", as_held(self.hu))
            except InputRefused as error:
                raise InputRefused(f"`hu`: {error}") from None
        # plain floats, so that numbers of numpy end in no file and no message
        object.__setattr__(self, "spacing_mm", _three("spacing_mm", self.spacing_mm))
        object.__setattr__(self, "origin_mm", _three("origin_mm", self.origin_mm))
        object.__setattr__(self, "direction", np.asarray(self.direction, float))
        if self.slice_thickness_mm is not None:
            thickness = number("slice_thickness_mm", self.slice_thickness_mm, 0)
            object.__setattr__(self, "slice_thickness_mm", thickness or None)
        _check_geometry(self.spacing_mm, self.direction)

    def __repr__(self) -> str:
        """One line without voxels and without `meta`, which may hold headers with patient data."""
        size, spacing = (" x ".join(format(v, "g") for v in values) for values in (self.shape, self.spacing_mm))
        source = f", from {self.meta['format']}" if "format" in self.meta else ""
        return f"Volume({size} voxels of {spacing} mm (z, y, x), {self.hu.dtype}{source})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (z, y, x)."""
        z, y, x = self.hu.shape
        return z, y, x

    @property
    def affine(self) -> np.ndarray:
        """The 4 x 4 matrix from voxel numbers (x, y, z) to mm in RAS, as nibabel has it."""
        return exchange.affine_of(self.spacing_mm, self.origin_mm, self.direction)

    @classmethod
    def from_nibabel(cls, image: Any) -> Volume:
        """A volume from a nibabel image; see `uhrct.core.exchange`."""
        return cls(*exchange.from_nibabel(image))

    def to_nibabel(self) -> Any:
        """A nibabel image with the voxels and geometry of this volume."""
        return exchange.to_nibabel(self.hu, self.affine)

    @classmethod
    def from_sitk(cls, image: Any) -> Volume:
        """A volume from a SimpleITK image; see `uhrct.core.exchange`."""
        return cls(*exchange.from_sitk(image))

    def to_sitk(self) -> Any:
        """A SimpleITK image with the voxels and geometry of this volume."""
        return exchange.to_sitk(self.hu, self.spacing_mm, self.origin_mm, self.direction)

    @property
    def grid(self) -> Grid:
        """The grid without voxels."""
        return Grid(self.shape, self.spacing_mm, self.origin_mm, self.direction, self.slice_thickness_mm)

    def refined_grid(self, scale: tuple[int, int, int]) -> Grid:
        """`Grid.refined` of this volume's grid."""
        return self.grid.refined(scale)

    def on_grid(self, grid: Grid, hu: np.ndarray) -> Volume:
        """A volume with the voxels `hu` on `grid`. `meta` is kept."""
        if hu.shape != grid.shape:
            raise UhrctError(f"array of shape {hu.shape} does not fit a grid of shape {grid.shape}")
        return replace(
            self,
            hu=hu,
            spacing_mm=grid.spacing_mm,
            origin_mm=grid.origin_mm,
            direction=grid.direction,
            slice_thickness_mm=grid.slice_thickness_mm,
        )


@dataclass(frozen=True, eq=False)
class Grid:
    """Positions of voxels: shape, spacing, origin, direction. Conventions as in `Volume`."""

    shape: tuple[int, int, int]
    spacing_mm: Vector
    origin_mm: Vector = (0.0, 0.0, 0.0)
    direction: np.ndarray = field(default_factory=lambda: np.eye(3)[::-1].copy())
    slice_thickness_mm: float | None = None

    def refined(self, scale: tuple[int, int, int]) -> Grid:
        """Divide every voxel into scale[0] x scale[1] x scale[2] equal parts, so that voxel *edges* coincide.

        The physical extent stays. The origin, a voxel centre, moves by half the change of spacing. Slices divided along
        z are as thick as their new spacing, even if the original slices overlapped.
        """
        shape = tuple(n * s for n, s in zip(self.shape, scale, strict=True))
        spacing = tuple(d / s for d, s in zip(self.spacing_mm, scale, strict=True))
        return self._with(shape, spacing, self._thickness(scale[0] > 1, spacing[0]))

    def coarsened(self, scale: tuple[int, int, int]) -> Grid:
        """Join scale[0] x scale[1] x scale[2] voxels into one. Inverse of `refined`.

        Raises
        ------
        UhrctError
            If a side is not a multiple of its scale.
        """
        for n, s in zip(self.shape, scale, strict=True):
            if n % s:
                raise UhrctError(f"shape {self.shape} is not a multiple of scale {scale}; crop it first")
        shape = tuple(n // s for n, s in zip(self.shape, scale, strict=True))
        spacing = tuple(d * s for d, s in zip(self.spacing_mm, scale, strict=True))
        # joined slices reach from the outer face of the first to the outer face of the last
        joined = (self.slice_thickness_mm or 0) + (scale[0] - 1) * self.spacing_mm[0]
        return self._with(shape, spacing, self._thickness(scale[0] > 1, joined))

    def resampled(self, spacing_mm: Vector) -> Grid:
        """The grid with exactly this spacing and the same first corner. It ends within half a voxel of this grid's end.

        Example
        -------
        >>> Grid((4, 10, 10), (2.0, 0.7, 0.7)).resampled((2.0, 0.5, 0.5)).shape
        (4, 14, 14)
        """
        _check_geometry(spacing_mm, self.direction)
        shape = tuple(max(1, round(e / s)) for e, s in zip(self.extent_mm, spacing_mm, strict=True))
        moved = abs(spacing_mm[0] / self.spacing_mm[0] - 1) > 1e-6
        return self._with(shape, spacing_mm, self._thickness(moved, spacing_mm[0]))

    def _thickness(self, changed: bool, becomes_mm: float) -> float | None:
        return becomes_mm if changed and self.slice_thickness_mm is not None else self.slice_thickness_mm

    def _with(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...], thickness_mm: float | None) -> Grid:
        half_step = (np.asarray(spacing_mm) - np.asarray(self.spacing_mm)) / 2
        origin = np.asarray(self.origin_mm) + self.direction @ half_step
        return Grid(
            (shape[0], shape[1], shape[2]),
            (spacing_mm[0], spacing_mm[1], spacing_mm[2]),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            self.direction,
            thickness_mm,
        )

    @property
    def extent_mm(self) -> Vector:
        """Physical size along (z, y, x), from outer edge to outer edge."""
        a, b, c = (n * d for n, d in zip(self.shape, self.spacing_mm, strict=True))
        return a, b, c

    @property
    def corner_mm(self) -> Vector:
        """Patient coordinates (LPS) of the outer corner of voxel (0, 0, 0)."""
        c = np.asarray(self.origin_mm) - self.direction @ (np.asarray(self.spacing_mm) / 2)
        return float(c[0]), float(c[1]), float(c[2])


def _three(name: str, values: Any) -> Vector:
    try:
        a, b, c = (number(name, value) for value in values)
    except (TypeError, ValueError, UhrctError):
        kind = "positive" if name == "spacing_mm" else "finite"
        raise UhrctError(f"`{name}` is {shown(values)}; give three {kind} numbers in mm") from None
    return a, b, c


def _check_geometry(spacing_mm: Vector, direction: np.ndarray) -> None:
    if len(spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise UhrctError(f"voxel spacing must be three positive numbers in mm, not {spacing_mm}")
    if direction.shape != (3, 3) or not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise InputRefused("axis directions are not orthonormal (gantry tilt or a sheared affine); resample first")
