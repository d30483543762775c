"""The command line: one module per command, and what happens to errors."""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from uhrct.cli.app import Command, one_line
from uhrct.cli.benchmark import benchmark, train_peer
from uhrct.cli.degrade import degrade
from uhrct.cli.evaluate import evaluate
from uhrct.cli.info import info, models
from uhrct.cli.phantom import phantom
from uhrct.cli.structure import structure
from uhrct.cli.train import pack, train
from uhrct.cli.upscale import upscale
from uhrct.core.errors import UhrctError

app = typer.Typer(
    help="Super-resolution of CT scans. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    "Super-resolution": (upscale, info, models),
    "Evaluation": (evaluate, degrade, structure, phantom),
    "Training and comparison": (pack, train, benchmark, train_peer),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=panel)(command)


def _version(wanted: bool) -> None:
    if wanted:
        from uhrct.core.version import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    # no docstring: typer would show it instead of the help text of the app
    pass


def main() -> None:
    """Entry point. An error of the user becomes one line and exit code 2, without a traceback."""
    logging.basicConfig(format="uhrct: note: %(message)s", stream=sys.stderr)

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"uhrct: note: {one_line(message)}", file=sys.stderr)

    warnings.showwarning = note
    # as Ctrl-C does, raise an exception: unfinished outputs are then removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except UhrctError as e:
        _fail(e)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        _fail(f"{where}{e.strerror or e}")
    except (MemoryError, RuntimeError, ImportError) as e:
        # torch reports a lack of memory only in the text of a RuntimeError, and the linker in that of an ImportError
        if not isinstance(e, MemoryError) and not re.search("out of memory|allocate memory|failed to map", str(e)):
            raise
        _fail("not enough memory; try a smaller --tile, or --device cpu if a GPU ran out")


def _fail(what: object) -> NoReturn:
    print(f"uhrct: {one_line(what)}", file=sys.stderr)
    sys.exit(2)
