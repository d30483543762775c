"""Voxels of one file, plain or packed. No more is read, unpacked or reserved than the header and the file justify."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.io.image_header import ImageHeader

#: Most bytes that a packed stream may unpack to: `FREE_BYTES` + `MOST_RATIO` for each packed byte. CT packs by 2 to 5,
#: masks and noise-free phantoms by several hundred, a bomb by a thousand.
FREE_BYTES, MOST_RATIO = 512 << 20, 100
#: Deflate packs at most 1032 bytes into one.
MOST_DEFLATE = 1032
#: Bytes after the last voxel that are ignored, if they are less than a slice. More of them show a wrong header.
SPARE_BYTES = 4096
_PIECE = 1 << 20
#: Packed bytes are read in small pieces, because the rest of a piece is copied at the end of each gzip member.
_PACKED_PIECE = 1 << 14
#: Empty gzip members in one file. Some programs write one at the end; more of them only cost time.
_MOST_EMPTY = 16
_TRUNCATED = "file is truncated; copy or export it again"


class Unpacked:
    """Reads a plain, gzip, zlib or bzip2 stream from start to end, and unpacks only what is asked for."""

    def __init__(self, file: BinaryIO, packing: str) -> None:
        self._pieces = _pieces(file, packing)
        self._rest = b""

    def read(self, count: int) -> bytes:
        """At most `count` bytes, b"" at the end.

        Raises
        ------
        UhrctError
            If the packed stream is damaged or truncated.
        """
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:count], self._rest[count:]
        return piece

    def read_all(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end."""
        found = b""
        while len(found) < count and (piece := self.read(count - len(found))):
            found += piece
        return found


def check_size(header: ImageHeader) -> None:
    """Raise `UhrctError` if the file is too small for the voxels that its header states."""
    needed, held = header.skip + header.voxel_bytes, header.file.stat().st_size - header.start
    if header.packing == "raw":
        if held < needed:
            raise UhrctError(_TRUNCATED)
        return
    most = FREE_BYTES + MOST_RATIO * held
    if header.packing != "bzip2":
        most = min(most, MOST_DEFLATE * held)
    if needed > most:
        raise UhrctError(
            f"file is truncated or damaged: its header states {needed >> 20} MB of voxels, but {max(held, 0)} packed "
            "bytes cannot hold a CT of this size; copy or export it again"
        )


def read_voxels(header: ImageHeader) -> np.ndarray:
    """Stored values, shape (z, y, x).

    Raises
    ------
    UhrctError
        If voxels are missing or damaged, if there are more than the header states, or if memory is too small.
    """
    check_size(header)
    try:
        values = np.empty(header.shape, header.dtype)
    except MemoryError:
        raise UhrctError(f"not enough memory for {header.voxel_bytes >> 20} MB of voxels; crop it first") from None
    target = values.reshape(-1).view(np.uint8)
    with header.file.open("rb") as file:
        file.seek(header.start)
        stream = Unpacked(file, header.packing)
        left = header.skip
        while left and (piece := stream.read(left)):
            left -= len(piece)
        filled = 0
        while filled < len(target):
            piece = stream.read(len(target) - filled)
            if not piece:
                raise UhrctError(_TRUNCATED if header.packing == "raw" else _too_short(header))
            target[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        _check_end(stream, min(SPARE_BYTES, len(target) // header.shape[0] - 1))
    return values


def _check_end(stream: Unpacked, most: int) -> None:
    """Read to the end, so that a checksum is verified; stop early if far more follows than the header states."""
    spare = 0
    while piece := stream.read(_PIECE):
        spare += len(piece)
        if spare > most:
            raise UhrctError("damaged header: its image size is smaller than the file's voxels; export it again")


def _too_short(header: ImageHeader) -> str:
    return (
        f"file is truncated or damaged: its voxels do not fill its size of {header.voxel_bytes} bytes; "
        "copy or export it again"
    )


def _pieces(file: BinaryIO, packing: str) -> Iterator[bytes]:
    """The unpacked content in pieces of at most 1 MB, each made when it is asked for."""
    if packing == "raw":
        yield from iter(lambda: file.read(_PIECE), b"")
        return
    empty = 0
    packed = file.read(_PACKED_PIECE)
    while True:
        decoder, length = _decoder(packing), 0
        try:
            while not decoder.eof:
                piece = decoder.decompress(packed, _PIECE)
                if piece:
                    length += len(piece)
                    yield piece
                packed = _next_input(decoder, file)
                if not (packed or piece or decoder.eof):
                    raise UhrctError(f"{packing} stream is truncated; copy or export the file again")
        except (zlib.error, OSError, EOFError) as error:
            raise UhrctError(f"damaged or truncated {packing} stream ({error}); copy or export it again") from None
        if packing != "gzip":
            return
        # further members of a gzip file, after zeros that some tapes and programs add
        packed = decoder.unused_data.lstrip(b"\0")
        while not packed:
            more = file.read(_PACKED_PIECE)
            if not more:
                return
            packed = more.lstrip(b"\0")
        empty += length == 0
        if empty > _MOST_EMPTY:
            raise UhrctError("damaged gzip stream (many empty parts); copy or export it again")


def _decoder(packing: str) -> Any:
    """A decompressor. MetaIO writes zlib streams and also reads gzip streams: 47 accepts both."""
    return bz2.BZ2Decompressor() if packing == "bzip2" else zlib.decompressobj(31 if packing == "gzip" else 47)


def _next_input(decoder: Any, file: BinaryIO) -> bytes:
    if decoder.eof:
        return b""
    if isinstance(decoder, bz2.BZ2Decompressor):
        return file.read(_PACKED_PIECE) if decoder.needs_input else b""
    return decoder.unconsumed_tail or file.read(_PACKED_PIECE)
