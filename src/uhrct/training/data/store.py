"""A packed corpus: one raw int16 file per series that training maps into memory, an index, and a split.

    STORE/store.json    file, shape, spacing, sha256 and notes of each series; no patient data
    STORE/split.json    {"train": [names], "validation": [...], "test": [...]}; you may edit it
    STORE/NAME.raw      HU, int16 little-endian, (z, y, x) without header
    STORE/NAME.lr.raw   the measured LR scan of a pair
    STORE/NAME.structure.raw    the exact structure map of a phantom, in thousandths, -1 where it is unknown

A series counts once the index names it. The index is written after the file, so a killed `pack` goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic, write_atomic
from uhrct.core.volume import Vector, Volume
from uhrct.training.data.datasets import SPLITS
from uhrct.training.data.voxels import training_volume

INDEX, SPLIT = "store.json", "split.json"
FORMAT = "uhrct-store-1"


@dataclass(frozen=True)
class Voxels:
    """A raw file of a store."""

    file: str
    shape: tuple[int, int, int]
    spacing_mm: Vector
    slice_thickness_mm: float | None
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One series of a store.

    Parameters
    ----------
    name : str
        Stem of the file, or for DICOM a hash of the SeriesInstanceUID.
    hr : Voxels
    body : (y0, y1, x0, x1)
        Rows and columns that hold tissue.
    layout, source : str
        Layout of the data set, and path below its folder. "" for DICOM, because such folders often have the name of
        the person.
    fingerprint : str
        Hash of source and options. A series is packed again when it changes. "" while its files are being replaced.
    lr : Voxels, optional
        Measured LR scan; its slice k covers the slices [k s, (k + 1) s) of `hr`.
    notes : list of str
        What to know about the voxels, such as "clipped to [-1000, 600] HU".
    findings : list of dict
        Nodules of LUNA16: voxel (z, y, x), diameter_mm.
    structure : Voxels, optional
        Exact structure map of a phantom, on the grid of `hr`.
    group : str
        A random number that series of the same patient and kernel share, if one run packed them; "" if unknown.
    """

    name: str
    hr: Voxels
    body: tuple[int, int, int, int]
    layout: str
    source: str
    fingerprint: str
    lr: Voxels | None = None
    notes: tuple[str, ...] = ()
    findings: list[dict[str, Any]] = field(default_factory=list)
    structure: Voxels | None = None
    group: str = ""

    @property
    def parts(self) -> list[Voxels]:
        """Every file of the series."""
        return [part for part in (self.hr, self.lr, self.structure) if part is not None]


class Store:
    """A store folder. It is read without its source.

    Raises
    ------
    UhrctError
        If the index or the split is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.entries: dict[str, Entry] = {}
        self.split: dict[str, list[str]] = {name: [] for name in SPLITS}
        if (self.folder / INDEX).exists():
            raw = _json(self.folder / INDEX)
            if raw.get("format") != FORMAT:
                raise UhrctError(f"{self.folder / INDEX}: format {raw.get('format')!r} is not {FORMAT}; pack it again")
            try:
                self.entries = {e["name"]: _entry(e) for e in raw["patients"]}
            except (KeyError, TypeError, ValueError) as error:
                raise UhrctError(f"{self.folder / INDEX}: damaged index ({error}); remove it and pack again") from None
        if (self.folder / SPLIT).exists():
            self.split = read_split(self.folder / SPLIT)

    def patients(self, split: str | None = None) -> list[Entry]:
        """All series in the order of packing, or those of "train", "validation" or "test"."""
        held = set(self.entries if split is None else self.split[split])
        return [e for e in self.entries.values() if e.fingerprint and e.name in held]

    def voxels(self, part: Voxels) -> Tensor:
        """The file mapped into memory, int16 (z, y, x). Voxels are read when they are used.

        Raises
        ------
        UhrctError
            If the file is missing, or its size differs from the index.
        """
        path = self.folder / part.file
        if not self.whole(part):
            raise UhrctError(f"{path}: missing or damaged; run uhrct pack again to repair it")
        # copy-on-write protects the file: torch does not promise that it never writes
        return torch.from_numpy(np.memmap(path, dtype="<i2", mode="c", shape=part.shape))

    def check(self, part: Voxels) -> bool:
        """Whether the voxels still have their sha256; reads all of them."""
        return self.whole(part) and _file_sha256(self.folder / part.file) == part.sha256

    def add(self, entry: Entry, part: str | None) -> None:
        """Put a series into the index, and into a part of the split unless it has one already."""
        self.entries[entry.name] = entry
        if part is not None and not self.has_part(entry.name):
            self.split[part].append(entry.name)
        self.save()

    def drop(self, name: str) -> None:
        """Take a series out before its files change. It keeps its place, because batches depend on the order."""
        if name in self.entries:
            self.entries[name] = replace(self.entries[name], fingerprint="")
            self.save()

    def has_part(self, name: str) -> bool:
        """Whether a series is in the split."""
        return any(name in names for names in self.split.values())

    def save(self) -> None:
        """Write index and split, each complete or not at all."""
        _write_json(self.folder / SPLIT, self.split)
        patients = [asdict(e) for e in self.entries.values()]
        _write_json(self.folder / INDEX, {"format": FORMAT, "patients": patients})

    def write(self, name: str, volume: Volume) -> tuple[Voxels, Tensor]:
        """Write the raw file `name`; returns its entry and its voxels."""
        hu = training_volume(volume.hu)
        data = hu.numpy().astype("<i2", copy=False)
        with atomic(self.folder / name) as folder, (folder / name).open("wb") as stream:
            stream.write(data.data)
        digest = hashlib.sha256(data.data).hexdigest()
        return Voxels(name, volume.shape, volume.spacing_mm, volume.slice_thickness_mm, digest), hu

    def whole(self, part: Voxels) -> bool:
        """Whether the file is there and has the right size."""
        path = self.folder / part.file
        return path.is_file() and path.stat().st_size == 2 * part.shape[0] * part.shape[1] * part.shape[2]


def read_split(path: Path) -> dict[str, list[str]]:
    """Read a split file: names under train, validation and test, none of them twice.

    Raises
    ------
    UhrctError
        If the file cannot be read or is no split file.
    """
    raw = _json(path)
    for part, names in raw.items():
        if part not in SPLITS or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise UhrctError(f'{path}: a split file is {{"train": [names], "validation": [names], "test": [names]}}')
    names = [n for part in raw.values() for n in part]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise UhrctError(f"{path}: {twice[0]} stands in it twice; a series belongs to one part")
    return {part: list(raw.get(part, [])) for part in SPLITS}


def _entry(raw: dict[str, Any]) -> Entry:
    def voxels(part: dict[str, Any]) -> Voxels:
        z, y, x = (int(n) for n in part["shape"])
        dz, dy, dx = (float(d) for d in part["spacing_mm"])
        return Voxels(part["file"], (z, y, x), (dz, dy, dx), part["slice_thickness_mm"], part["sha256"])

    lr = None if raw["lr"] is None else voxels(raw["lr"])
    structure = raw["structure"]
    y0, y1, x0, x1 = raw["body"]
    known = {"hr": voxels(raw["hr"]), "lr": lr, "structure": None if structure is None else voxels(structure)}
    return Entry(**{**raw, **known, "body": (y0, y1, x0, x1), "notes": tuple(raw["notes"])})


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
    except OSError as error:
        raise UhrctError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UhrctError(f"{path}: is not JSON ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise UhrctError(f"{path}: holds no JSON object")
    return raw


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=1) + "\n")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
