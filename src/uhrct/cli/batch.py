"""`uhrct batch`: super-resolve many series, with a ledger of what is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from uhrct.cli.app import ADVANCED, DICOM, OUTPUT, Device, Quiet, say
from uhrct.cli.upscale import Engine, Quality
from uhrct.core.errors import InputRefused, UhrctError

#: panels of the help
WHICH, HOW = "Which series", "Processes"


def batch(
    inputs: Annotated[
        str,
        typer.Argument(
            help="Folder of studies, pattern such as 'scans/*/ct.nii.gz', or manifest (.csv, .parquet) with the column "
            "path.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of results, ledger and summary.", show_default=False)],
    scale: Annotated[
        str | None, typer.Option(help="In-plane factor (2 or 4), or factors ZxYxX (5x1x1 or 5x2x2). Default: 2.")
    ] = None,
    quality: Annotated[Quality, typer.Option(help="See uhrct upscale.")] = Quality.standard,
    denoise: Annotated[
        float | None, typer.Option(help="Share of the noise of the scans to remove.", show_default="0.75")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="Format of the results: dicom, nii.gz, nii, nrrd, mha, npz. Default: that of each scan.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    anonymize: Annotated[
        bool,
        typer.Option(
            "--anonymize",
            help="Keep only DICOM elements that identify nobody. See uhrct upscale.",
            rich_help_panel=DICOM,
        ),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say what the ledger holds, and stop.", rich_help_panel=WHICH)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the series and their outputs, and stop.", rich_help_panel=WHICH)
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Also process series that failed or were set aside.", rich_help_panel=WHICH
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            help="i/n: one of n runs that share the ledger, i from 0. Default: from SLURM_ARRAY_TASK_ID or "
            "JOB_COMPLETION_INDEX.",
            rich_help_panel=HOW,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this machine. They share its cores.", rich_help_panel=HOW)
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler (tcp://HOST:8786). Its workers do the work; they need the same uhrct and "
            "the same paths. Needs the extra dask.",
            rich_help_panel=HOW,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="See uhrct upscale.", rich_help_panel=ADVANCED)] = 1,
    samples: Annotated[int, typer.Option(help="See uhrct upscale.", rich_help_panel=ADVANCED)] = 1,
    seed: Annotated[int, typer.Option(help="See uhrct upscale.", rich_help_panel=ADVANCED)] = 0,
    weights: Annotated[str | None, typer.Option(help="See uhrct upscale.", rich_help_panel=ADVANCED)] = None,
    device: Device = "auto",
    engine: Annotated[Engine, typer.Option(help="See uhrct upscale.", rich_help_panel=ADVANCED)] = Engine.torch,
    quiet: Quiet = False,
) -> None:
    """Super-resolve many series. A second run skips what is done, and redoes what changed."""
    from uhrct.batch.ledger import Ledger
    from uhrct.batch.run import run_batch
    from uhrct.batch.series import find_series
    from uhrct.batch.summary import sentence, write_summary
    from uhrct.evaluation.html_report import check_libraries
    from uhrct.models.engines import engine_version

    if status:
        _status(out)
        return
    suffix = _suffix(format)
    found = find_series(inputs)
    if dry_run:
        for s in found:
            print(f"{s.path}{f' ({s.uid})' if s.uid else ''} -> {s.output(out, suffix)}{_remark(s.problem)}")
        return
    check_libraries()
    engine_version(engine.value)  # says what is missing now, and not once for every series
    settings: dict[str, Any] = {
        "scale": scale,
        "quality": quality.value,
        "denoise": denoise,
        "steps": steps,
        "samples": samples,
        "seed": seed,
        "weights": weights,
        "device": device,
        "engine": engine.value,
    }
    counts = run_batch(
        found,
        out,
        suffix=suffix,
        settings=settings,
        anonymize=anonymize,
        workers=workers,
        part=_part(part),
        scheduler=scheduler,
        retry_failed=retry_failed,
        quiet=quiet,
    )
    ledger = Ledger(out)
    _, page = write_summary(ledger)
    ledger.close()
    say(f"{page}: {sentence(counts)}", quiet)
    if bad := counts["failed"] + counts["set aside"]:
        raise InputRefused(f"{bad} of {sum(counts.values())} series have no result; {page} says why")


def _status(out: Path) -> None:
    from uhrct.batch.ledger import FAILED, LEDGER, SET_ASIDE, Ledger
    from uhrct.batch.summary import sentence

    if not (out / LEDGER).is_file():
        raise UhrctError(f"{out}: holds no {LEDGER}; give the OUT of an earlier run")
    ledger = Ledger(out)
    print(sentence(ledger.counts()))
    for row in ledger.rows():
        if row["state"] in (FAILED, SET_ASIDE):
            print(f"{row['name']}: {row['state']}: {row['error']}")
    ledger.close()


def _remark(problem: str) -> str:
    return f"  [{problem}]" if problem else ""


def _suffix(format: str | None) -> str | None:
    """The ending of the results; "" is a DICOM folder."""
    from uhrct import io

    if format is None:
        return None
    suffix = "" if format.lower() == "dicom" else f".{format.lower().lstrip('.')}"
    if suffix not in ("", *(s for s in io.paths.FORMATS if s != ".dcm")):
        raise UhrctError(f"--format {format!r}: choose dicom, nii.gz, nii, nrrd, mha, mhd or npz")
    return suffix


def _part(text: str | None) -> tuple[int, int] | None:
    """ "1/4" -> (1, 4); without it, from the variables that SLURM and Kubernetes set."""
    if text is None:
        index = os.environ.get("SLURM_ARRAY_TASK_ID") or os.environ.get("JOB_COMPLETION_INDEX")
        count = os.environ.get("SLURM_ARRAY_TASK_COUNT") or "16"  # Kubernetes does not tell; any number spreads them
        if index is None or not (index + count).isdigit() or int(count) == 0:
            return None
        return int(index) % int(count), int(count)
    i, _, n = text.partition("/")
    if not (i.isdigit() and n.isdigit() and int(i) < int(n)):
        raise UhrctError(f"--part {text!r}: give i/n with i from 0 to n - 1, such as 0/4")
    return int(i), int(n)
