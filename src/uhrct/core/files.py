"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError
from uhrct.core.workspace import Workspace

#: stands for stdout where a JSON file is written
STDOUT = Path("-")


@contextlib.contextmanager
def atomic(path: str | Path, *, overwrite: bool | None = None) -> Iterator[Path]:
    """A private temporary folder beside `path`. The entry in it that has the name of `path` is moved there at the end.

    A killed run leaves the old file, or none, but never half of a new one. On an exception the temporary folder is
    removed and `path` stays as it was. `overwrite` says whether an old entry is replaced. By default a file is
    replaced, and a folder only if it is empty.

    Raises
    ------
    UhrctError
        If the file system refuses. Errors of the caller that name the temporary entry name `path` instead.

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
        with Workspace(path) as work:
            try:
                yield work.new
            except UhrctError as error:
                raise type(error)(str(error).replace(str(work.new / path.name), str(path))) from error
            work.publish(overwrite=not (work.new / path.name).is_dir() if overwrite is None else overwrite)
    except OSError as error:
        raise UhrctError(f"{path}: cannot be written ({reason(error)})") from error


def reason(error: OSError) -> str:
    """Why a file could not be written, for messages.

    >>> reason(OSError(errno.ENOSPC, "No space left on device")), reason(FileExistsError(errno.EEXIST, "File exists"))
    ('No space left on device', 'another program has made it meanwhile; choose another name')
    """
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return "another program has made it meanwhile; choose another name"
    return error.strerror or str(error)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file, or nothing. Text is stored as UTF-8. Raises `UhrctError` if the file system refuses."""
    path = Path(path)
    with atomic(path) as folder:
        (folder / path.name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, data: Any) -> None:
    """Write plain values as a JSON file, or to stdout if `path` is `STDOUT`. Raises `UhrctError` as `write_atomic`.

    Example
    -------
    >>> write_json(STDOUT, {"voxels": 2})
    {
     "voxels": 2
    }
    """
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    if Path(path) == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(path, text)
