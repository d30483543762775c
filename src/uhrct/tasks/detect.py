"""Finds nodules in the lungs: candidates by the dot filter, then a network that removes wrong ones."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uhrct.core.errors import InputRefused
from uhrct.core.files import write_atomic
from uhrct.core.purpose import NOTE
from uhrct.core.upright import Upright
from uhrct.core.version import __version__
from uhrct.core.volume import Vector, Volume
from uhrct.tasks.even_grid import EvenGrid
from uhrct.tasks.lung_cubes import lung_cubes
from uhrct.tasks.nodule_candidates import Candidate, find_candidates
from uhrct.tasks.segment import check_hu

if TYPE_CHECKING:
    from rich.table import Table

    from uhrct.tasks.nodule_network import NoduleNetwork

SCHEMA = "uhrct-detect-1"
#: as weights: no network, the filter alone
NO_NETWORK = "none"
#: fewer slices show a disc where a ball may be
LEAST_SLICES = 8
#: without a network, a response of so many HU has the score 0.5
HALF_HU = 100.0


@dataclass(frozen=True)
class Nodule:
    """A finding.

    Parameters
    ----------
    centre_mm : (x, y, z), LPS
    voxel : (z, y, x), array coordinates; whole numbers are voxel centres
    diameter_mm : of the ball that fits best, one of a few sizes
    score : probability in [0, 1] by the network; without one, a number that grows with the response of the filter
    """

    centre_mm: Vector
    voxel: tuple[float, float, float]
    diameter_mm: float
    score: float


@dataclass(frozen=True)
class Searched:
    """A scan on cubes, and the bright balls in its lungs."""

    grid: EvenGrid
    candidates: list[Candidate]


def search(volume: Volume, *, most: int = 300, quiet: bool = True) -> Searched:
    """The part of `detect` that does not depend on weights.

    Raises
    ------
    InputRefused
        If the scan has no lungs, or too few slices.
    """
    check_hu(volume.hu)
    slices = Upright.of(volume.direction).slices(volume.shape)
    if slices < LEAST_SLICES:
        raise InputRefused(f"the scan has {slices} slices; the detection of nodules needs {LEAST_SLICES}")
    cubes = lung_cubes(volume, quiet=quiet)
    if cubes is None:
        raise InputRefused("no lungs were found; nodules are looked for in the lungs of a CT of the chest")
    return Searched(cubes[0], find_candidates(*cubes, most=most, quiet=quiet))


def detect(
    volume: Volume,
    *,
    network: NoduleNetwork | None = None,
    most: int = 300,
    searched: Searched | None = None,
    quiet: bool = True,
) -> list[Nodule]:
    """Candidates for nodules in the lungs of a CT scan, the most likely first.

    Parameters
    ----------
    network : of `load_detector`; None: the filter alone
    most : number of candidates that are looked at
    searched : of `search` for this volume, if it was searched before

    Raises
    ------
    InputRefused
        If the scan has no lungs, or too few slices.

    Example
    -------
    >>> z, y, x = np.mgrid[:24, :100, :100]
    >>> hu = np.where(np.hypot(y - 50, x - 50) < 45, 40, -1000)
    >>> hu[(np.hypot(y - 50, x - 25) < 16) | (np.hypot(y - 50, x - 75) < 16)] = -850
    >>> hu[np.sqrt((z - 12) ** 2 + (y - 50) ** 2 + (x - 75) ** 2) < 2] = 30
    >>> first = detect(Volume(hu.astype(np.int16), (2.0, 2.0, 2.0)))[0]
    >>> [round(v) for v in first.voxel]
    [12, 50, 75]
    """
    searched = searched or search(volume, most=most, quiet=quiet)
    found = searched.candidates
    scores = [c.response_hu / (c.response_hu + HALF_HU) for c in found]
    if network is not None:
        scores = [float(p) for p in network.probabilities(searched.grid, found)]
    nodules = [
        Nodule(patient_mm(volume, c.voxel), c.voxel, c.diameter_mm, round(score, 6))
        for c, score in zip(found, scores, strict=True)
    ]
    return sorted(nodules, key=lambda n: -n.score)


def load_detector(weights: str | Path | None, device: str = "cpu") -> NoduleNetwork | None:
    """The network for `detect`.

    Parameters
    ----------
    weights : name or folder of a nodule network; None or "none": no network, the filter alone
    device : "auto", "cpu" or "cuda"

    Raises
    ------
    UhrctError
        If there is no such folder, or it holds no nodule network.

    Example
    -------
    >>> load_detector("none") is None
    True
    """
    if weights is None or weights == NO_NETWORK:
        return None
    from uhrct.models.choice import pick_device
    from uhrct.tasks.nodule_network import NoduleNetwork

    return NoduleNetwork.from_pretrained(weights, pick_device(device))


def patient_mm(volume: Volume, voxel: tuple[float, float, float]) -> Vector:
    """Millimetres (x, y, z) in LPS of array coordinates (z, y, x).

    Example
    -------
    >>> patient_mm(Volume(np.zeros((4, 4, 4), np.int16), (2.0, 1.0, 1.0), (10.0, 0.0, 0.0)), (1.0, 0.0, 2.0))
    (12.0, 0.0, 2.0)
    """
    place = np.asarray(volume.origin_mm) + volume.direction @ (np.asarray(voxel) * volume.spacing_mm)
    x, y, z = (round(float(v), 2) for v in place)
    return x, y, z


def as_table(nodules: list[Nodule]) -> Table:
    """The findings for people."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("#", "x, y, z mm (LPS)", "slice", "row", "column", "diameter mm", "score"):
        table.add_column(name)
    for k, n in enumerate(nodules, 1):
        where = ", ".join(f"{v:.1f}" for v in n.centre_mm)
        z, y, x = (str(round(v)) for v in n.voxel)
        table.add_row(str(k), where, z, y, x, f"{n.diameter_mm:g}", f"{n.score:.2f}")
    return table


def as_report(nodules: list[Nodule], network: NoduleNetwork | None = None) -> dict[str, Any]:
    """The findings as plain values for JSON (docs/report.md). `network`: as for `detect`."""
    return {
        "schema": SCHEMA,
        "uhrct": __version__,
        "note": NOTE,
        "weights": None if network is None else network.name,
        "weights_sha256": None if network is None else network.weights_sha256,
        "nodules": [
            {
                "centre_mm": list(n.centre_mm),
                "voxel": list(n.voxel),
                "diameter_mm": n.diameter_mm,
                "score": n.score,
            }
            for n in nodules
        ],
    }


def write_csv(nodules: dict[str, list[Nodule]], path: Path) -> None:
    """Write findings in the columns of LUNA16: seriesuid, coordX, coordY, coordZ, diameter_mm, probability."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")  # quotes a name with a comma
    table.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "probability"])
    for name, found in nodules.items():
        table.writerows([name, *n.centre_mm, n.diameter_mm, n.score] for n in found)
    write_atomic(path, text.getvalue())
