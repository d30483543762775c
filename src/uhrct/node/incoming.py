"""The folder of received files: one folder per series, each file complete and on disk before it has its name."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from uhrct.core.errors import UhrctError
from uhrct.io.dicom.files import Bounded, DicomFile
from uhrct.io.dicom.header import CT_IMAGE, ENHANCED_CT, read_header
from uhrct.node.log import LOG, short_hash

#: what is still being written; never a series
NEW = ".new"
CT_CLASSES = (CT_IMAGE, *ENHANCED_CT)
#: a file takes whole blocks of the disk
BLOCK_BYTES = 4096
UID_TEXT = re.compile(r"[0-9][0-9.]{0,63}", re.A)

#: status of C-STORE (PS3.4 table B.2-1)
OUT_OF_RESOURCES, NO_MATCH, NOT_UNDERSTOOD = 0xA700, 0xA900, 0xC000


class Refused(Exception):
    """An object that is not taken: the status of C-STORE, and the reason without patient data."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Taken:
    """An object that is on disk: the short hash of its series, and its UIDs."""

    series: str
    sop_class: str
    sop_instance: str


class Incoming:
    """Received files, below one folder. Several threads may use it.

    Parameters
    ----------
    folder : is made if it does not exist
    quota_bytes : all files together take at most so much
    max_object_bytes : size of one file
    """

    def __init__(self, folder: Path, quota_bytes: int, max_object_bytes: int) -> None:
        self.folder, self.quota_bytes, self.max_object_bytes = folder, quota_bytes, max_object_bytes
        self._new = folder / NEW
        try:
            if self._new.exists():
                shutil.rmtree(self._new)  # of a run that was killed; nobody was told that these files were taken
            self._new.mkdir(parents=True)
        except OSError as error:
            raise UhrctError(f"{folder}: cannot be used for received files ({error.strerror})") from error
        self._lock = threading.Lock()
        self._bytes = sum(_on_disk(f.stat().st_size) for s in self.series() for f in s.iterdir())

    @property
    def used_bytes(self) -> int:
        return self._bytes

    def series(self) -> list[Path]:
        """The folders of all series."""
        return [p for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith(".")]

    def take(self, parts: Iterable[bytes | memoryview], expected: tuple[str, str] | None = None) -> Taken:
        """Store one DICOM file. When this returns, it is on disk under its final name.

        Parameters
        ----------
        parts : the bytes of the file
        expected : (class UID, instance UID) that the sender stated

        Raises
        ------
        Refused
            If it is no CT, damaged, too large, does not fit into the quota, or differs from an object of this name.
        """
        name = self._new / secrets.token_hex(12)
        size = 0
        kept = False
        try:
            with name.open("wb") as file:
                for part in parts:
                    self._reserve(size, size + len(part))
                    size += len(part)
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            taken = self._checked(name, expected)
            kept = self._placed(name, taken)
            return taken
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise Refused(OUT_OF_RESOURCES, "the disk is full" if full else "the disk refuses") from error
        finally:
            name.unlink(missing_ok=True)
            if not kept:
                self._release(_on_disk(size))

    def remove(self, series: Path, before: float = math.inf) -> None:
        """Remove the files of a series that arrived before a time (in s since 1970)."""
        freed = 0
        for file in _files(series):
            with contextlib.suppress(OSError):
                status = file.stat()
                if status.st_mtime < before:
                    file.unlink()
                    freed += _on_disk(status.st_size)
        self._release(freed)
        with contextlib.suppress(OSError):  # a new file has arrived meanwhile
            series.rmdir()

    def _reserve(self, before: int, after: int) -> None:
        """Count a file that grows from so many bytes to so many."""
        if after > self.max_object_bytes + BLOCK_BYTES:  # the limit is for the object without its preamble
            raise Refused(OUT_OF_RESOURCES, f"larger than {self.max_object_bytes / 1e6:.0f} MB")
        more = _on_disk(after) - _on_disk(before)
        with self._lock:
            if self._bytes + more > self.quota_bytes:
                raise Refused(OUT_OF_RESOURCES, "the quota of received files is used up")
            self._bytes += more

    def _release(self, count: int) -> None:
        with self._lock:
            self._bytes -= count

    def _checked(self, file: Path, expected: tuple[str, str] | None) -> Taken:
        header, rest = _parsed(file)
        uids = [_uid(header, f"{what}UID") for what in ("SOPClass", "SOPInstance", "StudyInstance", "SeriesInstance")]
        sop_class, sop_instance, study, series = uids
        if sop_class not in CT_CLASSES or str(header.get("Modality")) != "CT":
            raise Refused(NO_MATCH, "no CT image")
        meta = header.file_meta
        stated = (meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID"))
        if (sop_class, sop_instance) not in (stated, expected) or expected not in (None, (sop_class, sop_instance)):
            raise Refused(NO_MATCH, "the object is not what the message says")
        if rest == 0:
            raise Refused(NOT_UNDERSTOOD, "no pixels")
        try:  # two patients never share a folder, even if their UIDs are the same by mistake
            patient = str(header.get("PatientID") or "")
        except Exception:
            raise Refused(NOT_UNDERSTOOD, "a damaged header") from None
        return Taken(short_hash(study, series, patient), sop_class, sop_instance)

    def _placed(self, file: Path, taken: Taken) -> bool:
        """Give a file its name. False if the same object is there already."""
        folder = self.folder / taken.series
        target = folder / f"{short_hash(taken.sop_instance)}.dcm"
        for _ in range(2):  # `remove` may take the folder away in between
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                _sync(self.folder)
                LOG.info("series %s: the first image has arrived", taken.series)
            try:
                os.link(file, target)  # unlike a rename, it replaces nothing
                _sync(folder)
                return True
            except FileExistsError:
                if _data_set(file) != _data_set(target):
                    raise Refused(NO_MATCH, f"series {taken.series} has another object with the same UID") from None
                return False
            except FileNotFoundError:
                continue
        raise Refused(OUT_OF_RESOURCES, "the folder of the series is being removed; send it again")


def _parsed(file: Path) -> tuple[Dataset, int | None]:
    try:
        parsed = read_header(DicomFile("the file", file.stat().st_size, file), alone=True)
    except UhrctError:
        raise Refused(NOT_UNDERSTOOD, "damaged, or no DICOM") from None
    assert parsed is not None  # it was named alone
    return parsed


def _uid(header: Dataset, key: str) -> str:
    try:
        value = str(header.get(key) or "")
    except Exception:
        value = ""
    if not UID_TEXT.fullmatch(value):
        raise Refused(NOT_UNDERSTOOD, f"no valid {key}")
    return value


def _data_set(file: Path) -> bytes:
    """The bytes after the file meta information, which names the program that sent the file."""
    with Bounded(file.open("rb")) as stream:
        start = stream.read(144)
        length = int.from_bytes(start[140:144], "little") if start[128:138] == b"DICM\x02\x00\x00\x00UL" else 0
        stream.seek(144 + length if length else 0)
        return stream.read()


def _files(series: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(p for p in series.iterdir() if p.is_file())


def _sync(folder: Path) -> None:
    """Make a new name in a folder survive a loss of power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _on_disk(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
