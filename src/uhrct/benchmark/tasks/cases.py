"""The cases of a benchmark of tasks: scans with true masks or known nodules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path

import numpy as np
from scipy import ndimage  # evaluation extra

from uhrct import io
from uhrct.benchmark.tasks.config import NoduleCase, NoduleTask, TasksConfig, UnmarkedCase
from uhrct.benchmark.tasks.vessel12 import Marks, read_marks, vessel12_scans
from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.froc import Place
from uhrct.evaluation.trees import TreeReference
from uhrct.tasks.cases import image_mask_pairs, read_votes, votes_file
from uhrct.tasks.detect import patient_mm
from uhrct.tasks.detect_folder import places
from uhrct.tasks.nodule_insertion import insert_nodules
from uhrct.tasks.phantom_lines import phantom_points
from uhrct.training.data.datasets import VOTES, list_scans, series_of, stem
from uhrct.training.data.luna16 import read_luna16_annotations

#: LUNA16: what so many readers outlined is a nodule; what fewer outlined is neither right nor wrong
READERS = 3
#: the size of a nodule is that of the part that so many readers outlined
SIZE_READERS = 2


@dataclass(frozen=True)
class Case:
    """A scan, and where the truth is.

    Parameters
    ----------
    name : in results
    scan : file or folder
    masks : task -> file of the true mask; None: nobody made one
    nodules : how nodules get into the scan; None: the task nodules does not use this case
    known : nodules, and findings that are neither right nor wrong, of a table; None: `nodules` says where they are
    series : of a DICOM folder
    marks : table of VESSEL12
    """

    name: str
    scan: Path
    masks: dict[str, Path | None] = field(default_factory=dict)
    nodules: NoduleCase | None = None
    known: tuple[list[Place], list[Place]] | None = None
    series: str | None = None
    marks: Path | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that use this case."""
        points = ("vessel_points",) if self.marks else ()
        return (*self.masks, *points, *(("nodules",) if self.nodules else ()))


@dataclass(frozen=True)
class Scan:
    """A case in memory.

    Parameters
    ----------
    volume : int16, padding counts as -1024 HU; cropped to a multiple of all scales
    trees : task -> true tree, where somebody made a mask
    nodules, excluded : in mm (LPS); findings inside an excluded one are neither right nor wrong
    marks : voxels that readers marked as vessel or not
    sha256 : of the voxels
    found : (task, tool) -> what the tool finds in this scan; the tools fill it where there is no true tree
    """

    volume: Volume
    trees: dict[str, TreeReference]
    nodules: list[Place]
    excluded: list[Place]
    marks: Marks | None
    sha256: str
    found: dict[tuple[str, str], TreeReference] = field(default_factory=dict)


def list_cases(config: TasksConfig) -> list[Case]:
    """The cases of a configuration; one scan that serves two tasks is one case.

    Raises
    ------
    UhrctError
        If a scan or a mask is missing, or two cases have the same name.
    """
    tasks = config.file.tasks
    out: dict[Path, Case] = {}
    for task, settings in (("vessels", tasks.vessels), ("airways", tasks.airways)):
        for entry in settings.cases if settings else ():
            for image, mask in _tree_cases(entry, task):
                case = out.setdefault(image, Case(_name(image), image))
                out[image] = replace(case, masks={**case.masks, task: mask})
    points = [Path(root) for root in (tasks.vessel_points.cases if tasks.vessel_points else ())]
    marked = [Case(scan.stem, scan, marks=table) for root in points for scan, table in vessel12_scans(root)]
    cases = [*out.values(), *marked, *(_nodule_cases(tasks.nodules) if tasks.nodules else ())]
    names = [c.name for c in cases]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise UhrctError(f"two cases are called {twice!r}; name each scan once, or give another seed")
    return cases


def _tree_cases(entry: str | UnmarkedCase, task: str) -> list[tuple[Path, Path | None]]:
    """(scan, file of the true mask or None) of each case in an entry of the configuration."""
    if isinstance(entry, UnmarkedCase):
        if not Path(entry.scan).exists():
            raise UhrctError(f"{entry.scan}: no such scan")
        return [(Path(entry.scan), None)]
    pairs: list[tuple[Path, Path | None]] = [*image_mask_pairs(Path(entry), task)]
    if pairs:
        return pairs
    raise UhrctError(f"{entry}: no {task}.nii.gz in it; make a phantom there with uhrct phantom")


def _name(image: Path) -> str:
    """The last two parts of the path, without the name that all phantoms share and without suffixes."""
    place = image.parent if image.name.startswith("ct.") else image
    return "/".join([*place.parts[-2:-1], stem(place)])


def _nodule_cases(settings: NoduleTask) -> list[Case]:
    if not settings.annotations:
        return [_nodule_case(case) for case in settings.cases]
    nodules = read_luna16_annotations(settings.annotations)
    excluded = read_luna16_annotations(settings.excluded) if settings.excluded else {}
    cases = []
    for case in settings.cases:
        for series in (series for scan in list_scans(case.scan).scans for series in series_of(scan)[0]):
            name = series.uid or series.name
            known = places(nodules.get(name, ())), places(excluded.get(name, ()))
            cases.append(Case(name, series.paths[0], nodules=case, known=known, series=series.series))
    if not any(case.known and case.known[0] for case in cases):
        raise UhrctError(f"{settings.annotations}: none of its scans is a case; `seriesuid` must be the name of a scan")
    return cases


def _nodule_case(settings: NoduleCase) -> Case:
    scan = Path(settings.scan)
    if not scan.exists():
        raise UhrctError(f"{scan}: no such scan")
    name = _name(scan)
    if settings.inserted:
        name += f", {settings.inserted} inserted, seed {settings.seed}"
    elif not votes_file(scan).is_file():
        raise UhrctError(f"{scan}: there is no {VOTES} beside it, and inserted is 0; so no nodule is known")
    return Case(name, scan, nodules=settings)


def common_multiple(config: TasksConfig) -> tuple[int, int, int]:
    """Scans are cropped to multiples of this (z, y, x), so that all protocols see the same voxels."""
    z, y, x = (lcm(*(scale[axis] for _, scale in config.protocols)) for axis in range(3))
    return z, y, x


def load_case(case: Case, multiple: tuple[int, int, int]) -> Scan:
    """Read a scan with its truth.

    Parameters
    ----------
    multiple : number of voxels (z, y, x) whose multiples the sides become

    Raises
    ------
    UhrctError
        If a mask does not fit, the scan is too small, or the lungs have no room for the nodules.
    """
    whole = io.read(case.scan, series=case.series)
    kept = tuple(slice(0, n // m * m) for n, m in zip(whole.shape, multiple, strict=True))
    if any(side.stop == 0 for side in kept):
        raise UhrctError(f"{case.scan}: {whole.shape} voxels are too few for a scale of {multiple}")
    hu = np.maximum(whole.hu[kept], np.int16(FLOOR_HU)).round().astype(np.int16)
    volume = replace(whole, hu=hu, meta={})
    trees = {task: _tree(case, task, mask, volume, kept) for task, mask in case.masks.items() if mask is not None}
    nodules: list[Place] = []
    excluded: list[Place] = []
    if case.known is not None:
        nodules, excluded = case.known
    elif case.nodules is not None:
        if votes_file(case.scan).is_file():
            nodules, excluded = readers_nodules(read_votes(case.scan, whole.shape)[kept], volume)
        if case.nodules.inserted:
            there = [*nodules, *excluded]
            volume, inserted = insert_nodules(volume, case.nodules.inserted, case.nodules.seed, apart_from=there)
            nodules += inserted
    marks = read_marks(case.marks).inside(volume.shape) if case.marks else None
    digest = hashlib.sha256(np.ascontiguousarray(volume.hu).tobytes()).hexdigest()[:16]
    return Scan(volume, trees, nodules, excluded, marks, digest)


def _tree(case: Case, task: str, file: Path, volume: Volume, kept: tuple[slice, ...]) -> TreeReference:
    mask = _mask(file, volume, kept)
    ignored = None
    lungs, truth = (case.scan.parent / name for name in ("lungs.nii.gz", "truth.npz"))
    if task == "vessels" and lungs.is_file():
        inside = _mask(lungs, volume, kept)
        # segmenters look for vessels inside the lungs; the large ones outside are neither right nor wrong
        mask, ignored = mask & inside, mask & ~inside
    points = phantom_points(truth, task, volume).inside(mask) if truth.is_file() else None
    try:
        return TreeReference.of(mask, volume.spacing_mm, ignored=ignored, points=points)
    except UhrctError as error:
        raise UhrctError(f"{file}: {error}") from error


def _mask(file: Path, volume: Volume, kept: tuple[slice, ...]) -> np.ndarray:
    mask = io.read(file).hu[kept] > 0
    if mask.shape != volume.shape:
        raise UhrctError(f"{file}: the mask of shape {mask.shape} does not fit the scan of shape {volume.shape}")
    return mask


def readers_nodules(votes: np.ndarray, volume: Volume) -> tuple[list[Place], list[Place]]:
    """(nodules, findings that are neither right nor wrong) of the readers of a scan, as in LUNA16.

    Parameters
    ----------
    votes : (z, y, x), how many readers outlined a voxel
    volume : Volume

    Example
    -------
    >>> votes = np.zeros((8, 8, 8), np.uint8); votes[2:4, 2:4, 2:4] = 4; votes[6, 6, 6] = 1
    >>> nodules, excluded = readers_nodules(votes, Volume(np.zeros((8, 8, 8), np.int16), (1.0, 1.0, 1.0)))
    >>> nodules[0].centre_mm, round(nodules[0].diameter_mm, 1), len(excluded)
    ((2.5, 2.5, 2.5), 2.5, 1)
    """
    pieces, n = ndimage.label(votes > 0, np.ones((3, 3, 3)))
    sure: list[Place] = []
    unsure: list[Place] = []
    for k, box in enumerate(ndimage.find_objects(pieces, max_label=n), 1):
        part, own = votes[box], pieces[box] == k
        is_nodule = part[own].max() >= READERS
        wanted = own & (part >= SIZE_READERS) if is_nodule else own
        z, y, x = np.argwhere(wanted).mean(0) + [side.start for side in box]
        mm3 = np.count_nonzero(wanted) * float(np.prod(volume.spacing_mm))
        place = Place(patient_mm(volume, (z, y, x)), float(6 * mm3 / np.pi) ** (1 / 3))
        (sure if is_nodule else unsure).append(place)
    return sure, unsure
