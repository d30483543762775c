"""The log of a node: lines on stderr without patient data. A series is named by a short hash."""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import traceback
import warnings
from pathlib import Path

LOG = logging.getLogger("uhrct.node")
#: libraries whose messages may show UIDs or other values of a file
TALKATIVE = ("pydicom", "pynetdicom", "uvicorn", "urllib3", "requests", "asyncio")


def start_log() -> None:
    """Log to stderr, and silence everything that could show a value of a DICOM file."""
    if not LOG.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s uhrct node: %(message)s"))
        LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.excepthook = _of_thread


def short_hash(*parts: str) -> str:
    """16 hexadecimal digits that stand for UIDs in names of folders and in the log.

    Example
    -------
    >>> short_hash("1.2.3")
    'c47f5b18b8a430e6'
    """
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def in_short(error: BaseException) -> str:
    """Kind and place of an error, without its text, which may hold patient data."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        LOG.warning("a connection ended with an error (%s)", in_short(args.exc_value))
