"""Find files: one file, a folder tree, a zip, or the files that a DICOMDIR lists. Nothing is parsed here."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from uhrct.core.errors import NothingToDo, UhrctError
from uhrct.io.paths import shown

#: Largest allowed ratio of unpacked to compressed bytes of a zip member, beyond the first `FREE_BYTES`.
#: CT compresses by 2 to 5, a zip bomb by a thousand.
MOST_RATIO = 30
FREE_BYTES = 64 << 20


@dataclass(frozen=True)
class DicomFile:
    """A file on disk or a member of a zip; `name` is printable."""

    name: str
    size: int
    path: Path
    member: zipfile.ZipInfo | None = None
    archive: zipfile.ZipFile | None = None

    def place(self, top: Path) -> PurePath:
        """The path relative to the folder `top` where it lies in it, else the whole path; in a zip, that in the zip."""
        if self.member is not None:
            return PurePosixPath(self.member.filename)
        return self.path.relative_to(top) if self.path.is_relative_to(top) else self.path

    def open(self) -> Bounded:
        """A stream that neither reads nor reserves more bytes than the file has.

        Raises
        ------
        UhrctError
            If a zip member is encrypted, damaged, or much larger than its compressed bytes.
        OSError
            If the file cannot be read.
        """
        if self.member is None or self.archive is None:
            return Bounded(self.path.open("rb"))
        if self.size > FREE_BYTES + MOST_RATIO * self.member.compress_size:
            raise UhrctError(f"{self.name} unpacks to {self.size >> 20} MB, more than CT can compress; unpack it first")
        try:
            return Bounded(io.BytesIO(self.archive.read(self.member)))
        except Exception as error:  # encrypted, unknown compression, or damaged
            raise UhrctError(f"{self.name} cannot be unpacked ({error}); unpack the zip first") from None


class Bounded:
    """A binary stream whose `read` reserves no memory for bytes that do not exist.

    Otherwise a header that declares 4 GB would make Python reserve 4 GB before it reaches the end of the file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        self.short = False
        """Whether a read of more than 8 bytes (the start of an element) went beyond the end."""
        stream.seek(0)
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, count: int | None = -1) -> bytes:
        if count is not None and 0 <= count <= 8:
            return self._stream.read(count)
        left = max(0, self.size - self.tell())
        if count is None or count < 0:
            count = left
        self.short |= count > left
        return self._stream.read(min(count, left))

    def __enter__(self) -> Bounded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_files(path: Path) -> list[DicomFile]:
    """All regular files in a folder tree or zip, in order of their names; or the one file `path`.

    Hidden files are left out, because file managers create them (`._0001.dcm` is not an image). Linked folders are
    followed, each folder once.

    Raises
    ------
    UhrctError
        If a folder or zip cannot be read or is empty.
    """
    if path.is_dir():
        files = _in_folder(path)
    elif path.suffix.lower() == ".zip":
        files = _in_zip(path)
    elif path.is_file():
        return [DicomFile(shown(path.name), path.stat().st_size, path)]
    else:
        raise UhrctError("is neither a file nor a folder; give a folder with DICOM files")
    if not files:
        what = "folder" if path.is_dir() else "zip"
        raise NothingToDo(f"{what} is empty; give a folder with DICOM files")
    return files


def find_referenced(folder: Path, references: list[tuple[str, ...]]) -> list[DicomFile]:
    """The files that a DICOMDIR in `folder` lists, each as its path components below it.

    The case of letters is ignored, because discs are often copied with names in lower case. Components are looked up
    among the existing names, and ".." is not one of them: no reference leads out of the folder.

    Raises
    ------
    UhrctError
        If some are missing.
    """
    listings: dict[Path, dict[str, Path]] = {}
    found, missing = [], []
    for parts in dict.fromkeys(references):
        place: Path | None = folder
        for part in parts:
            if place is None:
                break
            if place not in listings:
                listings[place] = {p.name.upper(): p for p in sorted(place.iterdir())} if place.is_dir() else {}
            place = listings[place].get(part.upper())
        if place is None or not parts or not place.is_file():
            missing.append(shown("/".join(parts)))
        else:
            found.append(DicomFile(shown(place.name), place.stat().st_size, place))
    if missing:
        raise UhrctError(f"lists {len(missing)} missing files, first {missing[0]}; copy the whole disc")
    if not found:
        raise UhrctError("lists no images; give the folder with the DICOM files")
    return found


def _in_folder(top: Path) -> list[DicomFile]:
    found: list[DicomFile] = []
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            here = folder.stat()
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            where = "" if folder == top else f"folder {shown(folder.name)} "
            raise UhrctError(f"{where}cannot be read ({error.strerror}); check it and its permissions") from None
        deeper = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = shown(entry.name)
            try:
                status = entry.stat()
            except OSError as error:  # a broken or circular link
                if name.lower().endswith(".dcm"):
                    raise UhrctError(f"{name} cannot be read ({error.strerror}); restore or remove it") from None
                continue
            if stat.S_ISDIR(status.st_mode):
                deeper.append(Path(entry.path))
            elif stat.S_ISREG(status.st_mode):
                found.append(DicomFile(name, status.st_size, Path(entry.path)))
            elif name.lower().endswith(".dcm"):
                raise UhrctError(f"{name} is a pipe or a device, not a DICOM file; remove it")
        waiting += reversed(deeper)
    return found


def _in_zip(path: Path) -> list[DicomFile]:
    try:
        archive = zipfile.ZipFile(path)
        members = sorted((m for m in archive.infolist() if not m.filename.endswith("/")), key=lambda m: m.filename)
    except PermissionError:
        raise
    except Exception as error:  # zipfile also raises struct, decoding and arithmetic errors
        raise UhrctError(f"is not a zip file, or is damaged ({shown(str(error))}); copy it again") from None
    return [
        DicomFile(shown(member.filename.rsplit("/", 1)[-1]), member.file_size, path, member, archive)
        for member in members
        if not any(part.startswith(".") or part == "__MACOSX" for part in member.filename.split("/"))
    ]
