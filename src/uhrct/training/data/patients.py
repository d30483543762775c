"""Training series, read from folders of any layout or from a packed store onto the device."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.physics.kernel_names import kernel_lp_cm
from uhrct.training.config import DataSettings
from uhrct.training.data.clean_targets import clean_corpus
from uhrct.training.data.datasets import SPLITS, Scan, group_of, list_scans, read_scan, series_of
from uhrct.training.data.pairs import Pair
from uhrct.training.data.phantoms import truth_map
from uhrct.training.data.store import INDEX, Store
from uhrct.training.data.voxels import body_box, clipped_hu, clipping_note, training_volume


@dataclass(frozen=True)
class Patient:
    """One series on the device.

    Parameters
    ----------
    hu : int16 (z, y, x)
    spacing_mm : (y, x) of the pixels
    body : first and last row, first and last column that hold tissue
    weight : how often it is drawn, relative to the others
    spacing_z_mm, slice_thickness_mm : distance between slices, and the slab that a slice averages; None if unknown
    lr_hu : int16 (z / s, y, x), the measured LR scan of a real pair: its slice k covers the slices [k s, (k + 1) s)
    notes : what to know before training on it, such as "clipped to [-1000, 600] HU"
    structure : int16 on the grid of `hu`, the exact structure map of a phantom in thousandths; -1 where it is unknown
    clean : int16 on the grid of `hu`, the denoised series
    noise_maps : float16 (z, directions, 64, 64), relative noise of each slice (`uhrct.physics.noise`)
    group : what series of the same patient and kernel share; "" if the patient is unknown
    kernel_lp_cm : 50 % point of the kernel that the header names (`uhrct.physics.kernel_names`); None if unknown
    """

    name: str
    hu: Tensor
    spacing_mm: tuple[float, float]
    body: tuple[int, int, int, int]
    weight: float
    spacing_z_mm: float | None = None
    slice_thickness_mm: float | None = None
    lr_hu: Tensor | None = None
    notes: tuple[str, ...] = ()
    structure: Tensor | None = None
    clean: Tensor | None = None
    noise_maps: Tensor | None = None
    group: str = ""
    kernel_lp_cm: float | None = None


@dataclass(frozen=True)
class Lungs:
    """The lungs of a series, on pixels of about 1.4 mm: `mask` (z, y // factor, x // factor) bool."""

    mask: Tensor
    factor: int

    @classmethod
    def of(cls, p: Patient) -> Lungs:
        """Find them slice by slice with `uhrct.evaluation.lungs`; about 30 ms per slice."""
        from uhrct.evaluation.lungs import lung_mask  # needs scipy, which the training extra installs

        factor = max(1, round(1.4 / max(p.spacing_mm)))
        spacing_mm = (p.spacing_mm[0] * factor, p.spacing_mm[1] * factor)
        coarse = (F.avg_pool2d(one[None].float().cpu(), factor)[0].numpy() for one in p.hu)
        return cls(torch.stack([torch.from_numpy(lung_mask(one, spacing_mm)) for one in coarse]), factor)

    def block(self, slices: Tensor, y: int, x: int, source: int, side: int) -> Tensor:
        """(slices, side, side) bool: a square of `source` pixels at (y, x), resampled to `side` pixels."""
        (top, bottom), (left, right) = ((k // self.factor, -(-(k + source) // self.factor)) for k in (y, x))
        part = self.mask[slices.cpu(), top:bottom, left:right]
        return F.interpolate(part[None].float(), (side, side))[0] > 0.5


@dataclass(frozen=True)
class Corpus:
    """The series of a training, those of its validation, and the sha256 of what it trains on."""

    patients: list[Patient]
    validation: list[Patient]
    sha256: str

    @classmethod
    def load(cls, settings: DataSettings, device: torch.device, *, main: bool = True) -> Corpus:
        """Read both. Only the main process of a training validates and needs the sha256."""
        patients = load_patients(settings.corpus, settings.corpus_weights, device)
        if settings.balanced:
            patients = balanced(patients)
        if settings.clean:
            patients = with_clean(patients, Path(settings.clean), quiet=not main)
        if not main:
            return cls(patients, [], "")
        return cls(patients, load_patients(settings.validation, {}, torch.device("cpu")), corpus_hash(patients))


def with_clean(patients: list[Patient], cache: Path, *, quiet: bool = False) -> list[Patient]:
    """The series with their denoised voxels and noise maps; those that `cache` lacks are made first."""
    scans = ((p.name, p.hu.cpu().numpy(), p.spacing_mm) for p in patients)
    targets = clean_corpus(scans, cache, quiet=quiet)
    return [
        replace(
            p,
            clean=torch.from_numpy(np.array(target.load())).to(p.hu.device),
            noise_maps=torch.from_numpy(np.array(target.load_noise_maps())).to(p.hu.device),
        )
        for p, target in zip(patients, targets, strict=True)
    ]


def balanced(patients: list[Patient]) -> list[Patient]:
    """The series with weights that count patients and kernels, not slices.

    All series of one patient and kernel together get 1 + log2(slices) / 4: 64 slices count 2.5 times as much as one,
    because neighbouring slices look alike. Within such a group each slice counts the same. Given weights are factors.

    Example
    -------
    >>> slices = [torch.zeros(n, 2, 2, dtype=torch.int16) for n in (16, 1, 1)]
    >>> series = [Patient(g, hu, (1, 1), (0, 2, 0, 2), 1.0, group=g) for hu, g in zip(slices, "abb")]
    >>> [p.weight for p in balanced(series)]
    [2.0, 0.625, 0.625]
    """
    slices: dict[str, int] = {}
    for p in patients:
        slices[p.group or p.name] = slices.get(p.group or p.name, 0) + len(p.hu)

    def weight(p: Patient) -> float:
        n = slices[p.group or p.name]
        return (1 + math.log2(n) / 4) * len(p.hu) / n

    return [replace(p, weight=p.weight * weight(p)) for p in patients]


def find_series(root: str | Path) -> list[Scan]:
    """Every series at or below `root`, in any layout, not read yet.

    Raises
    ------
    UhrctError
        If there is none, or if a series cannot be read: a training must not silently go on without it.
    """
    listing = list_scans(root)
    found: list[Scan] = []
    for scan in listing.scans:
        series, left_out, problems = series_of(scan)
        if problems:
            raise UhrctError(f"{problems[0]}; uhrct pack leaves out what cannot be read, and lists it")
        found += series
        listing.left_out += left_out
    for line in listing.left_out:
        warnings.warn(f"left out {line}", UserWarning, stacklevel=2)
    if not found:
        raise UhrctError(f"{root}: holds no CT series")
    return found


def load_patients(roots: tuple[str, ...], weights: dict[str, float], device: torch.device) -> list[Patient]:
    """All series below `roots`, as int16; padding outside the field of view becomes -1024.

    Parameters
    ----------
    roots : folders, files or stores
        STORE is a folder made by `uhrct pack`, and STORE/train is one part of its split. On a CPU the voxels of a
        store stay on disk, mapped into memory.
    weights : dict
        How often a series is drawn, by its name; 1 where it is not named.
    device : torch.device

    Raises
    ------
    UhrctError
        If a folder is missing or empty, or a series cannot be read.
    """
    patients: list[Patient] = []
    names: set[str] = set()
    for patient, above in (found for root in roots for found in _below(Path(root), device)):
        name = f"{above}/{patient.name}" if patient.name in names else patient.name
        names.add(name)
        patients.append(replace(patient, name=name, weight=weights.get(name, 1.0)))
    return patients


def remarks(patients: list[Patient]) -> list[str]:
    """One line for each note of the series, with the names of the series.

    Example
    -------
    >>> hu = torch.zeros(1, 2, 2, dtype=torch.int16)
    >>> clipped = [Patient(n, hu, (1, 1), (0, 2, 0, 2), 1.0, notes=("clipped above 600 HU",)) for n in "ab"]
    >>> remarks(clipped)
    ['clipped above 600 HU: 2 of 2 series (a, b)']
    """
    by_note: dict[str, list[str]] = {}
    for p in patients:
        for note in p.notes:
            by_note.setdefault(note, []).append(p.name)
    return [
        f"{note}: {len(names)} of {len(patients)} series ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for note, names in by_note.items()
    ]


def _below(root: Path, device: torch.device) -> Iterator[tuple[Patient, str]]:
    """Series, each with the name of the folder above it, which tells equal names apart."""
    if (root / INDEX).is_file():
        yield from _packed(root, None, device)
    elif root.name in SPLITS and (root.parent / INDEX).is_file():
        yield from _packed(root.parent, root.name, device)
    else:
        for scan in find_series(root):
            yield _read(scan, device), scan.paths[0].parent.name


def _packed(folder: Path, split: str | None, device: torch.device) -> Iterator[tuple[Patient, str]]:
    store = Store(folder)
    entries = store.patients(split)
    if split is None and any(store.patients(part) for part in SPLITS[1:]):
        warnings.warn(
            f"{folder}: all series, also those for validation and test; {folder}/train has the others",
            UserWarning,
            stacklevel=3,
        )
    if not entries:
        raise UhrctError(f"{folder}: no series{f' in part {split} of its split.json' if split else ''}")
    for e in entries:
        z, y, x = e.hr.spacing_mm
        hu = store.voxels(e.hr).to(device)
        lr = None if e.lr is None else store.voxels(e.lr).to(device)
        structure = None if e.structure is None else store.voxels(e.structure).to(device)
        thickness = e.hr.slice_thickness_mm
        yield Patient(e.name, hu, (y, x), e.body, 1.0, z, thickness, lr, e.notes, structure, group=e.group), folder.name


def _read(scan: Scan, device: torch.device) -> Patient:
    read = read_scan(scan)
    volume = read.hr if isinstance(read, Pair) else read
    hu = training_volume(volume.hu)
    lr = training_volume(read.lr.hu).to(device) if isinstance(read, Pair) else None
    notes = [clipping_note(clipped_hu(hu.numpy())), *(read.notes if isinstance(read, Pair) else ())]
    z, y, x = volume.spacing_mm
    body, thickness = body_box(hu), volume.slice_thickness_mm
    said = tuple(n for n in notes if n)
    structure = truth_map(scan.paths[0].parent).to(device) if scan.layout == "phantom" else None
    group, kernel = group_of(volume), kernel_lp_cm(volume.meta.get("dicom"))
    return Patient(
        scan.name, hu.to(device), (y, x), body, 1.0, z, thickness, lr, said, structure, group=group, kernel_lp_cm=kernel
    )


def corpus_hash(patients: list[Patient]) -> str:
    """sha256 over names, spacings and voxels."""
    digest = hashlib.sha256()
    for p in sorted(patients, key=lambda p: p.name):
        digest.update(f"{p.name} {p.spacing_mm} {tuple(p.hu.shape)}".encode())
        digest.update(p.hu.cpu().numpy().tobytes())
        if p.structure is not None:
            digest.update(p.structure.cpu().numpy().tobytes())
    return digest.hexdigest()
