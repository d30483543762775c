"""Bodies of type multipart/related (RFC 2387), as DICOMweb sends DICOM files: read from a file, and written."""

from __future__ import annotations

import mmap
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

#: a part has a few short header lines
MOST_HEADER_BYTES = 8192
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.I)


class NotMultipart(Exception):
    """The body, or its content type, is not multipart/related as DICOMweb has it."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a content type states. Raises `NotMultipart`.

    Example
    -------
    >>> boundary_of('multipart/related; type="application/dicom"; boundary=abc')
    b'abc'
    """
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().strip().startswith("multipart/related") or found is None:
        raise NotMultipart("the content type is not multipart/related with a boundary")
    return (found[1] or found[2]).encode("latin-1", "replace")


def parts_of(file: BinaryIO, boundary: bytes) -> Iterator[memoryview]:
    """The contents of all parts, without copies. Use each before the next is asked for.

    Raises
    ------
    NotMultipart
        If the body does not begin or end as it should.
    """
    file.seek(0, 2)
    if not file.tell():
        raise NotMultipart("the body is empty")
    edge = b"--" + boundary
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body, memoryview(body) as view:
        at = body.find(edge)
        if at < 0 or (at > 0 and body[at - 2 : at] != b"\r\n"):
            raise NotMultipart("the body has no boundary")
        while body[at + len(edge) : at + len(edge) + 2] != b"--":
            start = body.find(b"\r\n\r\n", at, at + MOST_HEADER_BYTES)
            end = body.find(b"\r\n" + edge, start) if start >= 0 else -1
            if end < 0:
                raise NotMultipart("a part does not end")
            with view[start + 4 : max(end, start + 4)] as part:
                yield part
            at = end + 2


def body_of(files: Sequence[Path]) -> tuple[bytes, str]:
    """A body with some DICOM files, and its content type."""
    edge = uuid.uuid4().hex.encode()
    head = b"--" + edge + b"\r\nContent-Type: application/dicom\r\n\r\n"
    body = b"".join(piece for file in files for piece in (head, file.read_bytes(), b"\r\n"))
    return body + b"--" + edge + b"--\r\n", f'multipart/related; type="application/dicom"; boundary={edge.decode()}'
