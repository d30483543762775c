"""`uhrct benchmark`: run methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import Device, Quiet, say, torch_device


def benchmark(
    config: Annotated[Path, typer.Argument(help="YAML file, see docs/benchmark.md.", show_default=False)],
    report: Annotated[
        Path | None,
        typer.Option(
            help="Do not run the methods. Write tables, figures and an HTML page from the "
            "existing results to this folder."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Compute all metrics of several methods on held-out patients. An interrupted run continues where it stopped."""
    from uhrct.benchmark.config import load_benchmark

    settings = load_benchmark(config)
    if report is not None:
        from uhrct.benchmark.report import write_report

        print(f"report in {write_report(settings, report, quiet=quiet)}")
        return
    from uhrct.benchmark.runner import Benchmark

    Benchmark(settings, device=torch_device(device), quiet=quiet).run()
    say(f"results in {settings.out}", quiet)


def train_peer(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/peers/.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace those of CONFIG, for example data.batch=8.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/peers/NAME-OF-CONFIG.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Time budget, resumed parts included.")] = None,
    max_cpu_minutes: Annotated[
        float | None,
        typer.Option(help="Stop after this CPU time in minutes. Use it for fair comparisons on a busy machine."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint of the run, if there is one.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Train another published method for the benchmark, with the loss of its publication."""
    from uhrct.benchmark.peers.training import train_peer as train

    result = train(
        config,
        overrides,
        out=out or Path("runs") / "peers" / config.stem,
        max_minutes=max_minutes,
        max_cpu_minutes=max_cpu_minutes,
        resume=resume,
        device=None if device == Device.auto else torch_device(device),
        quiet=quiet,
    )
    say(f"result in {result}", quiet)
