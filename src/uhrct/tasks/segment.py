"""One entry point for all tasks: a CT volume in, a label volume with its meaning out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.purpose import NOTE
from uhrct.core.volume import Volume
from uhrct.io.segments import Segment

if TYPE_CHECKING:
    from uhrct.tasks.mask_network import MaskNetwork

TASKS = ("lungs", "airways", "vessels")
SCHEMA = "uhrct-segment-1"
#: Air is -1000 HU. A scan without anything as dark as this holds no lungs in HU.
AIR_AT_MOST_HU = -500
ALGORITHM = "uhrct segment"

LUNGS = (
    Segment("right lung", kind=("3341006", "SCT", "Right lung"), algorithm=ALGORITHM),
    Segment("left lung", kind=("44029006", "SCT", "Left lung"), algorithm=ALGORITHM),
)
BOTH_LUNGS = (Segment("lungs", kind=("39607008", "SCT", "Lung"), algorithm=ALGORITHM),)
AIRWAYS = (Segment("airways", kind=("110726009", "SCT", "Trachea and bronchus"), algorithm=ALGORITHM),)
VESSELS = (Segment("vessels in the lungs", kind=("59820001", "SCT", "Blood vessel"), algorithm=ALGORITHM),)


@dataclass
class Segmentation:
    """Labels, what they mean, and how they were found.

    Attributes
    ----------
    labels : array of uint8 (z, y, x)
        0 is background, k is ``segments[k - 1]``.
    thresholds : numbers that the segmenter used
    warnings : lines
    weights, weights_sha256 : name and sha256 of the network; None: found without a network
    """

    task: str
    labels: np.ndarray
    segments: tuple[Segment, ...]
    thresholds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    weights: str | None = None
    weights_sha256: str | None = None

    @property
    def method(self) -> str:
        """How it was found, in words for descriptions.

        Example
        -------
        >>> Segmentation("airways", np.ones((1, 1, 1), np.uint8), AIRWAYS).method
        'without a network'
        """
        if self.weights is None or self.weights_sha256 is None:
            return "without a network"
        return f"by the network {self.weights} (sha256 {self.weights_sha256[:12]})"


def segment(
    volume: Volume,
    task: str,
    *,
    network: MaskNetwork | None = None,
    quiet: bool = True,
) -> Segmentation:
    """Segment the lungs, the airways or the vessels of a CT of the chest.

    Parameters
    ----------
    volume : Volume
    task : "lungs", "airways" or "vessels"
    network : of this task, see `load_network`; None: the segmenter that needs no training
    quiet : bool
        False shows progress.

    Raises
    ------
    UhrctError
        If the task is unknown.
    InputRefused
        If the values are not HU, or the scan does not show what was asked for. An empty result is never returned.

    Example
    -------
    >>> y, x = np.mgrid[:100, :100]
    >>> chest = np.where(np.hypot(y - 50, x - 50) < 48, 40, -1000)
    >>> chest[(np.hypot(y - 50, x - 25) < 15) | (np.hypot(y - 50, x - 75) < 15)] = -850
    >>> found = segment(Volume(chest[None].astype(np.int16), (5.0, 2.0, 2.0)), "lungs")
    >>> found.labels[0, 50, [25, 75]].tolist(), [s.label for s in found.segments]
    ([1, 2], ['right lung', 'left lung'])
    """
    if task not in TASKS:
        raise UhrctError(f"`task` {task!r}: choose from {', '.join(TASKS)}")
    check_hu(volume.hu)
    if network is not None:
        found = _learned(volume, network, quiet)
    else:
        found = {"lungs": _lungs, "airways": _airways, "vessels": _vessels}[task](volume, quiet)
    if not found.labels.any():
        raise InputRefused(f"no {task} found {found.method}" if network else f"no {task} found")
    found.warnings += _cut_off(volume, found) if task == "lungs" else []
    return found


def check_hu(hu: np.ndarray) -> None:
    """Refuse what cannot be a chest CT in HU.

    Raises
    ------
    InputRefused
        If nothing is as dark as lung, or nothing as bright as tissue.

    Example
    -------
    >>> check_hu(np.array([0, 1500]))
    Traceback (most recent call last):
    ...
    uhrct.core.errors.InputRefused: values from 0 to 1500 are no chest CT in HU (air is -1000, tissue about 0); \
convert the values to HU, or give a CT
    """
    low, high = float(hu.min()), float(hu.max())
    if low > AIR_AT_MOST_HU or high < -200:
        raise InputRefused(
            f"values from {low:g} to {high:g} are no chest CT in HU (air is -1000, tissue about 0); "
            "convert the values to HU, or give a CT"
        )


def load_network(name: str | Path, task: str, device: str = "cpu") -> MaskNetwork:
    """The mask network of a task, for `segment`.

    Parameters
    ----------
    name : shipped weights by their name, or a model folder or a run by its path
    task : "airways" or "vessels"
    device : "auto", "cpu" or "cuda"

    Raises
    ------
    UhrctError
        If there is no such folder, or it holds no mask network of this task.

    Example
    -------
    >>> load_network("runs/lungs", "lungs")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: `weights`: no network is used for lungs; leave it out
    """
    if task == "lungs":
        raise UhrctError("`weights`: no network is used for lungs; leave it out")
    from uhrct.models.choice import pick_device
    from uhrct.tasks.mask_network import MaskNetwork

    network = MaskNetwork.from_pretrained(name, pick_device(device))
    if network.config.task != task:
        raise UhrctError(f"{name}: this network marks {network.config.task}; give one that marks {task}")
    return network


def _learned(volume: Volume, network: MaskNetwork, quiet: bool) -> Segmentation:
    from uhrct.tasks.learned_masks import MARKED_FROM, learned_mask

    task = network.config.task
    mask = learned_mask(volume, network, quiet=quiet)
    meaning = {"airways": AIRWAYS, "vessels": VESSELS}[task][0]
    # DICOM allows 64 characters, and no backslash
    name = re.sub(r"[^\w.-]", "_", network.name, flags=re.ASCII)[:24]
    algorithm = f"{ALGORITHM}, {name} {network.weights_sha256[:12]}"
    return Segmentation(
        task,
        mask.astype(np.uint8),
        (replace(meaning, algorithm=algorithm),),
        {"probability": MARKED_FROM},
        weights=network.name,
        weights_sha256=network.weights_sha256,
    )


def _lungs(volume: Volume, quiet: bool) -> Segmentation:
    from uhrct.evaluation.fast_lungs import lungs_of
    from uhrct.tasks.lungs import sides

    mask = lungs_of(volume.hu, volume.spacing_mm, volume.direction, quiet=quiet)
    if not mask.any():
        raise InputRefused("no lungs found; give a CT of the chest")
    labels = sides(mask, volume.spacing_mm, volume.direction)
    thresholds = {"lungs_below_hu": -400.0}
    if labels is None:
        warning = "left and right lung were not told apart: both have label 1"
        return Segmentation("lungs", mask.astype(np.uint8), BOTH_LUNGS, thresholds, [warning])
    return Segmentation("lungs", labels.astype(np.uint8), LUNGS, thresholds)


def _airways(volume: Volume, quiet: bool) -> Segmentation:
    from uhrct.tasks.airways import segment_airways

    found = segment_airways(volume.hu, volume.spacing_mm, volume.direction, quiet=quiet)
    return Segmentation("airways", found.mask.astype(np.uint8), AIRWAYS, found.thresholds, found.warnings)


def _vessels(volume: Volume, quiet: bool) -> Segmentation:
    from uhrct.tasks.vessels import segment_vessels

    found = segment_vessels(volume.hu, volume.spacing_mm, volume.direction, quiet=quiet)
    return Segmentation("vessels", found.mask.astype(np.uint8), VESSELS, found.thresholds, found.warnings)


def _cut_off(volume: Volume, found: Segmentation) -> list[str]:
    """A note if the scan ends inside the lungs."""
    areas_cm2 = np.count_nonzero(found.labels, axis=(1, 2)) * np.prod(volume.spacing_mm[1:]) / 100
    ends = [name for name, k in (("first", 0), ("last", -1)) if areas_cm2[k] > 10]
    return [f"the lungs reach the {' and the '.join(ends)} slice: the volume is that of a part"] if ends else []


def report(found: Segmentation, volume: Volume, seconds: float) -> dict[str, Any]:
    """Plain values for JSON, see docs/report.md.

    Parameters
    ----------
    found : Segmentation
    volume : Volume
        What was segmented.
    seconds : float
        Time that it took.
    """
    from uhrct.core.version import __version__
    from uhrct.tasks.measure import tree_size, volume_ml

    labels = []
    for k, meaning in enumerate(found.segments, 1):
        mask = found.labels == k
        value, scheme, words = meaning.kind
        entry: dict[str, Any] = {"label": k, "name": meaning.label, "code": [value, scheme, words]}
        entry["volume_ml"] = round(volume_ml(mask, volume.spacing_mm), 3)
        if found.task != "lungs":
            length_mm, branches = tree_size(mask, volume.spacing_mm)
            entry |= {"skeleton_mm": round(length_mm, 1), "branches": branches}
        labels.append(entry)
    return {
        "schema": SCHEMA,
        "uhrct": __version__,
        "note": NOTE,
        "task": found.task,
        "weights": found.weights,
        "weights_sha256": found.weights_sha256,
        "input": {"shape": list(volume.shape), "spacing_mm": list(volume.spacing_mm)},
        "labels": labels,
        "thresholds": {name: round(value, 4) for name, value in found.thresholds.items()},
        "seconds": round(seconds, 2),
        "warnings": list(found.warnings),
    }
