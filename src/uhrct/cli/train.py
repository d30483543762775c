"""`uhrct train` and `uhrct pack`: weights from your own CT."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import (
    READ_OPTIONS,
    REFUSED,
    Device,
    InputSpacing,
    Quiet,
    as_options,
    numbers,
    one_line,
    parsed_spacing,
    torch_device,
)
from uhrct.core.errors import UhrctError


class Layout(StrEnum):
    auto, npz, luna16, rplhr, phantom, tree = "auto", "npz", "luna16", "rplhr", "phantom", "tree"


Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that replace those of CONFIG, for example data.batch=8.", show_default=False),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(help="Time budget of the whole run. Resumed parts and validations count."),
]
MaxCpuMinutes = Annotated[
    float | None,
    typer.Option(help="Stop after this CPU time in minutes. Use it for fair comparisons on a busy machine."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint of the run, if there is one.")]


def train(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/.", show_default=False)],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/NAME-OF-CONFIG.")] = None,
    max_minutes: MaxMinutes = None,
    max_cpu_minutes: MaxCpuMinutes = None,
    resume: Resume = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a model, a segmenter or a detector on your own CT, all stages in one run.

    To use several GPUs for a model, start the command with torchrun.
    """
    result = _trainer_of(config)(
        config,
        overrides,
        out=out or Path("runs") / config.stem,
        max_minutes=max_minutes,
        max_cpu_minutes=max_cpu_minutes,
        resume=resume,
        device=None if device == "auto" else torch_device(device),
        quiet=quiet,
    )
    if not quiet and os.environ.get("RANK", "0") == "0":  # under torchrun only one process reports
        print(f"result in {result}")


def _trainer_of(config: Path) -> Callable[..., Path]:
    """The function that trains what a configuration describes: a task, nodules, or super-resolution."""
    from uhrct.training.config import read_settings

    settings = read_settings(config)
    if "task" in settings:
        from uhrct.tasks.training import train_task

        return train_task
    if "nodules" in settings:
        from uhrct.tasks.nodule_training import train_nodules

        return train_nodules
    from uhrct.training.recipe import train as train_stages

    return train_stages


def pack(
    sources: Annotated[list[Path], typer.Argument(help="Data set folders or files.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(help="Output folder (store): a new folder, or an existing store to continue.", show_default=False),
    ],
    layout: Annotated[Layout, typer.Option(help="Layout of the data set, see docs/training.md.")] = Layout.auto,
    input_spacing: InputSpacing = None,
    unit_hu: Annotated[
        str | None,
        typer.Option(help="LOW,HIGH: HU values that correspond to 0 and 1, for files with voxels scaled to [0, 1]."),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON file with the names for train, validation and test.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of series that are packed already.")] = False,
    quiet: Quiet = False,
) -> None:
    """Pack a data set for training: one raw file per series, an index, and a split into train, validation and test.

    Run the command again to continue.
    """
    from uhrct.training.data.packing import pack as pack_into
    from uhrct.training.data.packing import summary

    ends = None if unit_hu is None else numbers(unit_hu, "--unit-hu")
    if ends is not None and (len(ends) != 2 or not ends[0] < ends[1]):
        raise UhrctError(f"--unit-hu {unit_hu!r}: give two numbers LOW,HIGH, such as -1024,3071")
    report = pack_into(
        list(sources),
        out,
        layout=layout.value,
        spacing_mm=parsed_spacing(input_spacing),
        unit_hu=None if ends is None else (ends[0], ends[1]),
        split=split,
        verify=verify,
        quiet=quiet,
    )
    first, *notes = summary(report, out)
    for line in notes if quiet else [first, *notes]:
        print(line)
    for line in report.problems:
        print(f"uhrct: not packed: {one_line(as_options(line, READ_OPTIONS))}", file=sys.stderr)
    if report.problems:
        raise typer.Exit(REFUSED)
