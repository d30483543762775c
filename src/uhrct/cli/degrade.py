"""`uhrct degrade`: simulate a low-resolution scan."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from uhrct.cli.app import (
    SCAN,
    Anonymize,
    AnonymizeKey,
    Degradation,
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
    read_input,
    say,
)


def degrade(
    input: Input,
    output: Output,
    scale: Annotated[str, typer.Option(help="In-plane factor (2) or factors ZxYxX (5x2x2).")] = "2",
    kind: Annotated[
        Degradation,
        typer.Option(help="scanner: PSF and averaging over the voxel; bicubic: antialiased downsampling."),
    ] = Degradation.scanner,
    psf_fwhm_mm: Annotated[
        float | None,
        typer.Option(help="In-plane PSF, FWHM in mm. Default: 0.6 x pixel size of the result.", rich_help_panel=SCAN),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            help="Reconstruction kernel instead of a PSF: a name (B30f, GE LUNG, PHILIPS L), or the 50 % and 10 % "
            "points of its MTF in line pairs per cm (3.5,5.9).",
            rich_help_panel=SCAN,
        ),
    ] = None,
    slice_thickness_mm: Annotated[
        float | None,
        typer.Option(
            help="Thickness of the new slices in mm, with that of the slices of the input counted, for a scale ZxYxX. "
            "Default: each new slice joins Z slices without a gap.",
            rich_help_panel=SCAN,
        ),
    ] = None,
    noise_hu: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the noise to add, in soft tissue. Its texture is that of the kernel.",
            rich_help_panel=SCAN,
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers for the noise.", rich_help_panel=SCAN)] = 0,
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
    """Simulate a low-resolution scan from a CT (scanner model: PSF, voxel averaging, noise)."""
    from uhrct import io
    from uhrct.core.version import __version__
    from uhrct.models.choice import scale_word
    from uhrct.physics.acquisition import Acquisition
    from uhrct.physics.degrade import check_degradation, slab_width_mm
    from uhrct.physics.degrade import degrade as simulate
    from uhrct.physics.kernel_names import parse_kernel

    settings: dict[str, Any] = {
        "scale": scale,
        "kind": kind.value,
        "psf_fwhm_mm": psf_fwhm_mm,
        "kernel": None if kernel is None else parse_kernel(kernel),
        "slice_thickness_mm": slice_thickness_mm,
        "noise_hu": noise_hu,
        "seed": seed,
    }
    settings["scale"] = check_degradation(**settings)
    io.check_outputs(input, [output], overwrite=overwrite)
    source = read_input(input, series, input_spacing, untilt)
    low = simulate(source, **settings)
    psf = "psf default" if psf_fwhm_mm is None else f"psf {psf_fwhm_mm} mm"
    if (k := settings["kernel"]) is not None:
        psf = f"kernel with MTF {k.mtf50_lp_cm}, {k.mtf10_lp_cm} lp/cm and overshoot {k.overshoot}"
    slab, width_mm = "", 0.0
    if slice_thickness_mm is not None:
        slab, width_mm = f", slices {slice_thickness_mm} mm thick", slab_width_mm(source.grid, slice_thickness_mm)
    what = f"{kind.value} model, scale {settings['scale']}, {psf}{slab}, noise {noise_hu} HU, seed {seed}"
    about = io.Derivation(
        description=f"uhrct {__version__} simulated low-resolution CT: {what}",
        key=what,
        suffix=f"degraded {scale_word(settings['scale'])}",
        reach_mm=max(0.0, (width_mm - low.spacing_mm[0]) / 2),
    )
    io.write(
        low, output, about, dicom_options(transfer_syntax, keep_private, anonymize, anonymize_key), overwrite=overwrite
    )
    say(f"{output}: {' x '.join(map(str, low.shape))} voxels ({what})", quiet)
    if kind == Degradation.scanner and kernel is None and settings["scale"][1] > 1:
        fwhm_mm = Acquisition(settings["scale"]).psf_fwhm * low.spacing_mm[1] if psf_fwhm_mm is None else psf_fwhm_mm
        say(f"its blur is {fwhm_mm:.2f} mm (FWHM); uhrct upscale can be told with --psf-fwhm-mm {fwhm_mm:.2f}", quiet)
