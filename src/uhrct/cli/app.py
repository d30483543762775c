"""What all commands share: the command class, options that several commands have, and how option texts are parsed."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from uhrct.core.errors import InputRefused, NothingToDo, UhrctError
from uhrct.core.purpose import NOTE as NOTE

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from uhrct.core.volume import Volume
    from uhrct.io import DicomOptions

#: exit codes, see docs/report.md; 0 is success
INTERNAL, USAGE, REFUSED, NOTHING = 1, 2, 3, 4

#: all notes of this run, in order, for the report
NOTES: list[str] = []

#: titles of the groups of options in `--help`
OUTPUT, SCAN, DICOM, INPUT, ADVANCED = "Output", "Scan properties", "DICOM", "Input", "Advanced"


class Command(TyperCommand):
    """A command that names options where a library error names arguments.

    Library messages put arguments in backticks: "`steps=2`" becomes "--steps 2".
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UhrctError as error:
            names = {p.name: p.opts[0] if p.param_type_name == "option" else str(p.name).upper() for p in self.params}
            raise type(error)(as_options(str(error), names)) from error


def exit_code(error: UhrctError) -> int:
    """The exit code of an error, by its class."""
    return {InputRefused: REFUSED, NothingToDo: NOTHING}.get(type(error), USAGE)


def as_options(message: str, names: dict[Any, str]) -> str:
    """Replace arguments in backticks by the options of a command.

    Example
    -------
    >>> as_options("`samples` needs `steps=4` or `quiet=True`", {"samples": "--samples", "steps": "--steps"})
    '--samples needs --steps 4 or `quiet=True`'
    """

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name not in names:
            return match[0]
        return names[name] if value in (None, "True") else f"{names[name]} {value.strip(chr(39))}"

    return re.sub(r"`([a-z_]+)(?:=([^`]*))?`", option, message)


#: arguments of `uhrct.io.read` -> options
READ_OPTIONS = {"series": "--series", "spacing_mm": "--input-spacing", "untilt": "--untilt"}


class Degradation(StrEnum):
    scanner, bicubic = "scanner", "bicubic"


class Syntax(StrEnum):
    explicit, jpegls, htj2k = "explicit", "jpegls", "htj2k"


Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto, cpu, cuda, cuda:N (GPU number N), xpu (Intel), mps (Apple). auto: cuda or cpu.",
        metavar="<device>",
        rich_help_panel=ADVANCED,
    ),
]

FORMATS = (
    "A DICOM folder, .zip, DICOMDIR or DICOM file; .nii, .nii.gz, .nrrd, .mha, .mhd, .zarr; or .npz (arr_0 in HU)."
)
Input = Annotated[Path, typer.Argument(help=FORMATS, show_default=False)]
Output = Annotated[
    Path,
    typer.Argument(
        help="DICOM folder or .dcm; .nii, .nii.gz, .nrrd, .mha, .mhd, .npz, .zarr. No suffix: a DICOM folder.",
        show_default=False,
    ),
]
Series = Annotated[
    str | None,
    typer.Option(
        help="Series to read if a folder holds several: number from `uhrct info`, or UID.", rich_help_panel=INPUT
    ),
]
InputSpacing = Annotated[
    str | None,
    typer.Option(
        "--input-spacing",
        help="Voxel spacing Z,Y,X in mm, for an .npz file that contains no spacing.",
        rich_help_panel=INPUT,
    ),
]
Untilt = Annotated[
    bool,
    typer.Option("--untilt", help="Resample a scan with gantry tilt onto an upright grid.", rich_help_panel=INPUT),
]
TransferSyntax = Annotated[
    Syntax,
    typer.Option(help="Uncompressed, JPEG-LS or HTJ2K; all are lossless.", rich_help_panel=DICOM),
]
KeepPrivate = Annotated[
    bool, typer.Option("--keep-private", help="Keep the private elements of the source.", rich_help_panel=DICOM)
]
Anonymize = Annotated[
    bool,
    typer.Option(
        "--anonymize",
        help="Keep only DICOM elements that identify nobody (PS3.15 basic profile). Voxels do not "
        "change. Outputs of one run stay in one study.",
        rich_help_panel=DICOM,
    ),
]
AnonymizeKey = Annotated[
    str | None,
    typer.Option(
        "--anonymize-key",
        help="Secret text of 16 characters or more, or @FILE with it. Runs with the same key give the same new UIDs "
        "and pseudonyms. Default: random in each run.",
        rich_help_panel=DICOM,
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace outputs that exist. A DICOM folder is replaced only if uhrct wrote every file in it.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Hide progress and summaries. Notes and errors are still printed.")
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write a report in JSON to this file, see docs/report.md. -: to stdout; all else then goes to stderr.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]


def read_input(
    path: Path, series: str | None, input_spacing: str | None, untilt: bool, *, on_disk: bool = False
) -> Volume:
    """Read the input of a command by its options."""
    from uhrct import io

    try:
        spacing_mm = parsed_spacing(input_spacing)
        return io.read(path, series=series, spacing_mm=spacing_mm, untilt=untilt, on_disk=on_disk)
    except UhrctError as error:  # the spacing that `read` asks for is not the spacing of the result
        raise type(error)(as_options(str(error), READ_OPTIONS)) from error


def dicom_options(
    syntax: Syntax, keep_private: bool, anonymize: bool, anonymize_key: str | None = None
) -> DicomOptions:
    from uhrct.io import DicomOptions

    if anonymize_key is not None and anonymize_key.startswith("@"):
        file = Path(anonymize_key[1:])
        try:
            anonymize_key = file.read_text().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise UhrctError(f"--anonymize-key: {file} cannot be read ({reason})") from None
    return DicomOptions(syntax.value, keep_private, anonymize, anonymize_key)


def torch_device(device: str) -> torch.device:
    from uhrct.models.choice import pick_device

    return pick_device(device)


def parsed_spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    values = numbers(text, "--input-spacing")
    if len(values) != 3 or not all(0 < v < 1e4 for v in values):
        raise UhrctError(f"--input-spacing {text!r}: give three positive numbers Z,Y,X in mm, such as 1.0,0.7,0.7")
    return values[0], values[1], values[2]


def numbers(text: str, option: str) -> tuple[float, ...]:
    """ "1,0.5" -> (1.0, 0.5)."""
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError:
        raise UhrctError(f"{option} {text!r}: give numbers separated by commas") from None


def one_line(what: object) -> str:
    return " ".join(str(what).split())


def say(text: str, quiet: bool = False) -> None:
    """A line for the user on stderr; stdout is for results."""
    if not quiet:
        print(text, file=sys.stderr)


def note(what: object) -> None:
    """Print a note or a warning, and keep it for the report."""
    NOTES.append(one_line(what))
    print(f"uhrct: note: {NOTES[-1]}", file=sys.stderr)


def print_table(table: Table, json_path: Path | None = None) -> None:
    """Print a table to stdout; to stderr if stdout is for JSON."""
    from rich.console import Console

    from uhrct.core.files import STDOUT

    file = sys.stderr if json_path == STDOUT else sys.stdout
    # no markup: a series description such as "[/C]" is plain text
    width = None if file.isatty() else 200
    Console(file=file, width=width, markup=False, highlight=False, emoji=False).print(table)
