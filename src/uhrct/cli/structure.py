"""`uhrct structure`: write the structure enhancement map of a CT."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from uhrct.cli.app import (
    Anonymize,
    AnonymizeKey,
    Input,
    InputSpacing,
    KeepPrivate,
    Output,
    Overwrite,
    Quiet,
    Series,
    Syntax,
    TransferSyntax,
    Untilt,
    dicom_options,
    numbers,
    read_input,
)


class Operator(StrEnum):
    vc, frangi, jerman = "vc", "frangi", "jerman"


class Polarity(StrEnum):
    bright, dark = "bright", "dark"


def structure(
    input: Input,
    output: Output,
    operator: Annotated[Operator, typer.Option(help="vc (operator of the paper), frangi or jerman.")] = Operator.vc,
    sigma_mm: Annotated[str, typer.Option(help="Scales of the operator in mm.")] = "0.7,1.2,2.0",
    contrast_hu: Annotated[
        float,
        typer.Option(
            help="Contrast constant c in HU. Structures with a lower contrast get low "
            "values. Choose it well above the noise."
        ),
    ] = 100.0,
    polarity: Annotated[Polarity, typer.Option(help="bright: vessels; dark: airways.")] = Polarity.bright,
    overwrite: Overwrite = False,
    series: Series = None,
    input_spacing: InputSpacing = None,
    untilt: Untilt = False,
    transfer_syntax: TransferSyntax = Syntax.explicit,
    keep_private: KeepPrivate = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
    quiet: Quiet = False,
) -> None:
    """Write the structure map (values 0 to 1) of a CT. Each slice is processed in 2D."""
    import numpy as np
    import torch

    from uhrct import io
    from uhrct.core.hu import FLOOR_HU
    from uhrct.core.progress import track
    from uhrct.core.version import __version__
    from uhrct.structure import StructureOperator

    settings: dict[str, Any] = {
        "kind": operator.value,
        "sigma_mm": numbers(sigma_mm, "--sigma-mm"),
        "contrast_hu": contrast_hu,
        "polarity": polarity.value,
    }
    enhance = StructureOperator(**settings)
    io.check_outputs(input, [output], overwrite=overwrite)
    volume = read_input(input, series, input_spacing, untilt)
    what = ", ".join(f"{key} {value}" for key, value in settings.items())
    writer = io.open_map_writer(
        output,
        volume.grid,
        "structure",
        source=volume,
        derivation=io.Derivation(f"uhrct {__version__} structure map, {what}", key=what, suffix="", codes=()),
        dicom=dicom_options(transfer_syntax, keep_private, anonymize, anonymize_key),
        overwrite=overwrite,
    )
    with writer, torch.inference_mode():
        for hu in track(volume.hu, "structure", quiet=quiet):
            air = np.maximum(hu, int(FLOOR_HU))  # the step from padding to air is not structure
            writer.write(enhance(torch.from_numpy(air).float(), volume.spacing_mm[1:]).numpy()[None])
