"""`uhrct view`: look at a scan, its super-resolved versions and the truth in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import ADVANCED, FORMATS, OUTPUT, InputSpacing, Overwrite, Quiet, read_input, say
from uhrct.core.errors import UhrctError

SHOWN, SERVER = "What is drawn beside", "Server"
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1. 0: any free one.", rich_help_panel=SERVER)
]
OpenBrowser = Annotated[bool, typer.Option("--open", help="Open the page in the browser.", rich_help_panel=SERVER)]


def view(
    volumes: Annotated[
        list[Path],
        typer.Argument(
            metavar="[SCAN] RESULT ...",
            help=f"One volume: a result. Several: the scan, then its super-resolved versions. {FORMATS}",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path | None, typer.Option(help="The true fine scan, as another pane.", rich_help_panel=SHOWN)
    ] = None,
    overlay: Annotated[
        list[Path] | None,
        typer.Option(
            help="A map to draw over the result: a structure map, an uncertainty (uhrct upscale --spread), audit "
            "grades (uhrct audit --grades) or a mask. Can be given several times.",
            rich_help_panel=SHOWN,
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="LOWER UPPER",
            help="The two bounds of uhrct upscale --uncertainty. Their distance is an overlay.",
            rich_help_panel=SHOWN,
            show_default=False,
        ),
    ] = None,
    mesh: Annotated[
        Path | None,
        typer.Option(help="A surface in 3D, .stl or .obj (uhrct segment --mesh).", rich_help_panel=SHOWN),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Report of uhrct audit --json. Its findings become a list that jumps to each place.",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    html_path: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write one file that opens without a network, and serve nothing.", rich_help_panel=OUTPUT
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="Z0:Z1,Y0:Y1,X0:X1",
            help="The part to show, in voxels of the result, ends exclusive. Default: everything; with --html "
            "64 x 256 x 256 voxels around the worst finding or the middle of the body.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    port: Port = 0,
    open_browser: OpenBrowser = False,
    million_voxels: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=2000,
            help="Voxels that a pane may show, in millions; more are shown coarser. Less needs less graphics memory. "
            "Default: 168 for all panes together, at most 84 for one.",
            rich_help_panel=ADVANCED,
            show_default=False,
        ),
    ] = None,
    input_spacing: InputSpacing = None,
    quiet: Quiet = False,
) -> None:
    """Show a scan, results and the truth side by side in a browser, on this machine only."""
    from uhrct import io
    from uhrct.core.files import write_atomic
    from uhrct.viewer import server
    from uhrct.viewer.files import read_study
    from uhrct.viewer.page import page_in_one_file

    inputs = [*volumes, *(overlay or []), *(interval or []), *(p for p in (truth, mesh, audit) if p is not None)]
    for path in inputs:
        io.check_outputs(path, [], files=[html_path], overwrite=overwrite)
    if html_path is None:
        server.check_libraries()
    elif port or open_browser:
        raise UhrctError("--html writes a file and serves nothing; leave out --port and --open")
    study = read_study(
        lambda path: read_input(path, None, input_spacing if path.suffix == ".npz" else None, False),
        volumes,
        truth=truth,
        overlays=overlay or [],
        interval=interval,
        mesh=mesh,
        audit=audit,
        most_voxels=None if million_voxels is None else 1e6 * million_voxels,
    )
    first = study.first(box, small=html_path is not None)
    if html_path is not None:
        write_atomic(html_path, page_in_one_file(study, first))
        say(f"{html_path}: written. {study.describe(first)['text']}", quiet)
    else:
        server.serve(study, first, port=port, ready=lambda address: tell(address, open_browser, quiet))


def tell(address: str, open_browser: bool, quiet: bool) -> None:
    """Say where the page is, and open it if that is wanted."""
    print(address, flush=True)
    say("Open this address in a browser on this machine. Ctrl-C ends.", quiet)
    if open_browser:
        import webbrowser

        webbrowser.open(address)
