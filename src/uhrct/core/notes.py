"""Collect the warnings of one run, for its report."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    """Keeps the warnings that one thread logs: runs in other threads have their own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """The texts that uhrct logs as warnings inside the block, in order. They are still shown as usual.

    Example
    -------
    >>> with collected_warnings() as texts:
    ...     logging.getLogger("uhrct.upscaling").warning("3 voxels were clipped")
    >>> texts
    ['3 voxels were clipped']
    """
    collector, logger = _Collector(), logging.getLogger("uhrct")
    logger.addHandler(collector)
    try:
        yield collector.texts
    finally:
        logger.removeHandler(collector)
