"""Write weights in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.io.outputs import check_files
from uhrct.models.model import Model
from uhrct.upscaling.model_card import write_hugging_face
from uhrct.upscaling.monai_bundle import write_bundle
from uhrct.upscaling.onnx_file import write_onnx

FORMATS = ("huggingface", "monai", "onnx")
#: what a folder in each format may hold. A folder with anything else is not replaced.
OURS = {
    "huggingface": {
        *("README.md", "LICENSE", "config.json", "model.safetensors", "card.json", "calibration.json"),
        *("int8.onnx", "int8.json", "train.json", "log.jsonl", "curve.png"),
    },
    "monai": {"configs", "models", "docs", "LICENSE"},
}


def export_model(model: Model, output: Path, format: str, *, overwrite: bool = False) -> None:
    """Write a model as one of `FORMATS`. The folder or file appears when it is complete.

    Raises
    ------
    UhrctError
        If the output exists, or is no name for the format, or the model cannot be written in it.
    """
    if format not in FORMATS:
        raise UhrctError(f"`format` is {format}; give one of {', '.join(FORMATS)}")
    if format == "onnx" and output.suffix != ".onnx":
        raise UhrctError(f"{output}: give a name that ends in .onnx")
    if output.is_dir() == (format == "onnx") and output.exists():
        raise UhrctError(f"{output}: exists and is {'a folder' if output.is_dir() else 'a file'}; choose another name")
    ours = OURS.get(format, set())
    check_files(
        [] if model.folder is None else [model.folder],
        [output],
        overwrite,
        lambda folder: next((entry for entry in sorted(folder.iterdir()) if entry.name not in ours), None),
    )
    if format == "onnx":
        write_onnx(model, output)
        return
    fill = write_hugging_face if format == "huggingface" else write_bundle
    with atomic(output, overwrite=overwrite) as work:
        made = work / output.name
        made.mkdir()
        fill(model, made)
