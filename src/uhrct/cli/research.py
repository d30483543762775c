"""Verbs of those who train and compare: train, pack, phantom, evaluate, benchmark. Heavy imports happen inside."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from uhrct.cli.options import (
    INPUT_HELP,
    Beam,
    Degradation,
    Device,
    Family,
    Imaging,
    Kernel,
    Layout,
    Quiet,
    Spacing,
    app,
    numbers,
    one_line,
    parsed_spacing,
    torch_device,
)
from uhrct.core.errors import UhrctError


@app.command()
def evaluate(
    reference: Annotated[Path, typer.Argument(help=f"The truth. {INPUT_HELP}", show_default=False)],
    test: Annotated[Path, typer.Argument(help="What is judged, on the same grid.", show_default=False)],
    lr: Annotated[Path | None, typer.Option(help="The scan that TEST was made from: adds the consistency.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every metric of every slice here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with tables, plots and pictures here.")] = None,
    kind: Annotated[Degradation, typer.Option(help="How --lr arises of the truth.")] = Degradation.scanner,
    psf_fwhm_mm: Annotated[float | None, typer.Option(help="Its in-plane PSF; default 0.6 of the LR pixel.")] = None,
    spacing: Spacing = None,
    quiet: Quiet = False,
) -> None:
    """Compare a volume with its truth: fidelity, structure, vessels, texture."""
    from uhrct.evaluation.files import evaluate_files

    evaluate_files(
        reference,
        test,
        lr=lr,
        kind=kind.value,
        psf_fwhm_mm=psf_fwhm_mm,
        json_path=json,
        html_path=html,
        spacing_mm=parsed_spacing(spacing),
        quiet=quiet,
    )


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file, see configs/.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to its settings, such as data.batch=8.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME-OF-CONFIG.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Time budget of the whole run, resumed parts included.")
    ] = None,
    max_cpu_minutes: Annotated[
        float | None, typer.Option(help="Budget of processor time, for fair comparisons on a busy machine.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of the run.")] = False,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Train a model on your own CT, all stages in one run. For several devices start it with torchrun."""
    from uhrct.training.recipe import train as train_stages

    result = train_stages(
        config,
        overrides,
        out=out or Path("runs") / config.stem,
        max_minutes=max_minutes,
        max_cpu_minutes=max_cpu_minutes,
        resume=resume,
        device=None if device == Device.auto else torch_device(device.value),
        quiet=quiet,
    )
    if not quiet and os.environ.get("RANK", "0") == "0":  # under torchrun one process is enough
        print(f"result in {result}")


@app.command()
def benchmark(
    config: Annotated[Path, typer.Argument(help="YAML, see docs/benchmark.md.", show_default=False)],
    report: Annotated[
        Path | None, typer.Option(help="Measure nothing; write tables, figures and a page of the results here.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Run methods on held-out patients by every metric; goes on where it stopped."""
    from uhrct.benchmark.config import load_benchmark

    settings = load_benchmark(config)
    if report is not None:
        from uhrct.benchmark.report import write_report

        print(f"report in {write_report(settings, report, quiet=quiet)}")
        return
    from uhrct.benchmark.runner import Benchmark

    Benchmark(settings, device=torch_device(device.value), quiet=quiet).run()
    if not quiet:
        print(f"results in {settings.out}")


@app.command()
def pack(
    sources: Annotated[list[Path], typer.Argument(help="Data set folders or files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Store folder: new, or an existing store.", show_default=False)],
    layout: Annotated[Layout, typer.Option(help="Layout of the data set, see docs/training.md.")] = Layout.auto,
    spacing: Spacing = None,
    unit_hu: Annotated[
        str | None, typer.Option(help="LOW,HIGH: the HU of 0 and 1, for files whose voxels were mapped to [0, 1].")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON file with the names for train, validation and test.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of series that are packed already.")] = False,
    quiet: Quiet = False,
) -> None:
    """Pack a data set for training: one raw file per series, an index, a split. Repeat it to go on."""
    from uhrct.training.data.packing import pack as pack_into
    from uhrct.training.data.packing import summary

    ends = None if unit_hu is None else numbers(unit_hu, "--unit-hu")
    if ends is not None and (len(ends) != 2 or not ends[0] < ends[1]):
        raise UhrctError(f"--unit-hu {unit_hu!r}: give two numbers LOW,HIGH, such as -1024,3071")
    report = pack_into(
        list(sources),
        out,
        layout=layout.value,
        spacing_mm=parsed_spacing(spacing),
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


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="New folder: image, truth and masks.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Which chest; the same seed gives the same bytes.")] = 0,
    family: Annotated[Family, typer.Option(help="Chests to train on, or other ones to test on.")] = Family.train,
    shape: Annotated[str | None, typer.Option(help="Voxels Z,Y,X; default 512,512,512 or what covers it.")] = None,
    spacing: Annotated[str | None, typer.Option(help="Voxel spacing Z,Y,X in mm; default: covers the chest.")] = None,
    centre: Annotated[str | None, typer.Option(help="Middle of the grid Z,Y,X in mm, for details.")] = None,
    dose: Annotated[float, typer.Option(help="1: a usual chest scan; noise falls with its root; 0: none.")] = 1.0,
    imaging: Annotated[
        Imaging, typer.Option(help="Acquisition model, or projections and filtered backprojection.")
    ] = Imaging.model,
    kernel: Annotated[Kernel, typer.Option(help="Of the backprojection.")] = Kernel.standard,
    beam: Annotated[Beam, typer.Option(help="Of the projections.")] = Beam.fan,
    psf_fwhm_mm: Annotated[float | None, typer.Option(help="In-plane blur; default 0.6 of the pixel.")] = None,
    image: Annotated[str, typer.Option(help="Name of the image in the folder; the suffix says the format.")] = (
        "ct.nii.gz"
    ),
    quiet: Quiet = False,
) -> None:
    """Make a chest CT whose vessels, airways, lobes and nodules are known exactly."""
    from uhrct.phantom.make import phantom_folder

    phantom_folder(
        out,
        seed=seed,
        family=family.value,
        shape=None if shape is None else numbers(shape, "--shape"),  # type: ignore[arg-type]  # checked there
        spacing_mm=None if spacing is None else numbers(spacing, "--spacing"),
        centre_mm=None if centre is None else numbers(centre, "--centre"),
        dose=dose,
        imaging=imaging.value,
        kernel=kernel.value,
        beam=beam.value,
        psf_fwhm_mm=psf_fwhm_mm,
        name=image,
        quiet=quiet,
    )
