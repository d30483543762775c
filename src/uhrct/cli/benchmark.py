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
        typer.Option(help="Measure nothing. Write tables, figures and a page of the existing results to this folder."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Measure several methods on held-out patients with every metric. Continues where it stopped."""
    from uhrct.benchmark.config import load_benchmark

    settings = load_benchmark(config)
    if report is not None:
        from uhrct.benchmark.report import write_report

        print(f"report in {write_report(settings, report, quiet=quiet)}")
        return
    from uhrct.benchmark.runner import Benchmark

    Benchmark(settings, device=torch_device(device), quiet=quiet).run()
    say(f"results in {settings.out}", quiet)
