"""What the verbs of the command line share: the app, options, and how their texts are parsed."""

from __future__ import annotations

import logging
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from uhrct.core.errors import UhrctError

app = typer.Typer(
    help="CT super-resolution that keeps vessels, airways and lesions intact. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Consistency(StrEnum):
    auto, hard, off = "auto", "hard", "off"


class Device(StrEnum):
    auto, cpu, cuda = "auto", "cpu", "cuda"


class Degradation(StrEnum):
    scanner, bicubic = "scanner", "bicubic"


class Operator(StrEnum):
    vc, frangi, jerman = "vc", "frangi", "jerman"


class Polarity(StrEnum):
    bright, dark = "bright", "dark"


class Layout(StrEnum):
    auto, npz, luna16, rplhr, phantom, tree = "auto", "npz", "luna16", "rplhr", "phantom", "tree"


class Family(StrEnum):
    train, test = "train", "test"


class Imaging(StrEnum):
    model, projections = "model", "projections"


class Kernel(StrEnum):
    standard, sharp = "standard", "sharp"


class Beam(StrEnum):
    fan, parallel = "fan", "parallel"


class Syntax(StrEnum):
    explicit, jpegls, htj2k = "explicit", "jpegls", "htj2k"


def _silence(quiet: bool) -> bool:
    """Notes are no errors: what libraries warn of and the formats remark is silent too."""
    if quiet:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    return quiet


INPUT_HELP = "DICOM folder, zip, DICOMDIR or file, .nii, .nii.gz, .nrrd, .mha/.mhd or .npz (arr_0, HU)."
OUTPUT_HELP = "DICOM folder or file, .nii, .nii.gz, .nrrd, .mha/.mhd or .npz; a name without suffix is a DICOM folder."
Input = Annotated[Path, typer.Argument(help=INPUT_HELP, show_default=False)]
Output = Annotated[Path, typer.Argument(help=OUTPUT_HELP, show_default=False)]
Series = Annotated[str | None, typer.Option(help="Which series of a folder: number as in `uhrct info`, or UID.")]
Spacing = Annotated[
    str | None, typer.Option("--input-spacing", help="Voxel spacing Z,Y,X in mm of an .npz that stores none.")
]
Untilt = Annotated[bool, typer.Option("--untilt", help="Shift the slices of a tilted gantry onto an upright grid.")]
TransferSyntax = Annotated[
    Syntax, typer.Option(help="Of DICOM outputs: uncompressed, JPEG-LS or HTJ2K, all without loss.")
]
KeepPrivate = Annotated[bool, typer.Option("--keep-private", help="Keep the private elements of a DICOM source.")]
Anonymize = Annotated[
    bool,
    typer.Option("--anonymize", help="DICOM outputs without the person: PS3.15 basic profile, same study for all."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", callback=_silence)]


def dicom_options(syntax: Syntax, keep_private: bool, anonymize: bool) -> Any:
    from uhrct.io import DicomOptions

    return DicomOptions(syntax.value, keep_private, anonymize)


def torch_device(name: str) -> Any:
    from uhrct.models.choice import pick_device

    return pick_device(name)


def parsed_scale(text: str) -> tuple[int, int, int]:
    """ "2" -> (1, 2, 2), "5x2x2" -> (5, 2, 2)."""
    try:
        factors = [int(t) for t in text.lower().split("x")]
    except ValueError:
        factors = []
    if any(f < 1 for f in factors) or len(factors) not in (1, 3):
        raise UhrctError(f"--scale {text!r}: give a whole number (2) or factors ZxYxX (1x2x2)")
    return (1, factors[0], factors[0]) if len(factors) == 1 else (factors[0], factors[1], factors[2])


def parsed_spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    values = numbers(text, "--input-spacing")
    if len(values) != 3 or not all(0 < v < 1e4 for v in values):
        raise UhrctError(f"--input-spacing {text!r}: give three positive numbers Z,Y,X in mm, such as 1.0,0.7,0.7")
    return values[0], values[1], values[2]


def numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError:
        raise UhrctError(f"{option} {text!r}: give numbers with commas between") from None


def one_line(what: object) -> str:
    return " ".join(str(what).split())
