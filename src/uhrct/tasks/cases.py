"""Scans with a mask of vessels or airways, for training and for tests.

Three layouts are read: a folder with an image and `vessels.nii.gz` or `airways.nii.gz` beside it (phantoms have such
exact masks), `imagesTr` and `labelsTr` as in nnU-Net and ATM'22, and scans without a mask. The mask of the latter is
made by the segmenter without training, and called a pseudo-reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.core.hu import FLOOR_HU
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.tasks.phantom_lines import phantom_points, wide_part
from uhrct.training.data.datasets import VOTES, list_scans, read_scan, series_of

#: millimetres around the mask that stay when a scan is cropped
MARGIN_MM = 15.0

#: segmenter(volume) -> mask (z, y, x)
Segmenter = Callable[[Volume], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One scan with its mask, cropped to the neighbourhood of the mask.

    Parameters
    ----------
    hu : int16 (z, y, x)
    mask : bool (z, y, x)
    spacing_mm : (z, y, x)
    exact : whether the mask is the truth of a phantom or was drawn by a reader; False: a pseudo-reference
    weight : how often it is drawn
    """

    name: str
    hu: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, float, float]
    exact: bool
    weight: float = 1.0


def load_cases(
    roots: tuple[str, ...],
    task: str,
    segmenter: Segmenter,
    cache: Path,
    *,
    largest_mm: float,
    least_diameter_mm: float = 0.0,
    quiet: bool = False,
) -> list[Case]:
    """All cases below some folders.

    Parameters
    ----------
    task : "vessels" or "airways"
    segmenter : makes the mask of a scan that has none
    cache : folder that keeps these masks
    largest_mm : scans with a larger distance between slices are left out
    least_diameter_mm : narrower branches of a phantom are taken out of its mask, since its image does not show them

    Raises
    ------
    UhrctError
        If a folder holds no usable case.
    """
    cases = []
    # all folders are looked at before the first mask is made, since one mask takes a minute
    with_masks = {root: list(image_mask_pairs(Path(root), task)) for root in roots}
    for root, pairs in with_masks.items():
        if pairs:
            for image, label in track(pairs, f"reading {root}", quiet=quiet):
                labelled, mask = io.read(image), io.read(label).hu > 0
                truth = image.parent / "truth.npz"
                if least_diameter_mm and truth.is_file():
                    points = phantom_points(truth, task, labelled)
                    mask = wide_part(mask, points, labelled.spacing_mm, least_diameter_mm)
                cases.append(_case(image.parent.name + "/" + image.name, labelled, mask, True))
            continue
        for scan in list_scans(root).scans:
            for series in series_of(scan)[0]:
                volume = read_scan(series)
                if not isinstance(volume, Volume) or volume.shape[0] < 16 or volume.spacing_mm[0] > largest_mm:
                    continue
                mask = _pseudo_reference(volume, task, segmenter, cache)
                if mask.any():
                    cases.append(_case(series.name, volume, mask, False))
    if not cases:
        raise UhrctError(f"{', '.join(roots)}: no scan with {task} and slices at most {largest_mm:g} mm apart")
    return cases


def image_mask_pairs(root: Path, task: str) -> Iterator[tuple[Path, Path]]:
    """(image, mask) files of a folder in a layout that holds masks; nothing in other folders.

    Raises
    ------
    UhrctError
        If there is no such folder, or a mask has no image.
    """
    if not root.is_dir():
        raise UhrctError(f"{root}: no such folder; make phantoms there (docs/training.md), or leave it out")
    if (root / "labelsTr").is_dir():
        for label in sorted((root / "labelsTr").glob("*.nii.gz")):
            stem = label.name.removesuffix(".nii.gz").removesuffix("_0000")
            for name in (f"{stem}_0000.nii.gz", f"{stem}.nii.gz"):
                if (root / "imagesTr" / name).is_file():
                    yield root / "imagesTr" / name, label
                    break
            else:
                raise UhrctError(f"{label}: its image {stem}_0000.nii.gz is not in {root / 'imagesTr'}")
        return
    for label in sorted([*root.glob(f"{task}.nii.gz"), *root.glob(f"*/{task}.nii.gz")]):
        images = [p for p in sorted(label.parent.glob("ct.*")) if p.name != "ct.json"]
        if not images:
            raise UhrctError(f"{label}: there is no image ct.nii.gz (or ct.nrrd, ...) beside it")
        yield images[0], label


def votes_file(scan: Path) -> Path:
    """Where the nodules of the readers of a scan (a file or a folder of slices) are, if anybody marked them."""
    return (scan if scan.is_dir() else scan.parent) / VOTES


def read_votes(scan: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """How many readers outlined each voxel (z, y, x) of a scan of this shape.

    Raises
    ------
    UhrctError
        If the file does not fit the scan.
    """
    file = votes_file(scan)
    with np.load(file) as stored:
        votes = stored["votes"]
    if votes.shape != shape:
        raise UhrctError(f"{file}: the votes of shape {votes.shape} do not fit the scan of shape {shape}")
    return np.asarray(votes)


def _case(name: str, volume: Volume, mask: np.ndarray, exact: bool) -> Case:
    if mask.shape != volume.shape:
        raise UhrctError(f"{name}: the mask of shape {mask.shape} does not fit the scan of shape {volume.shape}")
    box = []
    for axis, mm in enumerate(volume.spacing_mm):
        there = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        low, high = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, mask.shape[axis])
        margin = round(MARGIN_MM / mm)
        box.append(slice(max(0, low - margin), high + margin))
    hu = np.maximum(np.asarray(volume.hu[tuple(box)]), FLOOR_HU).astype(np.int16)
    return Case(name, hu, np.ascontiguousarray(mask[tuple(box)]), volume.spacing_mm, exact)


def _pseudo_reference(volume: Volume, task: str, segmenter: Segmenter, cache: Path) -> np.ndarray:
    """The mask of a scan, from the cache if it was made before."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.hu).tobytes())
    digest.update(f"{task} {volume.spacing_mm}".encode())
    file = cache / f"{digest.hexdigest()[:24]}.npz"
    if file.is_file():
        with np.load(file) as stored:
            return np.unpackbits(stored["bits"], count=volume.hu.size).reshape(volume.shape).astype(bool)
    mask = segmenter(volume)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic(file) as folder:
        np.savez_compressed(folder / file.name, bits=np.packbits(mask))
    return mask
