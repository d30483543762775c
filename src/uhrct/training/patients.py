"""Training patients: found below folders, read, and put on the device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from uhrct import formats
from uhrct.errors import UhrctError
from uhrct.model import FLOOR_HU

_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".npz")


@dataclass(frozen=True)
class Patient:
    """HR slices on the device: `hu` (z, y, x) int16, pixel `spacing_mm` (y, x), `body` rows and columns.

    `spacing_z_mm` is the distance between slices, `slice_thickness_mm` the slab that each one averages; both are None
    where the source does not say.
    """

    name: str
    hu: Tensor
    spacing_mm: tuple[float, float]
    body: tuple[int, int, int, int]
    weight: float
    spacing_z_mm: float | None = None
    slice_thickness_mm: float | None = None


def find_series(root: str | Path) -> list[Path]:
    """Every volume at or below `root`: files with a volume's suffix, and folders that hold DICOM slices."""
    root = Path(root)
    if not root.exists():
        raise UhrctError(f"{root}: no such corpus folder; give one with corpus=PATH")
    if root.is_file():
        return [root]
    found = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name.lower().endswith(_SUFFIXES)]
    folders = sorted({p.parent for p in root.rglob("*") if p.suffix.lower() == ".dcm"})
    beside_slices = {f for f in found if f.parent in folders}  # annotations, not scans
    series = folders + [f for f in found if f not in beside_slices]
    if not series:
        raise UhrctError(f"{root}: holds no folder with .dcm files and no file with {', '.join(_SUFFIXES)}")
    return series


def load_patients(roots: tuple[str, ...], weights: dict[str, float], device: torch.device) -> list[Patient]:
    """All series below `roots`, onto the device as int16 (padding outside the field of view becomes -1024)."""
    patients: list[Patient] = []
    for path in [s for root in roots for s in find_series(root)]:
        volume = formats.read(path)
        hu = torch.from_numpy(volume.hu).to(device)
        hu = hu.clamp(int(FLOOR_HU), 2**15 - 1).round().short()
        name = _name(path)
        if name in (p.name for p in patients):  # scores and shares go by name
            name = f"{path.parent.name}/{name}"
        z, y, x = volume.spacing_mm
        weight, thickness = weights.get(name, 1.0), volume.slice_thickness_mm
        patients.append(Patient(name, hu, (y, x), _body_box(hu), weight, z, thickness))
    return patients


def _name(path: Path) -> str:
    """A folder's name whole (a UID is full of dots), a file's without its suffix."""
    suffix = next((s for s in sorted(_SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)] if path.is_file() else path.name


def corpus_hash(patients: list[Patient]) -> str:
    """sha256 over names, spacings and voxels: what a training saw."""
    digest = hashlib.sha256()
    for p in sorted(patients, key=lambda p: p.name):
        digest.update(f"{p.name} {p.spacing_mm} {tuple(p.hu.shape)}".encode())
        digest.update(p.hu.cpu().numpy().tobytes())
    return digest.hexdigest()


def _body_box(hu: Tensor) -> tuple[int, int, int, int]:
    """Rows and columns (y0, y1, x0, x1) that hold tissue in more than 2 % of the slices' lines."""
    tissue = (hu > -300).float().mean(0)
    rows, columns = tissue.mean(1), tissue.mean(0)
    box = []
    for line in (rows, columns):
        inside = (line > 0.02).nonzero().flatten()
        box += [int(inside[0]), int(inside[-1]) + 1] if len(inside) else [0, len(line)]
    return box[0], box[1], box[2], box[3]
