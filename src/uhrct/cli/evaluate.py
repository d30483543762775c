"""`uhrct evaluate`: compare a volume with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import FORMATS, OUTPUT, Degradation, InputSpacing, Json, Overwrite, Quiet, parsed_spacing

LR = "Low-resolution scan"


def evaluate(
    reference: Annotated[Path, typer.Argument(help=f"The truth. {FORMATS}", show_default=False)],
    test: Annotated[
        Path,
        typer.Argument(
            help="The volume to compare with REFERENCE. It must be on the same voxel grid.", show_default=False
        ),
    ],
    json_path: Json = None,
    html_path: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with tables, plots and pictures.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    lr: Annotated[
        Path | None,
        typer.Option(
            help="The low-resolution scan that TEST was made from. Adds the metric consistency, and cubic "
            "interpolation of this scan as a baseline.",
            rich_help_panel=LR,
        ),
    ] = None,
    kind: Annotated[
        Degradation, typer.Option(help="How --lr was made from the truth.", rich_help_panel=LR)
    ] = Degradation.scanner,
    psf_fwhm_mm: Annotated[
        float | None,
        typer.Option(help="In-plane PSF of --lr, FWHM in mm. Default: 0.6 x pixel size of --lr.", rich_help_panel=LR),
    ] = None,
    count_padding: Annotated[
        bool,
        typer.Option(
            "--count-padding",
            help="Also count voxels beside the padding outside the field of view. By default a rim is left out.",
        ),
    ] = False,
    spacing_mm: InputSpacing = None,
    quiet: Quiet = False,
) -> None:
    """Compare a volume with the truth: fidelity, structure, vessels, texture."""
    from uhrct.evaluation.files import evaluate_files

    evaluate_files(
        reference,
        test,
        lr=lr,
        kind=kind.value,
        psf_fwhm_mm=psf_fwhm_mm,
        json_path=json_path,
        html_path=html_path,
        overwrite=overwrite,
        spacing_mm=parsed_spacing(spacing_mm),
        count_padding=count_padding,
        quiet=quiet,
    )
