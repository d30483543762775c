"""`uhrct benchmark`: run methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.app import Device, Quiet, say, torch_device
from uhrct.cli.train import MaxCpuMinutes, MaxMinutes, Overrides, Resume


def benchmark(
    config: Annotated[Path, typer.Argument(help="YAML file, see docs/benchmark.md.", show_default=False)],
    report: Annotated[
        Path | None,
        typer.Option(
            help="Do not run the methods. Write tables, figures and an HTML page from the "
            "existing results to this folder."
        ),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Compute all metrics of several methods on held-out patients. An interrupted run continues where it stopped."""
    from uhrct.benchmark.config import load_benchmark
    from uhrct.training.config import read_settings

    if "tasks" in read_settings(config):
        _tasks(config, report, device, quiet)
        return

    settings = load_benchmark(config)
    if report is not None:
        from uhrct.benchmark.report import write_report

        print(f"report in {write_report(settings, report, quiet=quiet)}")
        return
    from uhrct.benchmark.runner import Benchmark

    Benchmark(settings, device=torch_device(device), quiet=quiet).run()
    say(f"results in {settings.out}", quiet)


def _tasks(config: Path, report: Path | None, device: str, quiet: bool) -> None:
    """The benchmark of tasks, for a configuration with the key `tasks`."""
    from uhrct.benchmark.tasks.config import load_tasks

    settings = load_tasks(config)
    if report is not None:
        from uhrct.benchmark.tasks.report import write_task_report

        print(f"report in {write_task_report(settings, report, quiet=quiet)}")
        return
    from uhrct.benchmark.tasks.runner import TaskBenchmark

    TaskBenchmark(settings, device=torch_device(device), quiet=quiet).run()
    say(f"results in {settings.out}", quiet)


def train_peer(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/peers/.", show_default=False)],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/peers/NAME-OF-CONFIG.")] = None,
    max_minutes: MaxMinutes = None,
    max_cpu_minutes: MaxCpuMinutes = None,
    resume: Resume = False,
    device: Device = "auto",
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
        device=None if device == "auto" else torch_device(device),
        quiet=quiet,
    )
    say(f"result in {result}", quiet)
