"""Trees in three dimensions, side by side: what a tool found on each scan, seen from the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage  # evaluation extra

from uhrct.core.errors import UhrctError
from uhrct.evaluation.pictures import pyplot, save_figure
from uhrct.evaluation.trees import LEAK_FROM_MM, within

#: side of the cubes on which a tree is drawn
CUBE_MM = 0.8
#: blur of the mask, so that the surface has no steps; where it is a thin branch is still seen
SMOOTH_PX, SURFACE = 0.8, 0.2
FOUND, MISSED, LEAK = (0.93, 0.88, 0.78), (0.2, 0.35, 0.7), (0.95, 0.2, 0.15)
#: light from the upper left, towards the viewer: along (z, y, x)
LIGHT = np.array([0.45, -0.8, -0.4]) / np.linalg.norm([0.45, -0.8, -0.4])


@dataclass(frozen=True)
class TreePanel:
    """A tree that was found. `title` stands above it."""

    title: str
    mask: np.ndarray


def trees_side_by_side(
    truth: TreePanel, panels: Sequence[TreePanel], spacing_mm: tuple[float, float, float], title: str, path: Path
) -> Path:
    """Write a PNG with the true tree and one picture per panel, with missed parts and leaks in colour.

    Parameters
    ----------
    truth : the tree that the others are compared with
    panels : masks of the same shape
    spacing_mm : (z, y, x)

    Raises
    ------
    UhrctError
        If a mask does not fit.
    """
    plt = pyplot()
    true = truth.mask
    if any(p.mask.shape != true.shape for p in panels):
        raise UhrctError(f"{path}: a mask does not fit the truth of shape {true.shape}")
    everything = true.copy()
    for panel in panels:
        everything |= panel.mask
    box = ndimage.find_objects(everything.astype(np.uint8))[0]
    near = within(true[box], LEAK_FROM_MM, spacing_mm)
    images = [(truth.title, render([(true[box], FOUND)], spacing_mm))]
    for panel in panels:
        found = panel.mask[box]
        around = within(found, LEAK_FROM_MM, spacing_mm)
        front = render([(found & near, FOUND), (found & ~near, LEAK)], spacing_mm)
        behind = render([(true[box] & ~around, MISSED)], spacing_mm)
        # many thin missed branches would hide the tree that was found
        images.append((panel.title, np.where(front.any(2, keepdims=True), front, behind)))
    height, width = images[0][1].shape[:2]
    columns = 2 if len(images) in (2, 4) else 3
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5 * columns, 5 * rows * height / width + 0.9), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image) in zip(axes.flat, images, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(name, fontsize=10)
    meaning = (
        f"white: found, red: leak (farther than {LEAK_FROM_MM:g} mm from the tree), blue: missed, drawn behind the rest"
    )
    figure.suptitle(f"{title}\n{meaning}", fontsize=10)
    return save_figure(figure, path, dpi=130)


def render(parts: Sequence[tuple[np.ndarray, tuple[float, float, float]]], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """A picture (rows, columns, RGB) of masks, seen from the front along the rows of the slices, head at the top.

    The nearest surface is seen. It is brighter where it faces the light and where it is nearer.

    Parameters
    ----------
    parts : (bool (z, y, x), colour) of each; z towards the head, y towards the back
    spacing_mm : (z, y, x)

    Example
    -------
    >>> ball = np.zeros((9, 9, 9), bool); ball[3:6, 3:6, 3:6] = True
    >>> picture = render([(ball, (1.0, 0.0, 0.0))], (1.0, 1.0, 1.0))
    >>> picture.shape, bool(picture[5, 5, 0] > 0.3), picture[0, 0].tolist()
    ((11, 11, 3), True, [0.0, 0.0, 0.0])
    """
    size = [max(1, round(n * mm / CUBE_MM)) for n, mm in zip(parts[0][0].shape, spacing_mm, strict=True)]
    nearest = np.full((size[0], size[2]), size[1], np.int64)
    picture = np.zeros((size[0], size[2], 3))
    for mask, colour in parts:
        if not mask.any():
            continue
        cubes = F.interpolate(torch.from_numpy(mask).float()[None, None], size, mode="trilinear", align_corners=False)
        soft = ndimage.gaussian_filter(cubes[0, 0].numpy(), SMOOTH_PX, truncate=2.5)
        solid = soft > SURFACE
        depth = np.where(solid.any(1), solid.argmax(1), size[1])
        seen = depth < nearest
        z, x = np.nonzero(seen)
        y = depth[seen]
        normal = -np.stack([_slope(soft, axis, z, y, x) for axis in range(3)], 1)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        light = 0.35 + 0.65 * np.clip(normal @ LIGHT, 0, 1)
        light *= 1.0 - 0.5 * y / size[1]
        picture[seen] = np.clip(np.array(colour) * light[:, None], 0, 1)
        nearest[seen] = y
    return picture[::-1]


def _slope(image: np.ndarray, axis: int, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Central difference of an image along an axis at some voxels."""
    place = [z, y, x]
    low, high = list(place), list(place)
    low[axis] = np.maximum(place[axis] - 1, 0)
    high[axis] = np.minimum(place[axis] + 1, image.shape[axis] - 1)
    return image[tuple(high)] - image[tuple(low)]
