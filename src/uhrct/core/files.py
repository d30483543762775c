"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from uhrct.core.errors import UhrctError


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A private temporary folder beside `path`. The entry in it that has the name of `path` is moved there at the end.

    A killed run leaves the old file, or none, but never half of a new one. On an exception the temporary folder is
    removed and `path` stays as it was.

    Raises
    ------
    UhrctError
        If the file system refuses.

    Example
    -------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic(target) as folder:
    ...     _ = (folder / "a.txt").write_text("complete")
    >>> target.read_text()
    'complete'
    """
    path = Path(path)
    try:
        tmp = temporary_folder(path)
        try:
            yield tmp
            move_into_place(tmp / path.name, path)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    except OSError as error:
        raise UhrctError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file, or nothing. Text is stored as UTF-8. Raises `UhrctError` if the file system refuses."""
    path = Path(path)
    with atomic(path) as folder:
        (folder / path.name).write_bytes(content.encode() if isinstance(content, str) else content)


def temporary_folder(path: Path) -> Path:
    """A new private folder on the same file system as `path`, so that a rename from it is atomic."""
    return Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=".uhrct-", suffix=".tmp"))


def move_into_place(made: Path, final: Path) -> None:
    """Rename a finished file or folder to its final name. A folder replaces only an empty folder."""
    if final.is_dir():
        final.rmdir()  # fails unless empty: two series must never mix
    os.replace(made, final)
