"""`uhrct segment`: lungs, airways or vessels of a chest CT."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import (
    ADVANCED,
    NOTE,
    NOTES,
    OUTPUT,
    Anonymize,
    AnonymizeKey,
    Device,
    Input,
    InputSpacing,
    Json,
    Output,
    Overwrite,
    Quiet,
    Series,
    Syntax,
    Untilt,
    dicom_options,
    note,
    read_input,
    say,
)
from uhrct.core.errors import UhrctError


class Task(StrEnum):
    lungs, airways, vessels = "lungs", "airways", "vessels"


def segment(
    input: Input,
    output: Output,
    task: Annotated[
        Task,
        typer.Option(
            help="lungs: right 1, left 2. airways: lumen of trachea and bronchi. vessels: arteries and veins inside "
            "the lungs.",
            show_default=False,
        ),
    ],
    mesh: Annotated[
        Path | None,
        typer.Option(
            help="Also write the surface to this .stl, .obj or .ply file, in mm of the patient (LPS, as in DICOM).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="vessels or vessels-segresnet, which are shipped for vessels, or the folder of your own network for "
            "vessels or airways. Default: no network.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    device: Device = "auto",
    series: Series = None,
    input_spacing: InputSpacing = None,
    untilt: Untilt = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
    quiet: Quiet = False,
) -> None:
    """Segment the lungs, the airways or the vessels of a chest CT. DICOM output: DICOM SEG."""
    from uhrct import io
    from uhrct.core.extras import check_extra
    from uhrct.core.files import write_json
    from uhrct.core.version import __version__

    check_extra("segmentation", "evaluation", scipy="scipy", skimage="scikit-image")
    if output.suffix.lower() in ("", ".dcm"):
        check_extra("DICOM SEG", "dicom", highdicom="highdicom")
    from uhrct.models.choice import pick_device
    from uhrct.tasks import segment as tasks
    from uhrct.tasks.mesh import check_mesh, surface, write_mesh

    if mesh is not None:
        check_mesh(mesh)
    io.check_outputs(input, [output], files=[mesh, json_path], overwrite=overwrite)
    dicom = dicom_options(Syntax.explicit, False, anonymize, anonymize_key)
    pick_device(device)  # a wrong name is refused, also where no network runs
    network = None if weights is None else tasks.load_network(weights, task.value, device)
    volume = read_input(input, series, input_spacing, untilt)
    begin = time.perf_counter()
    try:
        found = tasks.segment(volume, task.value, network=network, quiet=quiet)
    except UhrctError as error:
        raise type(error)(f"{input}: {error}") from error
    for line in found.warnings:
        note(line)
    triangles = None if mesh is None else surface(found.labels > 0, volume.grid)  # before any file is written
    report = tasks.report(found, volume, time.perf_counter() - begin)
    what = f"uhrct {__version__} segmentation of {task.value} {found.method}"
    io.write_segmentation(
        found.labels,
        volume.grid,
        output,
        found.segments,
        source=volume,
        derivation=io.Derivation(what, key=what, suffix=task.value, codes=()),
        dicom=dicom,
        overwrite=overwrite,
    )
    if mesh is not None and triangles is not None:
        write_mesh(triangles, mesh)
    if json_path is not None:
        report["input"]["path"] = str(input)
        write_json(json_path, report | {"warnings": NOTES})
    say(_summary(output, report), quiet)


def _summary(output: Path, report: dict) -> str:
    parts = []
    for label in report["labels"]:
        text = f"{label['name']} {label['volume_ml']:.1f} ml"
        if "branches" in label:
            text += f", centre line {label['skeleton_mm'] / 10:.0f} cm, {label['branches']} branches"
        parts.append(text)
    return f"{output}: {'; '.join(parts)}. {NOTE}"
