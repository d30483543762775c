"""Images of other libraries, arrays and paths as volumes, and results as images of the same kind."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.exchange import geometry_of
from uhrct.core.hu import as_hu
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
    array = isinstance(image, np.ndarray)
    if not array and (spacing_mm is not None or affine is not None):
        raise UhrctError("`spacing_mm` and `affine` are for arrays; other images know their place")
    if isinstance(image, Volume):
        return image, lambda result: result
    if isinstance(image, str | os.PathLike):
        return io.read(image), lambda result: result
    if array:
        return _from_array(image, spacing_mm, affine), lambda result: _to_array(result, image.dtype)
    library = type(image).__module__.partition(".")[0]
    if library == "nibabel" and hasattr(image, "affine"):
        volume = Volume.from_nibabel(image)
        if np.asanyarray(image.dataobj).dtype.kind == "f":  # as every image that was made with get_fdata
            volume = replace(volume, hu=volume.hu.astype(np.float32))
        return volume, Volume.to_nibabel
    if library == "SimpleITK":
        return Volume.from_sitk(image), Volume.to_sitk
    raise UhrctError(
        f"`image` is a {type(image).__name__}; give a Volume, a path, an image of nibabel or SimpleITK, or an array"
    )


def _from_array(array: np.ndarray, spacing_mm: Any, affine: Any) -> Volume:
    if (spacing_mm is None) == (affine is None):
        raise UhrctError("`image` is an array without a place; give `spacing_mm` (z, y, x) or `affine`, one of them")
    if array.ndim != 3:
        raise InputRefused(f"`image` has {array.ndim} dimensions; give an array (z, y, x)")
    try:
        hu = array.astype(np.float32) if array.dtype.kind == "f" else as_hu(array)
    except UhrctError as error:
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
    return Volume(hu, *geometry_of(affine))


def _looks_like_xyz(shape: tuple[int, ...]) -> bool:
    """Whether the last axis looks like the slices: far shorter than both others, or beside two equal ones.

    >>> _looks_like_xyz((512, 512, 600)), _looks_like_xyz((90, 100, 40)), _looks_like_xyz((40, 512, 512))
    (True, True, False)
    """
    first, second, last = shape
    return 2 * last < min(first, second) or (first == second != last)


def _to_array(result: Volume, dtype: np.dtype) -> np.ndarray:
    """Integers in the type of the input where they fit."""
    hu = result.hu
    if dtype.kind == "f" or hu.min() < np.iinfo(dtype).min or hu.max() > np.iinfo(dtype).max:
        return hu
    return hu.astype(dtype)
