"""Images of other libraries, arrays and paths as volumes, and results as images of the same kind."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core import exchange
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import as_held
from uhrct.core.volume import Volume


def as_volume(image: Any, spacing_mm: Any = None, affine: Any = None) -> tuple[Volume, Callable[[Volume], Any]]:
    """(image as a volume, function that turns a result into the kind of `image`).

    Parameters
    ----------
    image : Volume, str or Path, nibabel image, SimpleITK image, or array (z, y, x)
    spacing_mm, affine : place of an array; exactly one of them for an array, none for the others

    Raises
    ------
    UhrctError
        If the image is none of these, or its place is missing or given twice. If its voxels or axes cannot be
        processed: `InputRefused`, as for a file.

    Example
    -------
    >>> volume, back = as_volume(np.zeros((1, 4, 4), np.uint8), spacing_mm=(1, 1, 1))
    >>> volume.hu.dtype, back(volume).dtype
    (dtype('int16'), dtype('uint8'))
    """
    kind = f"`image` is a {type(image).__name__}"
    library = type(image).__module__.partition(".")[0]
    if isinstance(image, list | tuple):
        raise UhrctError(f"{kind}; give an array (z, y, x), such as numpy.asarray(image)")
    if library == "torch":
        raise UhrctError(f"{kind} of torch; give an array (z, y, x), such as image.cpu().numpy()")
    placed = spacing_mm is not None or affine is not None
    if placed and isinstance(image, str | os.PathLike):
        raise UhrctError(
            "`image` is a path, and its file states the spacing; leave `spacing_mm` and `affine` out, or for an .npz "
            "file without spacing give uhrct.read(path, spacing_mm=...)"
        )
    if placed and (isinstance(image, Volume) or library in ("nibabel", "SimpleITK")):
        raise UhrctError(f"{kind}, which states its own spacing; leave `spacing_mm` and `affine` out")
    if isinstance(image, Volume):
        return image, lambda result: result
    if isinstance(image, str | os.PathLike):
        return io.read(image), lambda result: result
    if isinstance(image, np.ndarray):
        return _from_array(image, spacing_mm, affine), lambda result: _in_type(result.hu, image.dtype)
    if library == "nibabel" and hasattr(image, "affine"):
        volume = Volume.from_nibabel(image)
        dtype = np.asanyarray(image.dataobj[:1, :1, :1]).dtype  # with the scaling, which the type in the header lacks
        return volume, lambda result: exchange.to_nibabel(_in_type(result.hu, dtype), result.affine)
    if library == "SimpleITK":
        import SimpleITK as sitk

        volume = Volume.from_sitk(image)
        dtype = sitk.GetArrayViewFromImage(image).dtype
        return volume, lambda result: exchange.to_sitk(
            _in_type(result.hu, dtype), result.spacing_mm, result.origin_mm, result.direction
        )
    raise UhrctError(f"{kind}; give a Volume, a path, an image of nibabel or SimpleITK, or an array")


def _from_array(array: np.ndarray, spacing_mm: Any, affine: Any) -> Volume:
    if spacing_mm is None and affine is None:
        raise UhrctError("`image` is an array without a place; give `spacing_mm` (z, y, x) or `affine`, one of them")
    if spacing_mm is not None and affine is not None:
        raise UhrctError("`spacing_mm` and `affine` exclude each other; give one of them")
    if array.ndim != 3:
        raise InputRefused(f"`image` has {array.ndim} dimensions; give an array (z, y, x)")
    try:
        hu = as_held(array)
    except InputRefused as error:
        raise InputRefused(f"`image`: {error}") from None
    if affine is None:
        return Volume(hu, spacing_mm)
    if _looks_like_xyz(array.shape):
        warnings.warn(
            f"`image` of shape {array.shape} looks like (x, y, z), as nibabel orders axes, but is taken as (z, y, x); "
            "if it comes from nibabel, give image.dataobj transposed (.T), or the nibabel image itself",
            UserWarning,
            stacklevel=4,  # the caller of `uhrct.upscale`
        )
    return Volume(hu, *exchange.geometry_of(affine))


def _looks_like_xyz(shape: tuple[int, ...]) -> bool:
    """Whether the last axis looks like the slices: far shorter than both others, or beside two equal ones.

    >>> _looks_like_xyz((512, 512, 600)), _looks_like_xyz((90, 100, 40)), _looks_like_xyz((40, 512, 512))
    (True, True, False)
    """
    first, second, last = shape
    return 2 * last < min(first, second) or (first == second != last)


def _in_type(hu: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A result for voxels of this type: float32, or whole HU in the same type, or in a larger one if needed."""
    if dtype.kind == "f":
        return hu
    whole = np.rint(hu)
    for wide in (dtype, np.dtype(np.int16), np.dtype(np.int32)):
        if np.iinfo(wide).min <= whole.min() and whole.max() <= np.iinfo(wide).max:
            return whole.astype(wide)
    return whole
