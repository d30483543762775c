"""One uploaded file, from the network to the disk, piece by piece."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path

from uhrct.serve.store import Refused

#: A client that sends nothing for so long has given up.
QUIET_S = 20.0
#: After `GRACE_S`, a client must have sent so many bytes per second on average.
LEAST_RATE, GRACE_S = 20_000, 20.0
_PIECE = 1 << 20


async def save(pieces: AsyncIterator[bytes], path: Path, size: int) -> None:
    """Write a file of `size` bytes.

    Raises
    ------
    Refused
        If the client sends more or fewer bytes, or sends them too slowly.
    OSError
        If the disk refuses.
    """
    begun, received = time.monotonic(), 0
    held = bytearray()
    with path.open("xb", buffering=0) as file:
        iterator = aiter(pieces)
        while True:
            try:
                piece = await asyncio.wait_for(anext(iterator), QUIET_S)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise Refused(408, "the upload stood still; try again") from None
            held += piece
            received += len(piece)
            if received > size:
                raise Refused(413, "the file is larger than was announced")
            if time.monotonic() - begun > GRACE_S and received < LEAST_RATE * (time.monotonic() - begun):
                raise Refused(408, "the upload is too slow; try again")
            if len(held) >= _PIECE:
                await asyncio.to_thread(_write, file, held)
                held = bytearray()
        await asyncio.to_thread(_write, file, held)
    if received != size:
        raise Refused(400, "the upload is not complete; try again")


def _write(file: FileIO, data: bytearray) -> None:
    view = memoryview(data)
    while view:  # an unbuffered file may take a part only
        view = view[file.write(view) :]


async def small_body(pieces: AsyncIterator[bytes], most: int) -> bytes:
    """A whole body of at most so many bytes. Raises `Refused` if it is larger or does not come."""
    body = b""
    try:
        async with asyncio.timeout(QUIET_S):
            async for piece in pieces:
                body += piece
                if len(body) > most:
                    raise Refused(413, "the request is too large")
    except TimeoutError:
        raise Refused(408, "the request did not arrive") from None
    return body
