"""A process of its own for each piece of work on a scan: a damaged file or a full memory cannot end the server.

It stands in the folder of its job and names files relative to it, so that no message holds a path of the server. Each
message is a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.serve.wishes import FORMATS, Wish

if TYPE_CHECKING:
    from uhrct.core.volume import Volume
    from uhrct.upscaling.plan import Plan

#: Folder for the results, in that of the job.
MADE = Path("made")
REPORT, GRADES, AUDIT = MADE / "report.json", MADE / "grades.nii.gz", MADE / "audit.json"
#: Between two looks whether the server still lives.
_LOOK_S = 1.0
Say = Callable[..., None]


@dataclass(frozen=True)
class Task:
    """What one process does: list the series of a scan, or with a wish, super-resolve one.

    Attributes
    ----------
    folder : of the job
    scan : file or folder, relative to it
    wish : None: list
    device : where to compute
    kept_free : bytes of the disk that stay free
    """

    folder: Path
    scan: Path
    wish: Wish | None = None
    device: str = "auto"
    kept_free: int = 0


def main(task: Task, pipe: Connection) -> None:
    """Entry point of the process. The last message is "end", or "error" with one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the server decides
    # SIGTERM ends this process at once. The server removes what is unfinished.
    if os.environ.get("UHRCT_DEBUG") != "1":  # what libraries print may hold patient data
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    threading.Thread(target=_end_with_the_server, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(OSError):  # when memory is short, Linux shall end this process and not the server
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.chdir(task.folder)
    os.umask(0o077)

    def say(kind: str, **values: Any) -> None:
        pipe.send_bytes(json.dumps({"kind": kind, **values}).encode())

    try:
        notes = _collect_notes(say)
        if task.wish is None:
            _list(task, say)
        else:
            _upscale(task, task.wish, say, notes)
        say("end")
    except UhrctError as error:
        say("error", text=" ".join(str(error).split()))
    except MemoryError:
        say("error", text="not enough memory for this scan and these settings")
    except Exception as error:
        # without the text of the exception, which may hold patient data
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
        say("error", text=f"internal error ({place}); please report it")


def _end_with_the_server(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _collect_notes(say: Say) -> list[str]:
    """Send what is logged or warned about to the page; the list has all of it at the end."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    def note(what: object) -> None:
        notes.append(" ".join(str(what).split()))
        say("note", text=notes[-1])

    notes: list[str] = []
    logging.getLogger().handlers[:] = [Notes(logging.WARNING)]
    warnings.showwarning = lambda message, *_, **__: note(message)
    return notes


def _list(task: Task, say: Say) -> None:
    from uhrct import io

    found = [
        {
            "number": s.number,
            "text": f"{s.kind} {s.modality}".strip(),
            "description": s.description,
            "size": " x ".join(map(str, s.shape)) if s.shape else "",
            "spacing": " x ".join(f"{v:.3g}" for v in s.spacing_mm) if s.spacing_mm else "",
            "plane": s.orientation,
            "scanner": s.scanner,
            "problem": s.problem,
            "needs": s.needs,
            "notes": list(s.notes),
        }
        for s in io.inspect(task.scan)
    ]
    say("series", series=found)


def _upscale(task: Task, wish: Wish, say: Say, notes: list[str]) -> None:
    from uhrct import io
    from uhrct.core.files import write_json
    from uhrct.core.memory import keep_freed_memory
    from uhrct.upscaling.plan import make_plan
    from uhrct.upscaling.words import plan_lines

    keep_freed_memory()
    MADE.mkdir(mode=0o700)
    say("stage", text="reading the scan")
    dicom = io.paths.is_dicom(io.paths.readable(task.scan)[1])
    volume = io.read(task.scan, series=str(wish.series) if dicom else None, untilt=wish.untilt)
    say("stage", text="measuring noise and blur of the scan")
    plan = make_plan(volume, wish.settings(task.device))
    _check_room(plan, volume, wish, task)
    say("plan", lines=plan_lines(plan, volume))
    own = "" if dicom else io.paths.known_suffix(task.scan)
    output = MADE / f"result{FORMATS.get(wish.format, own)}"
    report, lines, shown = _compute(plan, volume, wish, output, say)
    write_json(REPORT, report | {"warnings": notes})
    say("result", file=str(output), lines=lines, shown=shown)


def _check_room(plan: Plan, volume: Volume, wish: Wish, task: Task) -> None:
    """Raise `UhrctError` if the disk has no room for the result, uncompressed."""
    import math

    needed = math.prod(plan.grid.shape) * (volume.hu.dtype.itemsize + 2 * wish.audit)
    free = shutil.disk_usage(task.folder).free - task.kept_free
    if needed > free:
        raise UhrctError(
            f"the result needs up to {needed / 1e6:.0f} MB and the disk of the server has {max(free, 0) / 1e6:.0f} MB; "
            "delete scans, or start uhrct serve with another --folder"
        )


def _compute(
    plan: Plan, volume: Volume, wish: Wish, output: Path, say: Say
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """The report, the same in words, and the files that the viewer shows."""
    from uhrct import io
    from uhrct.core.files import write_json
    from uhrct.upscaling.files import work_in_words, write_result
    from uhrct.upscaling.words import agreement

    factor = plan.model.config.scale[0]

    def progress(first: int, hu: np.ndarray) -> None:
        say("done", count=(first + len(hu)) / factor)

    with contextlib.ExitStack() as stack:
        listeners = []
        grader = None
        if wish.audit:
            from uhrct.audit.audit import Audit

            say("stage", text="looking for lungs")
            writer = stack.enter_context(io.open_writer(GRADES, plan.grid, dtype=np.int16))
            grader = Audit(volume, plan, take_grades=writer.write)
            listeners.append(grader.feed)
        say("stage", text=f"computing {work_in_words(plan)}", total=volume.shape[0])
        report = write_result(plan, volume, output, listeners=[*listeners, progress], quiet=True)
    lines = [_result_line(plan, report), agreement(plan, report)]
    shown = {"result": str(output)}
    if grader is not None:
        from uhrct.audit.page import sentence

        report["audit"] = grader.report()
        lines.append(sentence(report["audit"]))
        write_json(AUDIT, report["audit"])
        shown |= {"audit": str(AUDIT), "grades": str(GRADES)}
    return report, lines, shown


def _result_line(plan: Plan, report: dict[str, Any]) -> str:
    from uhrct.upscaling.plan import format_mm

    shape = " x ".join(map(str, plan.grid.shape))
    return f"{shape} voxels of {format_mm(plan.grid.spacing_mm)} in {report['seconds']:.1f} s"
