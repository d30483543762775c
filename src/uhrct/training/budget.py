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
        #: kept back for the validation at the end
        self.reserve = (0.0, 0.0)
        self._last: tuple[float, float] | None = None

    def part(self, share: float) -> Budget:
        """A new budget with a share of the limits."""
        return Budget(*(None if most is None else share * most for most in (self.max_minutes, self.max_cpu_minutes)))

    def used(self) -> float:
        """Share of the budget, less the reserve, that is used. The first call starts the clocks."""
        now = time.monotonic(), time.process_time()
        if self._last is not None:
            self.minutes += (now[0] - self._last[0]) / 60
            self.cpu_minutes += (now[1] - self._last[1]) / 60
        self._last = now
        parts = zip(
            (self.minutes, self.cpu_minutes), (self.max_minutes, self.max_cpu_minutes), self.reserve, strict=True
        )
        # at least half of the time is for training
        return max((spent / max(most - kept, most / 2) for spent, most, kept in parts if most is not None), default=0.0)

    def keep_for_the_end(self, minutes: float, cpu_minutes: float) -> None:
        """Reserve the time of one more validation, which took as long as this one.

        Example
        -------
        >>> budget = Budget(max_minutes=60)
        >>> budget.minutes = 45.0
        >>> budget.keep_for_the_end(minutes=10, cpu_minutes=20)
        >>> round(budget.used(), 3)
        0.9
        """
        self.reserve = (minutes, cpu_minutes)

    @property
    def spent(self) -> dict[str, float]:
        """Minutes so far, for the log."""
        return {"minutes": round(self.minutes, 3), "cpu_minutes": round(self.cpu_minutes, 3)}
