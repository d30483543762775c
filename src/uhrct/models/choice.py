"""Chooses the model for a requested scale or spacing, and the device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from uhrct.core.errors import NothingToDo, UhrctError, WrongArgument
from uhrct.core.volume import Volume
from uhrct.models.model import Model, available_models, model_folder, read_config

#: end of the names of small models
FAST = "-fast"


def load_for_scale(scale: tuple[int, int, int], weights: str | Path | None = None, device: str = "auto") -> Model:
    """Load the model for a scale (z, y, x): that of `folder_for_scale`.

    Raises
    ------
    UhrctError
        If no model has that scale.
    """
    return Model.from_pretrained(folder_for_scale(scale, weights), pick_device(device))


def folder_for_scale(scale: tuple[int, int, int], weights: str | Path | None = None) -> Path:
    """The model for a scale (z, y, x): `weights` (name or folder), else the first shipped one that has it.

    Raises
    ------
    UhrctError
        If no model has that scale. The message lists the scales that exist.

    Example
    -------
    >>> folder_for_scale((1, 4, 4)).name
    'x4'
    """
    served = served_scales(weights)
    for folder, s in served.items():
        if s == scale:
            return folder
    there = ", ".join(f"{f.name} ({scale_word(s)})" for f, s in served.items()) or "none"
    raise UhrctError(f"no weights serve scale {scale_word(scale)}; there are: {there}")


def served_scales(weights: str | Path | None = None, fast: bool = False) -> dict[Path, tuple[int, int, int]]:
    """The folder of `weights`, or of every shipped model of normal size (`fast`: of small size), with its scale."""
    if weights is not None:
        folders = [model_folder(weights)]
    else:
        folders = [folder for folder in available_models() if folder.name.endswith(FAST) == fast]
    return {folder: read_config(folder)[0].scale for folder in folders}


def fast_weights(scale: tuple[int, int, int]) -> str:
    """The name of the small model for a scale.

    Raises
    ------
    UhrctError
        If there is none.

    Example
    -------
    >>> fast_weights((1, 2, 2))
    'x2-fast'
    """
    served = served_scales(fast=True)
    for folder, s in served.items():
        if s == scale:
            return folder.name
    there = ", ".join(scale_word(s) for s in served.values()) or "none"
    raise UhrctError(f"no fast weights serve scale {scale_word(scale)}, only {there}; use quality standard")


def target_spacing(volume: Volume, spacing_mm: float | tuple[float, ...]) -> tuple[float, float, float]:
    """A requested spacing as (z, y, x). One number is the size of the pixels; the slice spacing then stays."""
    try:
        values = tuple(float(v) for v in np.atleast_1d(np.asarray(spacing_mm, float)).ravel())
    except (TypeError, ValueError):
        values = ()
    if len(values) == 1:
        values = (volume.spacing_mm[0], values[0], values[0])
    if len(values) != 3 or not all(np.isfinite(v) and 0 < v < 1e4 for v in values):
        raise UhrctError(f"spacing {spacing_mm}: give one positive number in mm (pixels) or three (z, y, x)")
    return values[0], values[1], values[2]


def nearest_scale(
    have_mm: tuple[float, float, float],
    want_mm: tuple[float, float, float],
    weights: str | Path | None = None,
    fast: bool = False,
) -> tuple[int, int, int]:
    """The available scale nearest to the ratio of two spacings: the smallest sum of |log2| over the axes.

    Raises
    ------
    UhrctError
        If the requested spacing is not finer than the scan's along any axis (`NothingToDo`), or there are no weights.
    """
    ratio = [a / b for a, b in zip(have_mm, want_mm, strict=True)]
    if max(ratio) < 1.01:
        raise NothingToDo(f"spacing {want_mm} mm is nowhere finer than the scan's {have_mm} mm; there is nothing to do")
    served = set(served_scales(weights, fast).values())
    if not served:
        raise UhrctError("no weights are installed; give weights")
    return min(served, key=lambda s: (sum(abs(np.log2(n / r)) for n, r in zip(s, ratio, strict=True)), -s[0]))


def pick_device(name: str) -> torch.device:
    """The device for "auto", "cpu", "cuda", "cuda:1", "xpu" or "mps"; "auto" is CUDA where there is a GPU.

    Raises
    ------
    WrongArgument
        If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    counts["mps"] = int(torch.backends.mps.is_available())
    if kind not in counts or (number and not number.isdecimal()):
        raise WrongArgument(f"device {name!r} is not known; choose auto, cpu, cuda, cuda:N, xpu or mps")
    if not counts[kind]:
        raise WrongArgument(f"device {name}: this machine has no {kind.upper()} device; use cpu")
    if number and int(number) >= counts[kind]:
        raise WrongArgument(f"device {name}: this machine has {counts[kind]} {kind.upper()} device(s), numbers from 0")
    return torch.device(name)


def scale_word(scale: Iterable[int]) -> str:
    """(1, 2, 2) -> "x2", (5, 2, 2) -> "5x2x2"."""
    z, y, x = scale
    return f"x{y}" if z == 1 and y == x else f"{z}x{y}x{x}"
