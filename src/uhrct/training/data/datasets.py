"""Finds the series of a data set: which files belong together, and how they are read. The layouts are:

npz     folders of `.npz` with HU under `arr_0`: volumes, or single slices (`p1_000.npz`, `p1_001.npz`, ...)
luna16  subset0 ... subset9 of `.mhd`/`.raw`, annotation tables beside them
rplhr   real pairs: train/5mm/CT1.nii.gz and train/1mm/CT1.nii.gz, or CT1_5mm.nii.gz and CT1_1mm.nii.gz
phantom folders made by `uhrct phantom`: image, truth.json, label volumes
tree    anything else: DICOM (also without suffix, several series a folder), NIfTI, NRRD, MetaImage, npz
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Vector, Volume
from uhrct.training.data.pairs import Pair, align
from uhrct.training.data.phantoms import phantom_image

LAYOUTS = ("npz", "luna16", "rplhr", "phantom", "tree")
SPLITS = ("train", "validation", "test")
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".npz")
#: beside a scan: how many of its readers outlined each voxel as nodule; it is no scan
VOTES = "nodule_votes.npz"
#: the held-out ones of LUNA16's ten subsets
LUNA16_HELD_OUT = {8: "validation", 9: "test"}
_SPLIT_FOLDERS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation"}
_SPLIT_FOLDERS["test"] = "test"
_THICKNESS = re.compile(r"(?:(?P<name>.*)[_-])?(?P<mm>\d+(?:\.\d+)?)mm", re.IGNORECASE)


@dataclass(frozen=True)
class Scan:
    """The files of one series, not read yet.

    Parameters
    ----------
    name : str
        Stem of the file or name of the folder. `load_patients` and `pack` make it unique.
    paths : tuple of Path
        One file, one DICOM folder, or files of one slice each in order.
    layout : str
        One of `LAYOUTS`.
    series : str, optional
        Number in the listing of `uhrct info`, if a DICOM folder holds several series.
    uid, shape : str, (z, y, x)
        SeriesInstanceUID and size of a DICOM series, "" and None outside DICOM.
    lr : Path, optional
        The measured low-resolution scan of the same patient.
    thickness_mm : (LR, HR), optional
        Thickness of the slices of a pair, from the file names.
    split : str, optional
        Part of the data set's own split: "train", "validation" or "test".
    """

    name: str
    paths: tuple[Path, ...]
    layout: str
    series: str | None = None
    uid: str = ""
    shape: tuple[int, int, int] | None = None
    lr: Path | None = None
    thickness_mm: tuple[float, float] | None = None
    split: str | None = None

    @property
    def dicom(self) -> bool:
        """Whether `paths` is a folder of DICOM slices."""
        return self.paths[0].is_dir()


@dataclass
class Listing:
    """What was found below a folder, and one line for everything that was left out."""

    layout: str
    scans: list[Scan] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def list_scans(root: str | Path, layout: str = "auto") -> Listing:
    """All scans at or below `root`. Only names and npz headers are read.

    A folder of DICOM slices counts as one scan; `series_of` splits it into its series.

    Raises
    ------
    UhrctError
        If `root` does not exist, or holds no volumes of that layout.

    Example
    -------
    >>> list_scans("nowhere")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: nowhere: no such file or folder
    """
    root = Path(root)
    if not root.exists():
        raise UhrctError(f"{root}: no such file or folder")
    if root.is_file():
        return Listing("tree" if layout == "auto" else layout, [Scan(stem(root), (root,), "tree")])
    files, folders = _walk(root)
    layout = _recognised(root, files, folders) if layout == "auto" else layout
    readers = {"npz": _npz, "luna16": _luna16, "rplhr": _rplhr, "phantom": _phantom, "tree": _tree}
    listing = readers[layout](root, files, folders)
    if not listing.scans:
        what = {"luna16": "subset0/*.mhd", "rplhr": "pairs such as 5mm/a.nii.gz and 1mm/a.nii.gz", "npz": ".npz files"}
        what["phantom"] = "folder of uhrct phantom"
        held = what.get(layout, f"DICOM slices and no file with {', '.join(SUFFIXES)}")
        raise UhrctError(f"{root}: holds no {held}")
    return listing


def series_of(scan: Scan) -> tuple[list[Scan], list[str], list[str]]:
    """(CT series of a DICOM folder, lines for what is left out, lines for what is wrong); other scans stay as they are.

    Localizers, report pages and other modalities are left out. A CT series that cannot be read is wrong.
    """
    if not scan.dicom:
        return [scan], [], []
    path = scan.paths[0]
    try:
        found = io.inspect(path)
    except UhrctError as error:
        return [], [], [str(error)]
    left_out, problems, usable = [], [], []
    for info in found:
        line = f"{path}: series {info.number} ({info.description or 'no description'}): "
        scout = info.shape is not None and info.shape[0] < 3 and (info.problem or info.orientation != "axial")
        if info.number == 0:
            problems.append(f"{path}: {info.problem}")
        elif info.modality != "CT" or scout:
            left_out.append(line + (f"{info.modality or 'no modality'}, no CT" if info.modality != "CT" else "no scan"))
        elif info.problem or info.needs:
            problems.append(line + (info.problem or f"needs {info.needs}"))
        else:
            usable.append(info)
    alone = len(usable) == 1
    series = []
    for i in usable:
        name = scan.name if alone else f"{scan.name}:{i.number}"
        series.append(replace(scan, name=name, series=str(i.number), uid=i.uid, shape=i.shape))
    return series, left_out, problems


def read_scan(
    scan: Scan, *, spacing_mm: Vector | None = None, unit_hu: tuple[float, float] | None = None
) -> Volume | Pair:
    """The voxels of a scan.

    Parameters
    ----------
    scan : Scan
        One series, if it is DICOM.
    spacing_mm : (z, y, x), optional
        For `.npz` files that store none.
    unit_hu : (HU of 0, HU of 1), optional
        For files whose voxels were mapped to [0, 1].

    Raises
    ------
    UhrctError
        As `io.read`; for voxels in [0, 1] without `unit_hu`; for slices or pairs that do not fit each other.
    """
    if scan.lr is not None:
        lr, hr = (_in_hu(io.read(path), path, unit_hu) for path in (scan.lr, scan.paths[0]))
        try:
            return align(lr, hr, scan.thickness_mm)
        except UhrctError as error:
            raise UhrctError(f"{scan.lr}: {error}") from None
    if scan.dicom:
        return io.read(scan.paths[0], series=scan.series)
    parts = [_in_hu(io.read(path, spacing_mm=_spacing_for(path, spacing_mm)), path, unit_hu) for path in scan.paths]
    if len(parts) == 1:
        return parts[0]
    for path, part in zip(scan.paths, parts, strict=True):
        if part.shape != parts[0].shape or part.spacing_mm != parts[0].spacing_mm:
            raise UhrctError(f"{path}: slice of {part.shape[1:]} pixels, {scan.paths[0].name} has {parts[0].shape[1:]}")
    return replace(parts[0], hu=np.concatenate([part.hu for part in parts]))


def person_of(volume: Volume) -> str:
    """PatientID of a DICOM scan, else its StudyInstanceUID; "" for other formats. Never written to a file."""
    header = (volume.meta.get("dicom") or [{}])[0]
    return str(header.get("PatientID") or header.get("StudyInstanceUID") or "")


def group_of(volume: Volume) -> str:
    """What two scans share if they are of the same patient and kernel, "" if the patient is unknown. Never written."""
    person = person_of(volume)
    return person and f"{person} {volume.meta['dicom'][0].get('ConvolutionKernel') or ''}"


def stem(path: Path) -> str:
    """The name of a folder, which may be a UID with dots, or the name of a file without its suffix."""
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)] if path.is_file() else path.name


def _walk(root: Path) -> tuple[list[Path], list[Path]]:
    """Files with the suffix of a volume, and the topmost folders with DICOM slices (inspection looks below them)."""
    files: list[Path] = []
    folders: set[Path] = set()
    for path in sorted(root.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
            continue  # hidden files belong to file managers
        if path.name == VOTES:
            continue
        if path.name.lower().endswith(SUFFIXES):
            files.append(path)
        elif path.parent not in folders and _is_dicom(path):
            folders.add(path.parent)
    top = [f for f in sorted(folders) if not any(parent in folders for parent in f.parents)]
    # a volume beside DICOM slices is an annotation of them, not a scan
    return [f for f in files if f.parent not in folders], top


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM" and path.name.upper() != "DICOMDIR"
    except OSError:
        return False


def _recognised(root: Path, files: list[Path], folders: list[Path]) -> str:
    if any(phantom_image(folder, files) for folder in {f.parent for f in files}):
        return "phantom"
    if any(_subset(f, root) is not None for f in files):
        return "luna16"
    if folders:
        return "tree"
    if any(len(sides) == 2 for sides in _by_thickness(root, files).values()):
        return "rplhr"
    return "npz" if files and all(f.suffix.lower() == ".npz" for f in files) else "tree"


def _tree(root: Path, files: list[Path], folders: list[Path]) -> Listing:
    scans = [Scan(f.name, (f,), "tree", split=_split_of(f, root)) for f in folders]
    return Listing("tree", scans + list(_files(root, files, "tree")))


def _npz(root: Path, files: list[Path], folders: list[Path]) -> Listing:
    return Listing("npz", list(_files(root, [f for f in files if f.suffix.lower() == ".npz"], "npz")))


def _phantom(root: Path, files: list[Path], folders: list[Path]) -> Listing:
    listing = Listing("phantom")
    for folder in sorted({*folders, *(f.parent for f in files)}):
        image = phantom_image(folder, files)
        if image is None:
            listing.left_out.append(f"{folder}: not a folder of uhrct phantom; pack other scans separately")
        else:
            listing.scans.append(Scan(folder.name, (image,), "phantom", split=_split_of(image, root)))
    return listing


def _files(root: Path, files: list[Path], layout: str) -> Iterator[Scan]:
    """One scan per volume. npz files of one slice each whose names differ only in the last number are one scan."""
    slices: dict[tuple[Path, str, object], list[tuple[int, Path]]] = {}
    place: dict[Path, tuple[Path, str, object]] = {}
    for path in files:
        number = re.fullmatch(r"(.*?)[_ -]*(\d+)", stem(path))
        if path.suffix.lower() == ".npz" and number is not None:
            shape = io.inspect(path)[0].shape
            if shape is not None and shape[0] == 1:
                key = (path.parent, number[1], shape)
                slices.setdefault(key, []).append((int(number[2]), path))
                place[path] = key
    for path in files:
        group = sorted(slices.get(place.get(path, (root, "", None)), []))
        split = _split_of(path, root)
        if len(group) < 2:
            yield Scan(stem(path), (path,), layout, split=split)
        elif group[0][1] == path:
            yield Scan(place[path][1] or path.parent.name, tuple(p for _, p in group), layout, split=split)


def _luna16(root: Path, files: list[Path], folders: list[Path]) -> Listing:
    listing = Listing("luna16")
    for path in files:
        subset = _subset(path, root)
        if subset is not None:
            split = LUNA16_HELD_OUT.get(subset, "train")
            listing.scans.append(Scan(stem(path), (path,), "luna16", split=split))
    if len(listing.scans) < len(files):  # seg-lungs-LUNA16 lies beside the subsets
        listing.left_out.append(f"{root}: {len(files) - len(listing.scans)} files in none of subset0 to subset9")
    return listing


def _subset(path: Path, root: Path) -> int | None:
    for part in path.relative_to(root.parent).parts[:-1]:
        if (match := re.fullmatch(r"subset(\d)", part, re.IGNORECASE)) and path.suffix.lower() == ".mhd":
            return int(match[1])
    return None


def _rplhr(root: Path, files: list[Path], folders: list[Path]) -> Listing:
    listing = Listing("rplhr")
    labelled = set()
    for (_, name), sides in sorted(_by_thickness(root, files).items()):
        labelled |= set(sides.values())
        if len(sides) != 2:
            some = next(iter(sides.values()))
            listing.left_out.append(f"{some}: {len(sides)} thicknesses of this patient; a pair has two")
            continue
        thin, thick = sorted(sides)
        hr = sides[thin]
        listing.scans.append(
            Scan(name, (hr,), "rplhr", lr=sides[thick], thickness_mm=(thick, thin), split=_split_of(hr, root))
        )
    listing.left_out += [f"{f}: no thickness such as 5mm in its name or folder" for f in files if f not in labelled]
    return listing


def _by_thickness(root: Path, files: list[Path]) -> dict[tuple[str, str], dict[float, Path]]:
    """Files by (place, patient) and thickness: `x/5mm/a.nii.gz` and `x/a_5mm.nii.gz` are both ("x", "a"), 5.0."""
    found: dict[tuple[str, str], dict[float, Path]] = {}
    for path in files:
        name, above = stem(path), list(path.parent.relative_to(root.parent).parts)
        own = _THICKNESS.fullmatch(name)
        if own is not None and own["name"]:
            found.setdefault(("/".join(above), own["name"]), {})[float(own["mm"])] = path
            continue
        for k in reversed(range(len(above))):
            if (match := _THICKNESS.fullmatch(above[k])) is not None:
                above[k] = match["name"] or ""
                found.setdefault(("/".join(above), name), {})[float(match["mm"])] = path
                break
    return found


def _split_of(path: Path, root: Path) -> str | None:
    """The part of the split that a folder between `root` and `path` names."""
    parts = path.relative_to(root.parent).parts[:-1] if path.is_file() else path.relative_to(root.parent).parts
    return next((_SPLIT_FOLDERS[p.lower()] for p in parts if p.lower() in _SPLIT_FOLDERS), None)


def _spacing_for(path: Path, spacing_mm: Vector | None) -> Vector | None:
    """The given spacing, for a file that stores none."""
    if spacing_mm is None or path.suffix.lower() != ".npz":
        return None
    return spacing_mm if io.inspect(path)[0].spacing_mm is None else None


def _in_hu(volume: Volume, path: Path, unit_hu: tuple[float, float] | None) -> Volume:
    """Voxels in [0, 1] converted back to HU; others as they are."""
    hu = volume.hu
    if hu.dtype.kind != "f" or hu.min() < 0 or hu.max() > 1:
        return volume
    if unit_hu is None:
        raise UhrctError(f"{path}: voxels lie in [0, 1], not in HU; give unit_hu, the HU of 0 and of 1")
    low, high = unit_hu
    return replace(volume, hu=np.rint(low + (high - low) * hu).astype(np.float32))
