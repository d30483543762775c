"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere, nothing if quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

T = TypeVar("T")

#: between two lines
EVERY_S = 10.0
#: work before the whole time is estimated; the first passes are slower than the others
WARM_UP_S = 5.0
#: longer work is announced
LONG_S = 120.0


class Progress:
    """Shows on stderr how much of some work is done.

    Parameters
    ----------
    what : str
        Name of the work.
    total : float, optional
        Amount of work. None: unknown.
    unit : str
        What the amounts count, such as "slices".
    quiet : bool
        Show nothing.
    announce : str
        Describes the whole work. If it will take more than two minutes, one line says so soon after the start: "about
        14 minutes on this machine (8 samples of 120 slices)".

    Example
    -------
    >>> with Progress("upscale", total=3, unit="slices", quiet=True) as progress:
    ...     for _ in range(3):
    ...         progress.advance()
    """

    def __init__(
        self, what: str, total: float | None = None, *, unit: str = "", quiet: bool = False, announce: str = ""
    ) -> None:
        self.what, self.total, self.unit, self.quiet = what, total, unit, quiet
        self._announce = announce
        self._done = 0.0
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if self.quiet:
            return self
        self._begin = self._last = time.monotonic()
        if sys.stderr.isatty():
            self._bar = _bar(self.unit)
            self._bar.add_task(self.what, total=self.total)
            self._bar.start()
        return self

    def advance(self, amount: float = 1) -> None:
        """State that an amount of work was done since the last call. It may be a fraction."""
        if self.quiet:
            return
        self._done += amount
        now = time.monotonic()
        if self._announce and self.total and now - self._begin >= WARM_UP_S:
            whole_s = (now - self._begin) / self._done * self.total
            if whole_s > LONG_S:
                print(f"about {duration(whole_s)} on this machine ({self._announce})", file=sys.stderr, flush=True)
            self._announce = ""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], amount)
        elif now - self._last >= EVERY_S:
            self._last = now
            print(f"{self.what}: {self._state(now)}", file=sys.stderr, flush=True)

    def _state(self, now: float) -> str:
        unit = f" {self.unit}" if self.unit else ""
        # a little more than nothing: the sum of fractions is not exact
        done = int(self._done + 1e-6)
        if not self.total:
            return f"{done}{unit}"
        left_s = (now - self._begin) / self._done * (self.total - self._done)
        return f"{done} of {self.total:g}{unit}, {duration(left_s)} left"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not self.quiet:
            took_s = time.monotonic() - self._begin
            print(f"{self.what}: done in {took_s:.1f} s", file=sys.stderr, flush=True)


def track(items: Iterable[T], what: str, *, quiet: bool = False, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show the progress on stderr. An item is done when the next one is asked for.

    Example
    -------
    >>> list(track(range(3), "slices", quiet=True))
    [0, 1, 2]
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total, quiet=quiet) as progress:
        for item in items:
            yield item
            progress.advance()


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(44.6), duration(14 * 60), duration(3.5 * 3600)
    ('45 s', '14 minutes', '3.5 hours')
    """
    if seconds < LONG_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _bar(unit: str) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(" of "),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=Console(stderr=True), transient=True)
