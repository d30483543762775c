"""The command line: one module per command, and what happens to errors."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from uhrct.cli.app import INTERNAL, NOTES, USAGE, Command, exit_code, note, one_line
from uhrct.cli.audit import audit
from uhrct.cli.batch import batch
from uhrct.cli.benchmark import benchmark, train_peer
from uhrct.cli.calibrate import calibrate
from uhrct.cli.degrade import degrade
from uhrct.cli.detect import detect
from uhrct.cli.evaluate import evaluate
from uhrct.cli.export import export
from uhrct.cli.info import info, models
from uhrct.cli.node import node
from uhrct.cli.phantom import phantom
from uhrct.cli.segment import segment
from uhrct.cli.serve import serve
from uhrct.cli.slicer import described, with_command
from uhrct.cli.structure import structure
from uhrct.cli.train import pack, train
from uhrct.cli.upscale import upscale
from uhrct.cli.view import view
from uhrct.core.errors import UhrctError
from uhrct.core.memory import keep_freed_memory

app = typer.Typer(
    help="Super-resolution of CT scans. Research use only; not a medical device.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done, 1 internal error, 2 wrong options or existing outputs, 3 input refused, "
    "4 nothing to do. See docs/report.md.",
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "Super-resolution": (upscale, batch, serve, view, node, info, models),
    "Tasks": (segment, detect),
    "Evaluation": (evaluate, audit, degrade, structure, phantom),
    "Training and comparison": (pack, train, calibrate, export, benchmark, train_peer),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=panel)(command)


def _version(wanted: bool) -> None:
    if wanted:
        from uhrct.core.version import __version__

        print(__version__)
        raise typer.Exit


def _xml(wanted: bool) -> None:
    if wanted:
        print(described(), end="")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
    xml: Annotated[
        bool,
        typer.Option(
            "--xml",
            help="Describe uhrct upscale for 3D Slicer and stop (docs/slicer.md).",
            is_eager=True,
            callback=_xml,
        ),
    ] = False,
) -> None:
    # no docstring: typer would show it instead of the help text of the app
    pass


#: exit code after Ctrl-C
INTERRUPTED = 130
#: of click, whichever copy of it typer holds
UsageError: Any = typer.BadParameter.__bases__[0]


class Notes(logging.Handler):
    """Prints log records as notes, and keeps them for the report."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def main() -> None:
    """Entry point. An error of the user becomes one line and an exit code (docs/report.md), without a traceback."""
    NOTES.clear()
    keep_freed_memory()
    root = logging.getLogger()
    if not any(isinstance(handler, Notes) for handler in root.handlers):
        root.addHandler(Notes())
    warnings.showwarning = lambda message, *_, **__: note(message)
    # as Ctrl-C does, raise an exception: unfinished outputs are then removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        code = app(with_command(sys.argv[1:]), standalone_mode=False)
        if code == INTERRUPTED:
            _fail("interrupted; what was not complete is removed", INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)
    except UsageError as e:
        _fail_usage(e)
    except UhrctError as e:
        _fail(e, exit_code(e))
    except BrokenPipeError:
        sys.exit(1)
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        _fail(f"{where}{e.strerror or e}", USAGE)
    except Exception as e:
        # torch reports a lack of memory only in the text of a RuntimeError, and the linker in that of an ImportError
        known = isinstance(e, RuntimeError | ImportError)
        if isinstance(e, MemoryError) or (known and re.search("out of memory|allocate memory|failed to map", str(e))):
            _fail("not enough memory; try a smaller --tile, or --device cpu if a GPU ran out", USAGE)
        _report_bug(e)


def _fail(what: object, code: int) -> NoReturn:
    print(f"uhrct: {one_line(what)}", file=sys.stderr)
    sys.exit(code)


def _fail_usage(error: Any) -> NoReturn:
    """One line instead of typer's box of five, except that a command without arguments shows its help."""
    if error.ctx is None or "NoArgsIsHelp" in type(error).__name__:
        error.show()
        sys.exit(USAGE)
    what = error.format_message().replace("Value error, ", "").rstrip(".")
    _fail(f"{what}; '{error.ctx.command_path} --help' lists what there is", USAGE)


def _report_bug(error: Exception) -> NoReturn:
    """One line about a mistake of ours. The text of the exception is left out, because it may hold patient data."""
    if os.environ.get("UHRCT_DEBUG") == "1":
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "uhrct" in Path(f.filename).parts] or frames
    place = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}"
    _fail(
        f"internal error ({type(error).__name__} in {place}); please report it, with the traceback that "
        "UHRCT_DEBUG=1 prints",
        INTERNAL,
    )
