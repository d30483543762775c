"""How long a training may take, and how long it has taken."""

from __future__ import annotations

import time

from uhrct.core.errors import UhrctError


class Budget:
    """Minutes of wall-clock time and of processor time: spent so far, and at most.

    Parameters
    ----------
    max_minutes : wall-clock time; None: no limit
    max_cpu_minutes : processor time over all threads, which is fair to trainings that share a busy machine

    Raises
    ------
    UhrctError
        If a limit is not above 0.

    Example
    -------
    >>> budget = Budget(max_minutes=60)
    >>> budget.minutes = 30.0  # spent before the training was resumed
    >>> budget.used(), round(budget.used(), 3)
    (0.5, 0.5)
    """

    def __init__(self, max_minutes: float | None = None, max_cpu_minutes: float | None = None) -> None:
        for argument, most in {"max_minutes": max_minutes, "max_cpu_minutes": max_cpu_minutes}.items():
            if most is not None and not most > 0:
                raise UhrctError(f"{argument}={most}: give a number above 0")
        self.max_minutes, self.max_cpu_minutes = max_minutes, max_cpu_minutes
        #: spent, over all resumed parts
        self.minutes = self.cpu_minutes = 0.0
        self._last: tuple[float, float] | None = None

    def part(self, share: float) -> Budget:
        """A new budget with a share of the limits."""
        return Budget(*(None if most is None else share * most for most in (self.max_minutes, self.max_cpu_minutes)))

    def used(self) -> float:
        """Share of the budget that is used. The first call starts the clocks."""
        now = time.monotonic(), time.process_time()
        if self._last is not None:
            self.minutes += (now[0] - self._last[0]) / 60
            self.cpu_minutes += (now[1] - self._last[1]) / 60
        self._last = now
        pairs = ((self.minutes, self.max_minutes), (self.cpu_minutes, self.max_cpu_minutes))
        return max((spent / most for spent, most in pairs if most is not None), default=0.0)

    @property
    def spent(self) -> dict[str, float]:
        """Minutes so far, for the log."""
        return {"minutes": round(self.minutes, 3), "cpu_minutes": round(self.cpu_minutes, 3)}
