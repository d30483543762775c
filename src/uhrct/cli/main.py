"""The command line: parse, call one function, print. Heavy imports happen inside the verbs."""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from uhrct.cli.options import (
    Anonymize,
    Consistency,
    Degradation,
    Device,
    Input,
    KeepPrivate,
    Operator,
    Output,
    Polarity,
    Quiet,
    Series,
    Spacing,
    Syntax,
    TransferSyntax,
    Untilt,
    app,
    dicom_options,
    numbers,
    one_line,
    parsed_scale,
    parsed_spacing,
)
from uhrct.core.errors import UhrctError


def _version(asked: bool) -> None:
    if asked:
        from uhrct.core.version import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    # no docstring: the help text is the one given to Typer above
    pass


@app.command()
def upscale(
    input: Input,
    output: Output,
    scale: Annotated[
        str | None, typer.Option(help="In-plane factor (2, 4), or factors ZxYxX (5x1x1). Default 2.")
    ] = None,
    target_spacing: Annotated[
        str | None,
        typer.Option("--spacing", help="Voxel spacing wanted instead of a scale: mm in plane (0.34), or Z,Y,X."),
    ] = None,
    steps: Annotated[int, typer.Option(help="1: posterior mean. More: a sample, in so many denoising steps.")] = 1,
    samples: Annotated[int, typer.Option(help="Average so many samples (needs --steps 2 or more).")] = 1,
    seed: Annotated[int, typer.Option(help="Which sample; the same seed gives the same result.")] = 0,
    structure: Annotated[Path | None, typer.Option(help="Also write the structure map (0 to 1) here.")] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Also write the standard deviation of the samples (HU) here.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    weights: Annotated[str | None, typer.Option(help="Name (see `uhrct models`) or model folder.")] = None,
    consistency: Annotated[
        Consistency,
        typer.Option(help="Agree with the measured data: as far as its noise lets, exactly, not."),
    ] = Consistency.auto,
    noise_hu: Annotated[
        float | None, typer.Option(help="Noise of the scan (standard deviation); default: estimated from it.")
    ] = None,
    psf_fwhm_mm: Annotated[float | None, typer.Option(help="In-plane blur of the scan; default: estimated.")] = None,
    slice_thickness_mm: Annotated[
        float | None, typer.Option(help="Thickness of the scan's slices; default: as the file says.")
    ] = None,
    tile: Annotated[int, typer.Option(help="Tile side in input pixels: less memory, same result.")] = 512,
    series: Series = None,
    spacing: Spacing = None,
    untilt: Untilt = False,
    transfer_syntax: TransferSyntax = Syntax.explicit,
    keep_private: KeepPrivate = False,
    anonymize: Anonymize = False,
    quiet: Quiet = False,
) -> None:
    """Super-resolve a CT: same place, finer voxels, HU untouched."""
    from uhrct.cli.job import UpscaleJob

    UpscaleJob(
        input=input,
        output=output,
        scale=None if scale is None else parsed_scale(scale),
        target_spacing_mm=None if target_spacing is None else numbers(target_spacing, "--spacing"),
        psf_fwhm_mm=psf_fwhm_mm,
        noise_hu=noise_hu,
        slice_thickness_mm=slice_thickness_mm,
        structure=structure,
        uncertainty=uncertainty,
        device=device.value,
        weights=weights,
        series=series,
        spacing_mm=parsed_spacing(spacing),
        untilt=untilt,
        dicom=dicom_options(transfer_syntax, keep_private, anonymize),
        quiet=quiet,
        settings={
            "steps": steps,
            "samples": samples,
            "seed": seed,
            "consistency": consistency.value,
            "tile": tile,
        },
    ).run()


@app.command()
def degrade(
    input: Input,
    output: Output,
    scale: Annotated[str, typer.Option(help="In-plane factor (2), or factors ZxYxX.")] = "2",
    kind: Annotated[
        Degradation, typer.Option(help="scanner: PSF and voxel integration; bicubic.")
    ] = Degradation.scanner,
    psf_fwhm_mm: Annotated[float | None, typer.Option(help="In-plane PSF; default 0.6 of the new pixel.")] = None,
    slice_thickness_mm: Annotated[
        float | None, typer.Option(help="Slab width where ZxYxX thickens slices; default: their increment.")
    ] = None,
    noise_hu: Annotated[float, typer.Option(help="Standard deviation of added noise.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    series: Series = None,
    spacing: Spacing = None,
    untilt: Untilt = False,
    transfer_syntax: TransferSyntax = Syntax.explicit,
    keep_private: KeepPrivate = False,
    anonymize: Anonymize = False,
    quiet: Quiet = False,
) -> None:
    """Make a low-resolution scan from a high-resolution one, by the acquisition model."""
    from uhrct.cli.job import degrade_file

    degrade_file(
        input,
        output,
        scale=parsed_scale(scale),
        kind=kind.value,
        psf_fwhm_mm=psf_fwhm_mm,
        slice_thickness_mm=slice_thickness_mm,
        noise_hu=noise_hu,
        seed=seed,
        series=series,
        spacing_mm=parsed_spacing(spacing),
        untilt=untilt,
        dicom=dicom_options(transfer_syntax, keep_private, anonymize),
        quiet=quiet,
    )


@app.command()
def structure(
    input: Input,
    output: Output,
    operator: Annotated[Operator, typer.Option(help="V_C (the paper's), Frangi or Jerman.")] = Operator.vc,
    sigma_mm: Annotated[str, typer.Option(help="Scales in mm.")] = "0.7,1.2,2.0",
    contrast_hu: Annotated[float, typer.Option(help="Contrast of half response; well above the noise.")] = 100.0,
    polarity: Annotated[Polarity, typer.Option(help="bright: vessels; dark: airways.")] = Polarity.bright,
    series: Series = None,
    spacing: Spacing = None,
    untilt: Untilt = False,
    transfer_syntax: TransferSyntax = Syntax.explicit,
    keep_private: KeepPrivate = False,
    anonymize: Anonymize = False,
    quiet: Quiet = False,
) -> None:
    """Write the structure enhancement map (0 to 1) of a CT, slice by slice."""
    from uhrct.cli.job import structure_file

    structure_file(
        input,
        output,
        settings={
            "kind": operator.value,
            "sigma_mm": numbers(sigma_mm, "--sigma-mm"),
            "contrast_hu": contrast_hu,
            "polarity": polarity.value,
        },
        series=series,
        spacing_mm=parsed_spacing(spacing),
        untilt=untilt,
        dicom=dicom_options(transfer_syntax, keep_private, anonymize),
        quiet=quiet,
    )


@app.command()
def info(input: Input) -> None:
    """List what a file or folder holds, and whether it can be processed."""
    from uhrct.cli.job import info_table

    info_table(input)


@app.command()
def models() -> None:
    """List the weights that are here: scale, size, licence, training data, scores."""
    from uhrct.cli.job import models_table

    models_table()


from uhrct.cli import research  # noqa: E402, F401  its verbs come after these in the help


def main() -> None:
    """Entry point: user errors become one line and exit code 2, without a traceback."""
    logging.basicConfig(format="uhrct: note: %(message)s", stream=sys.stderr)

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"uhrct: note: {one_line(message)}", file=sys.stderr)

    warnings.showwarning = note
    # as Ctrl-C: an exception, so that unfinished outputs are taken away
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except UhrctError as e:
        _fail(e)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        _fail(f"{where}{e.strerror or e}")
    except (MemoryError, RuntimeError) as e:
        # torch tells of memory by the text of a RuntimeError alone on the CPU
        if not isinstance(e, MemoryError) and not re.search("out of memory|allocate memory", str(e)):
            raise
        _fail("not enough memory; try a smaller --tile, or --device cpu if it was the GPU's")


def _fail(what: object) -> None:
    print(f"uhrct: {one_line(what)}", file=sys.stderr)
    sys.exit(2)
