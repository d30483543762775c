"""Read what a list on standard input names, with at most 1 GB more memory than an ordinary scan needs.

A program of its own, because a limit of memory holds for a whole process: see `test_zoo.py`. Each line in is
[path, options] as JSON, each line out what `read` answered: "refused: ...", "read" or the name of another error.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

from uhrct import io
from uhrct.core.errors import UhrctError

GB = 1 << 30


def main() -> None:
    warnings.simplefilter("ignore")
    for plain in sys.argv[1:]:
        io.read(plain)  # loads every library that a scan needs, before memory is counted
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + GB, before + GB))
    signal.signal(signal.SIGALRM, _late)
    for line in sys.stdin:
        path, options = json.loads(line)
        start = time.monotonic()
        signal.alarm(20)
        try:
            io.read(path, **options)
            answer = "read"
        except UhrctError as error:
            answer = f"refused: {error}"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        signal.alarm(0)
        print(json.dumps([answer, time.monotonic() - start]), flush=True)
    print(json.dumps(["peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


def _late(*_: object) -> None:
    raise TimeoutError("reading hangs")


if __name__ == "__main__":
    main()
