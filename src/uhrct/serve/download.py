"""A folder as a zip that is made while it is sent: it takes no room on the disk, and little memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

_PIECE = 1 << 20


class _Outbox(io.RawIOBase):
    """A file that can only be written; what was written is taken out piece by piece."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._held += view
        return view.nbytes

    def taken(self) -> bytes:
        """What was written since the last call."""
        out = bytes(self._held)
        self._held.clear()
        return out


def zip_pieces(folder: Path, name: str) -> Iterator[bytes]:
    """The bytes of a zip with the files of a folder, which is called `name` in it. Files are stored as they are.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "1.dcm").write_bytes(b"abc")
    >>> with zipfile.ZipFile(io.BytesIO(b"".join(zip_pieces(folder, "result")))) as made:
    ...     made.read("result/1.dcm")
    b'abc'
    """
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(f"{name}/{file.relative_to(folder).as_posix()}")
            with file.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    yield outbox.taken()
    yield outbox.taken()
