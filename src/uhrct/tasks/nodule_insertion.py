"""Nodules that are inserted into real scans, so that their place and size are known exactly.

They are blended into the scan before it is degraded. Inside a nodule the scan's own noise stays: noise is what a median
filter takes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.froc import Place
from uhrct.phantom.nodules import ATTACHMENTS, CORE_HU, CORE_SHARE, HU, KINDS, Nodule
from uhrct.tasks.detect import patient_mm
from uhrct.tasks.even_grid import CUBE_MM
from uhrct.tasks.lung_cubes import lung_cubes

#: diameters of inserted nodules
DIAMETERS_MM = (3.0, 12.0)
#: width of the edge of a nodule; lung nodules are not razor-sharp, and a scanner blurs them
EDGE_MM = 1.0
#: brighter voxels in the lungs are vessels
VESSEL_HU = -550.0
#: places along z inside a slice at which a nodule is drawn; their mean is what a slice shows
SUB_SLICES = 4
#: voxels of the lungs that are tried as a place before all of them are
FIRST_LOOK = 5000
#: inserted nodules lie this far from each other; a place that is nearer is drawn again, up to so many times
APART_MM, TRIES = 4.0, 50


@dataclass(frozen=True)
class Lung:
    """Where nodules can be put: voxels of the lungs on cubes of `CUBE_MM`.

    Parameters
    ----------
    voxel : int16 array (n, 3), (z, y, x)
    depth_mm : (n,), distance to the edge of the lungs
    gap_mm : (n,), distance to the next vessel
    """

    voxel: np.ndarray
    depth_mm: np.ndarray
    gap_mm: np.ndarray

    @classmethod
    def of(cls, hu: np.ndarray, lungs: np.ndarray) -> Lung:
        """From a scan on cubes and the mask of its lungs."""
        vessels = lungs & (ndimage.median_filter(hu, 3) > VESSEL_HU)
        depth = ndimage.distance_transform_edt(lungs)[lungs]
        gap = ndimage.distance_transform_edt(~vessels)[lungs] if vessels.any() else np.full(len(depth), 1e3)
        return cls(
            np.argwhere(lungs).astype(np.int16),
            (depth * CUBE_MM).astype(np.float32),
            (gap * CUBE_MM).astype(np.float32),
        )

    def some(self, count: int, rng: np.random.Generator) -> Lung:
        """At most so many of these voxels, chosen at random."""
        if len(self.voxel) <= count:
            return self
        kept = rng.choice(len(self.voxel), count, replace=False)
        return Lung(self.voxel[kept], self.depth_mm[kept], self.gap_mm[kept])


def draw_nodule(
    lung: Lung,
    rng: np.random.Generator,
    kind: str = "",
    attachment: str = "",
    *,
    diameters_mm: tuple[float, float] = DIAMETERS_MM,
) -> Nodule | None:
    """A nodule at a random place; its centre is in mm on the grid of cubes, counted from the centre of the first cube.

    Parameters
    ----------
    kind : solid, part-solid or ground-glass; "": any
    attachment : free, juxta-vascular or juxta-pleural; "": any
    diameters_mm : the smallest and the largest, drawn evenly on a logarithmic scale

    Returns
    -------
    None if the lung has no room for it.
    """
    kind, attachment = kind or str(rng.choice(KINDS)), attachment or str(rng.choice(ATTACHMENTS))
    diameter_mm = float(np.exp(rng.uniform(*np.log(diameters_mm))))
    r = diameter_mm / 2
    # a part of the lungs is faster, and nearly always has room
    for part in (rng.integers(len(lung.voxel), size=FIRST_LOOK), slice(None)):
        depth_mm, gap_mm = lung.depth_mm[part], lung.gap_mm[part]
        if attachment == "free":
            good = (depth_mm > r + 2) & (gap_mm > r + 1.5)
        elif attachment == "juxta-vascular":
            good = (depth_mm > r + 1) & (gap_mm > 0.5 * r) & (gap_mm < 0.9 * r + 0.4)
        else:
            good = (depth_mm > 0.5 * r) & (depth_mm < 0.9 * r + 0.4) & (gap_mm > 0.5 * r)
        places = lung.voxel[part][good]
        if len(places):
            break
    else:
        return None
    z, y, x = (float(n) * CUBE_MM for n in places[rng.integers(len(places))])
    waves = np.concatenate(
        [rng.uniform(0.01, 0.05, (5, 1)), rng.normal(0, 2.2, (5, 3)), rng.uniform(0, 6.28, (5, 1))], axis=1
    )
    return Nodule((z, y, x), diameter_mm, kind, attachment, 0, waves)


def insert(hu: np.ndarray, spacing_mm: tuple[float, ...], nodule: Nodule) -> None:
    """Blend a nodule into a scan, in place.

    Parameters
    ----------
    hu : float32 array (z, y, x), HU
    nodule : its centre is in mm from the centre of the first voxel
    """
    reach = nodule.diameter_mm / 2 * 1.3 + EDGE_MM
    box, axes = [], []
    for middle, mm, n in zip(nodule.centre_mm, spacing_mm, hu.shape, strict=True):
        low, high = max(0, int((middle - reach) / mm)), min(n, int((middle + reach) / mm) + 2)
        box.append(slice(low, high))
        axes.append(np.arange(low, high) * mm)
    part = hu[tuple(box)]
    if not part.size:
        return
    sub = (np.arange(SUB_SLICES) + 0.5) / SUB_SLICES - 0.5
    z = (axes[0][:, None] + sub * spacing_mm[0])[..., None, None]
    distance = nodule.distance(z, axes[1][:, None], axes[2])
    share = np.clip(0.5 - distance / EDGE_MM, 0, 1).mean(1)
    anatomy = ndimage.median_filter(part, 3)
    inside = np.full(part.shape, HU[nodule.kind], np.float32)
    if nodule.kind == "part-solid":
        core = np.clip(0.5 - (distance + (1 - CORE_SHARE) * nodule.diameter_mm / 2) / EDGE_MM, 0, 1).mean(1)
        inside += core * (CORE_HU - inside)
    # tissue that is denser stays visible: vessels pass through ground glass
    part += (share * np.maximum(inside - anatomy, 0)).astype(np.float32)


def insert_nodules(
    volume: Volume, count: int, seed: int, *, apart_from: Sequence[Place] = ()
) -> tuple[Volume, list[Place]]:
    """A scan with nodules at random places in the lungs, and where they are.

    Parameters
    ----------
    volume : Volume
    count : number of nodules
    seed : the same seed gives the same nodules
    apart_from : nodules that are there already, in mm (LPS)

    Returns
    -------
    (the scan with its noise, places and diameters in mm (LPS))

    Raises
    ------
    UhrctError
        If there are no lungs, or they have no room for so many nodules.
    """
    cubes = lung_cubes(volume)
    if cubes is None:
        raise UhrctError("no lungs were found, so no nodule can be inserted; give a CT of the chest")
    grid, lungs = cubes
    lung, rng = Lung.of(grid.hu.numpy(), lungs), np.random.default_rng(seed)
    hu = volume.hu.astype(np.float32)
    placed: list[Place] = []
    for _ in range(count):
        for _ in range(TRIES):
            nodule = draw_nodule(lung, rng)
            if nodule is None:
                continue
            z, y, x = grid.to_scan(np.array(nodule.centre_mm) / CUBE_MM).tolist()
            place = Place(patient_mm(volume, (z, y, x)), nodule.diameter_mm)
            if all(_gap_mm(place, other) > APART_MM for other in (*placed, *apart_from)):
                break
        else:
            raise UhrctError(f"the lungs have room for {len(placed)} nodules, not for {count}; insert fewer")
        from_first_mm = (z * volume.spacing_mm[0], y * volume.spacing_mm[1], x * volume.spacing_mm[2])
        insert(hu, volume.spacing_mm, replace(nodule, centre_mm=from_first_mm))
        placed.append(place)
    return volume.on_grid(volume.grid, np.rint(hu).astype(np.int16)), placed


def _gap_mm(a: Place, b: Place) -> float:
    """Distance between the surfaces of two nodules."""
    return float(np.linalg.norm(np.subtract(a.centre_mm, b.centre_mm)) - (a.diameter_mm + b.diameter_mm) / 2)
