"""`uhrct node`: a DICOM node that super-resolves what it receives and sends the results on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.core.errors import UhrctError


def node(
    config: Annotated[Path, typer.Argument(help="Configuration (YAML), see docs/node.md.", show_default=False)],
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check configuration, folder and ports, ask every peer whether it is there, and stop."
        ),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say what the ledger holds and why series failed, and stop.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Process series that failed again, and send results that were given up."),
    ] = False,
) -> None:
    """Receive CT series (C-STORE, STOW-RS), super-resolve those that rules choose, send results to named peers.

    Without an option it runs until Ctrl-C or SIGTERM.
    """
    from uhrct.node.check import check_libraries, check_peers, check_places
    from uhrct.node.config import load_config
    from uhrct.node.run import run_node, status_lines, where

    if check + status + retry_failed > 1:
        raise UhrctError("--check, --status and --retry-failed exclude each other; give one of them")
    settings = load_config(config)
    check_libraries(settings)
    if status:
        print("\n".join(status_lines(settings)))
        return
    if not check:
        run_node(settings, retry_failed=retry_failed)
        return
    try:
        notes = check_places(settings)
    except UhrctError as error:
        raise UhrctError(f"{config}: {error}") from error
    problems = check_peers(settings)
    print(f"AE title {settings.ae_title}; rules: {', '.join(rule.name for rule in settings.rules)}")
    for name, problem in problems.items():
        place = f" ({where(settings.peers[name])})" if name in settings.peers else ""
        print(f"{name}{place}: {problem or 'answers'}")
    print("\n".join(notes), end="\n" if notes else "")
    if any(problems.values()):
        raise UhrctError(f"{config}: not every peer answers; the node may start, and results wait for their peers")
