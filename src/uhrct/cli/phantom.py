"""`uhrct phantom`: make a chest whose structure is known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import OUTPUT, Quiet, numbers

GRID, IMAGING = "Grid", "Imaging"


class Family(StrEnum):
    train, test = "train", "test"


class Imaging(StrEnum):
    model, projections = "model", "projections"


class Beam(StrEnum):
    fan, parallel = "fan", "parallel"


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder for image, truth and masks.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Selects the chest. The same seed gives the same bytes.")] = 0,
    family: Annotated[
        Family,
        typer.Option(help="Parameter ranges of the chests: train, or test (ranges that do not overlap with train)."),
    ] = Family.train,
    name: Annotated[
        str, typer.Option("--image", help="File name of the image. Its suffix selects the format.")
    ] = "ct.nii.gz",
    shape: Annotated[
        str | None,
        typer.Option(
            help="Number of voxels Z,Y,X, each from 8 to 4096. Default: 512,512,512; with --spacing: as many as needed "
            "to cover the chest.",
            rich_help_panel=GRID,
        ),
    ] = None,
    spacing_mm: Annotated[
        str | None,
        typer.Option(
            "--spacing",
            help="Voxel spacing Z,Y,X in mm. Default: chosen so that the grid covers the "
            "chest (0.625,0.781,0.781 for 512,512,512).",
            rich_help_panel=GRID,
        ),
    ] = None,
    centre_mm: Annotated[
        str | None,
        typer.Option("--centre", help="Centre of the grid Z,Y,X in mm. Use it to show a detail.", rich_help_panel=GRID),
    ] = None,
    dose: Annotated[
        float,
        typer.Option(
            help="Relative dose. 1: usual chest scan; 0: no noise. The noise is proportional to 1 / sqrt(dose).",
            rich_help_panel=IMAGING,
        ),
    ] = 1.0,
    imaging: Annotated[
        Imaging,
        typer.Option(
            help="model: PSF and noise; projections: photons and filtered back-projection.", rich_help_panel=IMAGING
        ),
    ] = Imaging.model,
    kernel: Annotated[
        str,
        typer.Option(
            help="Kernel: standard or sharp. The model also takes a name (B30f, GE LUNG), or the 50 % and 10 % points "
            "of the MTF in line pairs per cm (3.5,5.9); there it shapes the noise.",
            rich_help_panel=IMAGING,
        ),
    ] = "standard",
    beam: Annotated[Beam, typer.Option(help="Geometry of the projections.", rich_help_panel=IMAGING)] = Beam.fan,
    psf_fwhm_mm: Annotated[
        float | None, typer.Option(help="In-plane PSF, FWHM in mm. Default: 0.6 x pixel size.", rich_help_panel=IMAGING)
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a folder that holds nothing but files with the names of this phantom.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make a chest CT whose vessels, airways, lobes and nodules are known exactly."""
    from uhrct.phantom.make import phantom_folder

    phantom_folder(
        out,
        seed=seed,
        family=family.value,
        shape=None if shape is None else numbers(shape, "--shape"),  # type: ignore[arg-type]  # checked there
        spacing_mm=None if spacing_mm is None else numbers(spacing_mm, "--spacing"),
        centre_mm=None if centre_mm is None else numbers(centre_mm, "--centre"),
        dose=dose,
        imaging=imaging.value,
        kernel=kernel,
        beam=beam.value,
        psf_fwhm_mm=psf_fwhm_mm,
        name=name,
        overwrite=overwrite,
        quiet=quiet,
    )
