"""`uhrct upscale`: super-resolve a CT."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uhrct.cli.app import (
    ADVANCED,
    NOTE,
    NOTES,
    OUTPUT,
    SCAN,
    Anonymize,
    AnonymizeKey,
    Device,
    Input,
    InputSpacing,
    Json,
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
    say,
)
from uhrct.core.errors import UhrctError

if TYPE_CHECKING:
    from uhrct.upscaling.plan import Plan


class Quality(StrEnum):
    fast, standard, best = "fast", "standard", "best"


class Engine(StrEnum):
    torch, int8 = "torch", "int8"


class Consistency(StrEnum):
    auto, hard, off = "auto", "hard", "off"


def upscale(
    input: Input,
    output: Output,
    scale: Annotated[
        str | None, typer.Option(help="In-plane factor (2 or 4), or factors ZxYxX (5x1x1 or 5x2x2). Default: 2.")
    ] = None,
    target_spacing_mm: Annotated[
        str | None,
        typer.Option(
            "--spacing",
            help="Voxel spacing of the result in mm, instead of --scale: in plane (0.34), or Z,Y,X (1,0.34,0.34).",
        ),
    ] = None,
    quality: Annotated[
        Quality,
        typer.Option(
            help="fast: a small network (x2, x4). best: the mean of eight flipped and transposed passes of the network."
        ),
    ] = Quality.standard,
    denoise: Annotated[
        float | None,
        typer.Option(
            help="Share of the noise of the scan to remove, from 0 to 1.",
            show_default="0.75",
        ),
    ] = None,
    structure: Annotated[
        Path | None, typer.Option(help="Write the structure map (0 to 1) to this file too.", rich_help_panel=OUTPUT)
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            help="Also write lower and upper bounds in HU that are meant to contain 90 % of voxels, "
            "to NAME-lower and NAME-upper.",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    spread: Annotated[
        Path | None,
        typer.Option(
            help="Also write the standard deviation of the samples in HU. Needs --samples "
            "2 or more and --steps 2 or more.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_path: Json = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Also draw scan, interpolation, result and difference of a few places into this .png or .html file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE",
            help="Also grade vessels and airways by what the scan shows, and write this .html page. See uhrct audit.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    noise_hu: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the noise of the scan in HU, in homogeneous tissue. Default: estimated.",
            rich_help_panel=SCAN,
        ),
    ] = None,
    psf_fwhm_mm: Annotated[
        float | None,
        typer.Option(help="In-plane blur of the scan, FWHM in mm. Default: estimated.", rich_help_panel=SCAN),
    ] = None,
    slice_thickness_mm: Annotated[
        float | None,
        typer.Option(
            help="Slice thickness of the scan, used by 5x1x1 and 5x2x2. Default: from the file.", rich_help_panel=SCAN
        ),
    ] = None,
    series: Series = None,
    input_spacing: InputSpacing = None,
    untilt: Untilt = False,
    transfer_syntax: TransferSyntax = Syntax.explicit,
    keep_private: KeepPrivate = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
    steps: Annotated[
        int,
        typer.Option(
            help="1: posterior mean. 2 or more: draw a sample in so many steps; 5 are good (not with --quality fast).",
            rich_help_panel=ADVANCED,
        ),
    ] = 1,
    samples: Annotated[
        int,
        typer.Option(
            help="Number of samples; the result is their mean (needs --steps 2 or more).", rich_help_panel=ADVANCED
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the random numbers for the samples.", rich_help_panel=ADVANCED)
    ] = 0,
    consistency: Annotated[
        Consistency,
        typer.Option(
            help="Correct the result so that the scanner model gives the input again. "
            "auto: up to the noise of the input; hard: exactly; off: never.",
            rich_help_panel=ADVANCED,
        ),
    ] = Consistency.auto,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Name from `uhrct models`, or a model folder. Default: the shipped weights for the scale.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    device: Device = "auto",
    engine: Annotated[
        Engine,
        typer.Option(
            help="int8: the network of the posterior mean runs in 8-bit integers on a CPU. It is faster and nearly as "
            "good, and needs the extra int8.",
            rich_help_panel=ADVANCED,
        ),
    ] = Engine.torch,
    tile: Annotated[
        int,
        typer.Option(
            help="Tile side in input pixels. Smaller tiles need less memory; the result is the same.",
            rich_help_panel=ADVANCED,
        ),
    ] = 512,
    filter_progress: Annotated[
        bool,
        typer.Option("--filter-progress", help="Report progress on stdout for 3D Slicer.", rich_help_panel=ADVANCED),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Super-resolve a CT. The result covers the same volume with finer voxels, in HU."""
    from uhrct import io
    from uhrct.core.files import STDOUT, write_json
    from uhrct.upscaling.files import bound_paths, write_result
    from uhrct.upscaling.plan import UpscaleSettings, make_plan
    from uhrct.upscaling.words import plan_lines

    lower, upper = (None, None) if uncertainty is None else bound_paths(uncertainty)
    outputs = {"image": output, "structure": structure, "lower": lower, "upper": upper, "spread": spread}
    volumes = [path for path in outputs.values() if path is not None]
    io.check_outputs(input, volumes, files=[json_path, compare, audit], overwrite=overwrite)
    if filter_progress and json_path == STDOUT:
        raise UhrctError("--filter-progress and --json - both write to stdout; give --json a file")
    if spread is not None and samples < 2:
        raise UhrctError("--spread is that of samples; add, for example, --steps 4 --samples 8")
    if compare is not None:
        from uhrct.evaluation.before_after import BeforeAfter, check_comparison

        check_comparison(compare)
    if audit is not None:
        from uhrct.audit.audit import Audit
        from uhrct.audit.page import sentence, write_page
        from uhrct.evaluation.html_report import check_libraries

        check_libraries()
    settings = UpscaleSettings(
        scale=scale,
        target_spacing_mm=None if target_spacing_mm is None else numbers(target_spacing_mm, "--spacing"),
        weights=weights,
        device=device,
        engine=engine.value,
        quality=quality.value,
        steps=steps,
        samples=samples,
        seed=seed,
        denoise=denoise,
        consistency=consistency.value,
        structure=structure is not None,
        interval=uncertainty is not None,
        noise_hu=noise_hu,
        psf_fwhm_mm=psf_fwhm_mm,
        slice_thickness_mm=slice_thickness_mm,
        tile=tile,
    )
    dicom = dicom_options(transfer_syntax, keep_private, anonymize, anonymize_key)
    # pictures and audit need the whole scan
    volume = read_input(input, series, input_spacing, untilt, on_disk=compare is None and audit is None)
    plan = make_plan(volume, settings)
    for line in plan_lines(plan, volume):
        say(line, quiet)
    before_after = None if compare is None else BeforeAfter(volume, plan.grid)
    grader = None if audit is None else Audit(volume, plan, quiet=quiet)
    listeners = [each.feed for each in (before_after, grader) if each is not None]
    report = write_result(
        plan,
        volume,
        output,
        structure=structure,
        lower=lower,
        upper=upper,
        spread=spread,
        dicom=dicom,
        overwrite=overwrite,
        listeners=listeners,
        quiet=quiet,
        on_progress=_report_progress if filter_progress else None,
    )
    say(_summary_line(output, plan, report), quiet)
    if lower is not None:
        say(f"{lower} and {upper}: {_interval_line(report['interval'])}", quiet)
    if before_after is not None and compare is not None:
        shown = {"body_difference_hu": report["consistency_body_hu"], "scan_noise_hu": plan.facts.get("noise_hu")}
        assumed = [*plan.assumptions.lines(), *(f"warning: {line}" for line in plan.warnings)]
        before_after.write(compare, **shown, assumed=assumed)
        report["comparison"] = asdict(before_after.figures())
        say(f"{compare}: {before_after.sentence(**shown)}", quiet)
    if grader is not None and audit is not None:
        report["audit"] = grader.report()
        write_page(grader, report["audit"], audit)
        say(f"{audit}: {sentence(report['audit'])}", quiet)
    if json_path is not None:
        report["input"]["path"] = str(input)
        for file in report["files"]:
            file["path"] = str(outputs[file["content"]])
        write_json(json_path, report | {"warnings": NOTES})


def _summary_line(output: Path, plan: Plan, report: dict[str, Any]) -> str:
    from uhrct.upscaling.plan import format_mm
    from uhrct.upscaling.words import agreement

    shape = " x ".join(map(str, plan.grid.shape))
    size = f"{output}: {shape} voxels of {format_mm(plan.grid.spacing_mm)} in {report['seconds']:.1f} s"
    return f"{size}. {agreement(plan, report)}. {NOTE}"


def _interval_line(interval: dict[str, Any]) -> str:
    """How far the bounds can be trusted."""
    what = f"bounds meant to hold {100 * interval['level']:.0f} % of the voxels"
    if not interval["calibrated"]:
        return f"{what}, not calibrated for this scan: {'; '.join(interval['not_calibrated_because'])}"
    return (
        f"{what}, calibrated on {interval['calibration_patients']} patients. With sharp kernels and strong noise they "
        "hold fewer (docs/faithfulness.md)"
    )


def _report_progress(fraction: float) -> None:
    """Tell 3D Slicer on stdout how much is done."""
    print(f"<filter-progress>{min(max(fraction, 0.0), 1.0):.3f}</filter-progress>", flush=True)
