"""Find the series of a cohort, and name an output for each."""

from __future__ import annotations

import csv
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from uhrct import io
from uhrct.core.errors import NothingToDo, UhrctError

#: columns of a manifest; `path` is needed
COLUMNS = ("path", "series", "name")


@dataclass(frozen=True)
class Series:
    """One series of the cohort.

    Attributes
    ----------
    name : relative path of the output without suffix; it identifies the series in the ledger
    path : file, or folder of a DICOM series
    uid : SeriesInstanceUID if its folder holds several series, else ""
    problem : why it cannot be read, "" if nothing speaks against it
    """

    name: str
    path: Path
    uid: str = ""
    problem: str = ""

    def output(self, out: Path, suffix: str | None = None) -> Path:
        """Where the result goes: a folder for DICOM, else a file of the same format, unless `suffix` says otherwise.

        Example
        -------
        >>> Series("a/ct", Path("in/a/ct.nii.gz")).output(Path("out")).as_posix()
        'out/a/ct.nii.gz'
        """
        if suffix is None:
            suffix = "" if self.path.is_dir() else io.paths.known_suffix(self.path)
            suffix = "" if suffix == ".dcm" else suffix
        return out / f"{self.name}{suffix}"

    def state_of_files(self) -> str:
        """Changes when a file of the series changes: hash of names, sizes and times."""
        files = sorted(f for f in self.path.iterdir() if f.is_file()) if self.path.is_dir() else [self.path]
        facts = [(f.name, s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()]]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def find_series(inputs: str) -> list[Series]:
    """All series of a folder, a glob pattern, or a manifest (.csv or .parquet), in a fixed order.

    Parameters
    ----------
    inputs : a folder: all DICOM series and volume files below it. A pattern such as ``scans/*/ct.nii.gz``: each match,
        a folder counting as above. A manifest: a table with the column `path` (relative to the manifest), and if wanted
        `series` (a SeriesInstanceUID) and `name`.

    Raises
    ------
    UhrctError
        If there is nothing (`NothingToDo`), two series have one name, or a manifest cannot be read.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "list.csv").write_text("path,name\\nscan.nii.gz,patient-1\\n")
    >>> [s.name for s in find_series(str(folder / "list.csv"))]
    ['patient-1']
    """
    path = Path(inputs)
    if path.suffix.lower() in (".csv", ".parquet"):
        found = list(_manifest(path))
    elif path.is_dir():
        found = list(_folder(path, path))
    elif glob.has_magic(inputs):
        matches = [Path(match) for match in sorted(glob.glob(inputs, recursive=True))]
        root = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
        found = [s for match in matches for s in (_folder(match, root) if match.is_dir() else [_file(match, root)])]
    elif path.exists():
        found = [_file(path, path.parent)]
    else:
        raise UhrctError(f"{inputs}: no such file or folder, and no pattern")
    if not found:
        raise NothingToDo(f"{inputs}: no series and no volume file in it")
    names = [s.name for s in found]
    for name in names:
        if names.count(name) > 1:
            raise UhrctError(f"{inputs}: two series would both be written to {name}; give names in a manifest")
    return found


def _folder(folder: Path, root: Path) -> Iterator[Series]:
    """The series and volume files below a folder. Names are relative to `root`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and io.paths.known_suffix(p) not in ("", ".dcm"))
    yield from (_file(file, root) for file in files)
    try:
        listed = io.inspect(folder)
    except NothingToDo:
        return
    places = [(folder / s.path, s) for s in listed]
    folders = [(p if p.is_dir() else p.parent, s) for p, s in places]
    shared = {p for k, (p, _) in enumerate(folders) if p in [q for q, _ in folders[:k]]}
    for place, s in sorted(folders, key=lambda each: (str(each[0]), each[1].uid)):
        several = place in shared
        name = PurePosixPath(os.path.relpath(place, root))
        # a folder that is itself the only series has no path below the root
        name = PurePosixPath(place.resolve().name) if str(name) == "." and not several else name
        yield Series(str(name / s.uid) if several else str(name), place, s.uid if several else "", s.problem)


def _file(file: Path, root: Path) -> Series:
    name = PurePosixPath(os.path.relpath(file, root))
    return Series(str(name.with_name(name.name[: len(name.name) - len(io.paths.known_suffix(file))])), file)


def _manifest(path: Path) -> Iterator[Series]:
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    for number, row in enumerate(rows, 1):
        if not row.get("path"):
            raise UhrctError(f"{path}: row {number} has no path; the columns are {', '.join(COLUMNS)}")
        place = path.parent / str(row["path"])
        name = str(row.get("name") or "") or _file(place, path.parent).name
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise UhrctError(f"{path}: row {number}: {name!r} leads out of the output folder; give another name")
        yield Series(name, place, str(row.get("series") or ""))


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UhrctError(f"{path}: cannot be read as a table ({getattr(error, 'strerror', None) or error})") from None


def _parquet(path: Path) -> list[dict[str, str]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise UhrctError(f"{path}: a .parquet manifest needs pyarrow; pip install pyarrow, or use .csv") from None
    try:
        rows: list[dict[str, str]] = read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise UhrctError(f"{path}: cannot be read as a table ({' '.join(str(error).split())})") from None
    return rows
