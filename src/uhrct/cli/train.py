"""`uhrct train` and `uhrct pack`: weights from your own CT."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import Device, InputSpacing, Quiet, numbers, one_line, parsed_spacing, torch_device
from uhrct.core.errors import UhrctError


class Layout(StrEnum):
    auto, npz, luna16, rplhr, phantom, tree = "auto", "npz", "luna16", "rplhr", "phantom", "tree"


def train(
    config: Annotated[Path, typer.Argument(help="YAML, see configs/.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; default runs/NAME-OF-CONFIG.")] = Path("runs"),
    max_minutes: Annotated[float | None, typer.Option(help="Wall-clock budget, resumed parts counted in.")] = None,
    max_cpu_minutes: Annotated[
        float | None, typer.Option(help="Budget of processor time, for equal budgets on a busy machine.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Train weights on your own CT; under torchrun on several devices."""
    from uhrct.training.config import load_config
    from uhrct.training.trainer import Trainer

    folder = out / config.stem if out == Path("runs") else out
    settings = load_config(config, overrides)
    chosen = None if device == Device.auto else torch_device(device)
    if settings.stage == "estimator":
        from uhrct.training.estimator import train_estimator

        model = train_estimator(
            settings, folder, max_minutes=max_minutes, max_cpu_minutes=max_cpu_minutes, device=chosen, quiet=quiet
        )
        if not quiet:
            print(f"model in {model}")
        return
    if settings.stage == "surrogate":
        from uhrct.training.surrogate import train_surrogate

        weights = train_surrogate(
            settings, folder, max_minutes=max_minutes, max_cpu_minutes=max_cpu_minutes, device=chosen, quiet=quiet
        )
        if not quiet:
            print(f"surrogate in {weights}")
        return
    trainer = Trainer(
        settings,
        folder,
        max_minutes=max_minutes,
        max_cpu_minutes=max_cpu_minutes,
        resume=resume,
        device=chosen,
        quiet=quiet,
    )
    model = trainer.run()
    if trainer.rank == 0 and not quiet:
        print(f"model in {model}")


def pack(
    sources: Annotated[list[Path], typer.Argument(help="Data set folders or files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Store folder: new, or one to go on with.", show_default=False)],
    layout: Annotated[Layout, typer.Option(help="Of the data set, see docs/training.md.")] = Layout.auto,
    input_spacing: InputSpacing = None,
    unit_hu: Annotated[
        str | None, typer.Option(help="LOW,HIGH: what 0 and 1 stand for in files whose voxels were mapped to [0, 1].")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON: patients of train, validation and test.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of what is packed already.")] = False,
    quiet: Quiet = False,
) -> None:
    """Pack a data set once for training: files that map into memory, an index, a split. Goes on where it stopped."""
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
    if not quiet:
        print("\n".join(summary(report, out)))
    for line in report.problems:
        print(f"uhrct: not packed: {one_line(line)}", file=sys.stderr)
    if report.problems:
        raise typer.Exit(1)
