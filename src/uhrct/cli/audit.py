"""`uhrct audit`: grade the structures of a super-resolved scan by what the scan shows."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from uhrct.cli.app import (
    ADVANCED,
    FORMATS,
    NOTES,
    OUTPUT,
    SCAN,
    Device,
    InputSpacing,
    Json,
    Overwrite,
    Quiet,
    Series,
    Untilt,
    read_input,
    say,
)
from uhrct.core.errors import UhrctError


def audit(
    low: Annotated[Path, typer.Argument(help=f"The scan. {FORMATS}", show_default=False)],
    high: Annotated[
        Path, typer.Argument(help="Its super-resolved version, by uhrct or another program.", show_default=False)
    ],
    html_path: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with grades, worst findings and slices.", rich_help_panel=OUTPUT),
    ] = None,
    json_path: Json = None,
    grades: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the grades on the centre lines of the structures as labels: 1 supported, 2 sharpened, 3 "
            "inferred, 4 doubtful. .nii, .nii.gz, .nrrd, .mha, .mhd or .npz. See uhrct view.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    noise_hu: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the noise of the scan in HU. Default: measured.", rich_help_panel=SCAN
        ),
    ] = None,
    psf_fwhm_mm: Annotated[
        float | None,
        typer.Option(
            help="In-plane blur of the scan, FWHM in mm. Default: from the header or the voxels.", rich_help_panel=SCAN
        ),
    ] = None,
    series: Series = None,
    untilt: Untilt = False,
    input_spacing: InputSpacing = None,
    draws: Annotated[
        int,
        typer.Option(
            min=0,
            help="Repeated results of each place with structures that the scan does not show. 0: none.",
            rich_help_panel=ADVANCED,
        ),
    ] = 3,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights for the repeated results. Default: the shipped weights for the scale.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Grade vessels and airways of a super-resolved scan: does the scan show them, or may they be invented?"""
    import numpy as np

    from uhrct import io
    from uhrct.audit.existing import audit_result
    from uhrct.audit.page import sentence, write_page
    from uhrct.core.files import write_json
    from uhrct.evaluation.html_report import check_libraries

    if grades is not None and io.paths.is_dicom(io.paths.output_suffix(grades)):
        raise UhrctError(f"{grades}: `grades` are written as .nii, .nii.gz, .nrrd, .mha, .mhd or .npz, not as DICOM")
    for path in (low, high):
        io.check_outputs(path, [] if grades is None else [grades], files=[html_path, json_path], overwrite=overwrite)
    if html_path is not None:
        check_libraries()
    scan, result = read_input(low, series, input_spacing, untilt), read_input(high, None, input_spacing, False)
    settings: dict[str, Any] = {"noise_hu": noise_hu, "psf_fwhm_mm": psf_fwhm_mm, "weights": weights, "device": device}
    try:
        with contextlib.ExitStack() as stack:
            if grades is not None:
                writer = io.open_writer(grades, result.grid, dtype=np.int16, overwrite=overwrite)
                settings["take_grades"] = stack.enter_context(writer).write
            done = audit_result(scan, result, quiet=quiet, draws=draws, **settings)
    except UhrctError as error:
        raise type(error)(f"{low} and {high}: {error}") from error
    if html_path is not None:
        write_page(done.audit, done.report, html_path)
        say(f"{html_path}: written", quiet)
    if json_path is not None:
        write_json(
            json_path, done.report | {"low": str(low), "high": str(high), "warnings": done.report["warnings"] + NOTES}
        )
    say(sentence(done.report), quiet)
