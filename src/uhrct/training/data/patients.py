"""Training patients: from folders of any layout or a packed store, onto the device."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.training.data.datasets import SPLITS, Scan, list_scans, read_scan, series_of
from uhrct.training.data.pairs import Pair
from uhrct.training.data.phantoms import truth_map
from uhrct.training.data.store import INDEX, Store
from uhrct.training.data.voxels import body_box, clipped_hu, clipping_note, training_volume


@dataclass(frozen=True)
class Patient:
    """HR slices on the device: `hu` (z, y, x) int16, pixel `spacing_mm` (y, x), `body` rows and columns.

    `spacing_z_mm` is the distance between slices, `slice_thickness_mm` the slab that each one averages; both are None
    where the source does not say. `lr_hu` (z / s, y, x) int16 is the measured LR scan of a real pair, None for all
    others: its slice k covers the slices [k s, (k + 1) s) of `hu`, whatever kernel and noise it has. `structure` int16,
    on the grid of `hu`, is the exact structure map of a phantom in thousandths, -1 where it is not known; None for all
    others. `notes` is what one should know before training on it, such as "clipped to [-1000, 600] HU".
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


@dataclass(frozen=True)
class Lungs:
    """A patient's lungs, found on pixels of about 1.4 mm: `mask` (z, y // factor, x // factor) bool."""

    mask: Tensor
    factor: int

    @classmethod
    def of(cls, p: Patient) -> Lungs:
        """Slice by slice, some 30 ms each: `uhrct.evaluation.lungs` on means of factor x factor pixels.

        Kept by what the voxels are: a study trains many times on the same patients in one process.
        """
        seen = corpus_hash([p])
        if seen not in _LUNGS:
            _LUNGS[seen] = cls._found(p)
        return _LUNGS[seen]

    @classmethod
    def _found(cls, p: Patient) -> Lungs:
        from uhrct.evaluation.lungs import lung_mask  # scipy: the training extra has it

        factor = max(1, round(1.4 / max(p.spacing_mm)))
        spacing_mm = (p.spacing_mm[0] * factor, p.spacing_mm[1] * factor)
        coarse = (F.avg_pool2d(one[None].float().cpu(), factor)[0].numpy() for one in p.hu)
        return cls(torch.stack([torch.from_numpy(lung_mask(one, spacing_mm)) for one in coarse]), factor)

    def block(self, slices: Tensor, y: int, x: int, source: int, side: int) -> Tensor:
        """(slices, side, side) bool of the square of `source` pixels of the patient at (y, x)."""
        (top, bottom), (left, right) = ((k // self.factor, -(-(k + source) // self.factor)) for k in (y, x))
        part = self.mask[slices.cpu(), top:bottom, left:right]
        return F.interpolate(part[None].float(), (side, side))[0] > 0.5


_LUNGS: dict[str, Lungs] = {}  # a byte per pixel of 1.4 mm: a chest of 600 slices of 360 mm takes 40 MB


def find_series(root: str | Path) -> list[Scan]:
    """Every patient at or below `root`, unread, whatever the layout; DICOM series one by one.

    Raises
    ------
    UhrctError
        If there is none, or a series can't be read: training must not go on without it unsaid.
    """
    listing = list_scans(root)
    found: list[Scan] = []
    for scan in listing.scans:
        series, left_out, problems = series_of(scan)
        if problems:
            raise UhrctError(f"{problems[0]}; uhrct pack leaves out what can't be read, and lists it")
        found += series
        listing.left_out += left_out
    for line in listing.left_out:
        warnings.warn(f"left out {line}", UserWarning, stacklevel=2)
    if not found:
        raise UhrctError(f"{root}: holds no CT series")
    return found


def load_patients(roots: tuple[str, ...], weights: dict[str, float], device: torch.device) -> list[Patient]:
    """All patients below `roots`, as int16 (padding outside the field of view becomes -1024).

    Parameters
    ----------
    roots : folders, files or stores
        STORE is a folder that `uhrct pack` made, STORE/train one part of its split. Its patients stay on disk, mapped
        into memory, where the device is the CPU.
    weights : dict
        Share of the batch by name, 1 where there is none.
    device : torch.device

    Raises
    ------
    UhrctError
        If nothing is there or something can't be read.
    """
    patients: list[Patient] = []
    names: set[str] = set()
    for patient, above in (found for root in roots for found in _below(Path(root), device)):
        name = f"{above}/{patient.name}" if patient.name in names else patient.name  # scores and shares go by name
        names.add(name)
        patients.append(replace(patient, name=name, weight=weights.get(name, 1.0)))
    return patients


def remarks(patients: list[Patient]) -> list[str]:
    """One line for each note that patients carry, with the names of those that carry it.

    Example
    -------
    >>> hu = torch.zeros(1, 2, 2, dtype=torch.int16)
    >>> clipped = [Patient(n, hu, (1, 1), (0, 2, 0, 2), 1.0, notes=("clipped above 600 HU",)) for n in "ab"]
    >>> remarks(clipped)
    ['clipped above 600 HU: 2 of 2 patients (a, b)']
    """
    by_note: dict[str, list[str]] = {}
    for p in patients:
        for note in p.notes:
            by_note.setdefault(note, []).append(p.name)
    return [
        f"{note}: {len(names)} of {len(patients)} patients ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for note, names in by_note.items()
    ]


def _below(root: Path, device: torch.device) -> Iterator[tuple[Patient, str]]:
    """Patients and the name of the folder above each, which tells equal names apart."""
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
            f"{folder}: everybody, also validation and test; {folder}/train is train", UserWarning, stacklevel=3
        )
    if not entries:
        raise UhrctError(f"{folder}: no patient{f' in part {split} of its split.json' if split else ''}")
    for e in entries:
        z, y, x = e.hr.spacing_mm
        hu = store.voxels(e.hr).to(device)
        lr = None if e.lr is None else store.voxels(e.lr).to(device)
        structure = None if e.structure is None else store.voxels(e.structure).to(device)
        thickness = e.hr.slice_thickness_mm
        yield Patient(e.name, hu, (y, x), e.body, 1.0, z, thickness, lr, e.notes, structure), folder.name


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
    return Patient(scan.name, hu.to(device), (y, x), body, 1.0, z, thickness, lr, said, structure)


def corpus_hash(patients: list[Patient]) -> str:
    """sha256 over names, spacings and voxels: what a training saw."""
    digest = hashlib.sha256()
    for p in sorted(patients, key=lambda p: p.name):
        digest.update(f"{p.name} {p.spacing_mm} {tuple(p.hu.shape)}".encode())
        digest.update(p.hu.cpu().numpy().tobytes())
        if p.structure is not None:
            digest.update(p.structure.cpu().numpy().tobytes())
    return digest.hexdigest()
