"""`uhrct node`: a DICOM node that super-resolves what it receives and sends the results on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.core.errors import UhrctError


def node(
    config: Annotated[Path, typer.Argument(help="Configuration (YAML), see docs/node.md.", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration, ask every peer whether it is there, and stop.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say what the ledger holds and why series failed, and stop.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Process series that failed again, and send results that were given up."),
    ] = False,
) -> None:
    """Receive CT series (C-STORE, STOW-RS), super-resolve those that rules choose, send results to named peers."""
    from uhrct.node.config import load_config
    from uhrct.node.run import check_libraries, check_peers, run_node, status_lines, where

    settings = load_config(config)
    check_libraries(settings)
    if status:
        print("\n".join(status_lines(settings.outgoing)))
        return
    if not check:
        run_node(settings, retry_failed=retry_failed)
        return
    problems = check_peers(settings)
    print(f"{config}: {len(settings.rules)} rules, AE title {settings.ae_title}")
    for name, problem in problems.items():
        place = f" ({where(settings.peers[name])})" if name in settings.peers else ""
        print(f"{name}{place}: {problem or 'answers'}")
    if any(problems.values()):
        raise UhrctError(f"{config}: is right, but not every peer answers")
