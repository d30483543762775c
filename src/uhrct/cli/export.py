"""`uhrct export`: weights in the formats of other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import NOTE, Overwrite, Quiet, say


class ModelFormat(StrEnum):
    huggingface, monai, onnx = "huggingface", "monai", "onnx"


def export(
    model: Annotated[
        str, typer.Argument(help="Name from `uhrct models`, or a model folder or training run.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="Folder, or .onnx file, that does not exist yet.", show_default=False)],
    format: Annotated[
        ModelFormat,
        typer.Option(
            help="huggingface: a folder for the Hugging Face Hub. monai: a MONAI bundle. onnx: one file that restores "
            "slices without torch (needs the extra onnx).",
        ),
    ] = ModelFormat.huggingface,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write weights for other programs: Hugging Face, MONAI or ONNX. See docs/model-formats.md."""
    from uhrct.models.model import Model
    from uhrct.upscaling.export import export_model

    export_model(Model.from_pretrained(model), output, format.value, overwrite=overwrite)
    say(f"{output}: {model} for {format.value}. {NOTE}", quiet)
