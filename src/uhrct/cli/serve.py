"""`uhrct serve`: upload, super-resolve, look at and download scans in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import READ_OPTIONS, Device, Quiet, as_options
from uhrct.cli.view import SERVER, OpenBrowser, Port, tell

LIMITS = "Limits"
#: arguments that messages on the page may name -> options of `uhrct upscale`
OPTIONS = READ_OPTIONS | {name: f"--{name}" for name in ("scale", "quality", "denoise", "format", "audit", "folder")}


def serve(
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where scans and results lie while the server runs. Default: the folder for temporary files.",
            rich_help_panel=SERVER,
            show_default=False,
        ),
    ] = None,
    port: Port = 0,
    open_browser: OpenBrowser = False,
    max_gb: Annotated[
        float,
        typer.Option(min=0.001, max=1000, help="Largest scan that can be uploaded, in GB.", rich_help_panel=LIMITS),
    ] = 4.0,
    max_scans: Annotated[
        int,
        typer.Option(min=1, max=100, help="Scans on the page at the same time, with results.", rich_help_panel=LIMITS),
    ] = 8,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Upload, super-resolve, look at and download scans in a browser, on this machine only."""
    from uhrct.serve.serve import serve as run
    from uhrct.serve.store import Limits

    run(
        limits=Limits(most_bytes=int(max_gb * 1e9), most_jobs=max_scans),
        folder=folder,
        port=port,
        device=device,
        ready=lambda address: tell(address, open_browser, quiet),
        wording=lambda text: as_options(text, OPTIONS),
    )
