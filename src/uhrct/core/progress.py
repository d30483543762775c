"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere, nothing if quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, *, quiet: bool = False, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show the progress on stderr.

    Example
    -------
    >>> list(track(range(3), "slices", quiet=True))
    [0, 1, 2]
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if quiet:
        yield from items
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, what, total=total, console=Console(stderr=True), transient=True)
    else:
        yield from _lines(items, what, total)


def _lines(items: Iterable[T], what: str, total: int | None, every_s: float = 10.0) -> Iterator[T]:
    begin = last = time.monotonic()
    done = 0
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            left = f", {(now - begin) / done * (total - done):.0f} s left" if total and done else ""
            print(f"{what}: {done}{f'/{total}' if total else ''}{left}", file=sys.stderr, flush=True)
        yield item
    print(f"{what}: done in {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
