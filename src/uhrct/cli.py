"""The command line: parse, call one function, print. Heavy imports happen inside the verbs."""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from uhrct.errors import UhrctError

app = typer.Typer(
    help="CT super-resolution that keeps vessels, airways and lesions intact. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Consistency(StrEnum):
    auto, hard, off = "auto", "hard", "off"


class Device(StrEnum):
    auto, cpu, cuda = "auto", "cpu", "cuda"


class Degradation(StrEnum):
    scanner, bicubic = "scanner", "bicubic"


class Operator(StrEnum):
    vc, frangi, jerman = "vc", "frangi", "jerman"


class Polarity(StrEnum):
    bright, dark = "bright", "dark"


class Layout(StrEnum):
    auto, npz, luna16, rplhr, tree = "auto", "npz", "luna16", "rplhr", "tree"


class Family(StrEnum):
    train, test = "train", "test"


class Imaging(StrEnum):
    model, projections = "model", "projections"


class Kernel(StrEnum):
    standard, sharp = "standard", "sharp"


class Syntax(StrEnum):
    explicit, jpegls, htj2k = "explicit", "jpegls", "htj2k"


def _silence(quiet: bool) -> bool:
    """Notes are no errors: what libraries warn of and the formats remark is silent too."""
    if quiet:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    return quiet


INPUT_HELP = "DICOM folder, zip, DICOMDIR or file, .nii, .nii.gz, .nrrd, .mha/.mhd or .npz (arr_0, HU)."
OUTPUT_HELP = "DICOM folder or file, .nii, .nii.gz, .nrrd, .mha/.mhd or .npz; a name without suffix is a DICOM folder."
Input = Annotated[Path, typer.Argument(help=INPUT_HELP, show_default=False)]
Output = Annotated[Path, typer.Argument(help=OUTPUT_HELP, show_default=False)]
Series = Annotated[str | None, typer.Option(help="Which series of a folder: number as in `uhrct info`, or UID.")]
Spacing = Annotated[
    str | None, typer.Option("--input-spacing", help="Voxel spacing Z,Y,X in mm of an .npz that stores none.")
]
Untilt = Annotated[bool, typer.Option("--untilt", help="Shift the slices of a tilted gantry onto an upright grid.")]
TransferSyntax = Annotated[
    Syntax, typer.Option(help="Of DICOM outputs: uncompressed, JPEG-LS or HTJ2K, all without loss.")
]
KeepPrivate = Annotated[bool, typer.Option("--keep-private", help="Keep the private elements of a DICOM source.")]
Anonymize = Annotated[
    bool,
    typer.Option("--anonymize", help="DICOM outputs without the person: PS3.15 basic profile, same study for all."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", callback=_silence)]


def _version(asked: bool) -> None:
    if asked:
        from uhrct import __version__

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
    from uhrct.job import UpscaleJob

    UpscaleJob(
        input=input,
        output=output,
        scale=None if scale is None else _scale(scale),
        target_spacing_mm=None if target_spacing is None else _numbers(target_spacing, "--spacing"),
        psf_fwhm_mm=psf_fwhm_mm,
        noise_hu=noise_hu,
        slice_thickness_mm=slice_thickness_mm,
        structure=structure,
        uncertainty=uncertainty,
        device=device.value,
        weights=weights,
        series=series,
        spacing_mm=_spacing(spacing),
        untilt=untilt,
        dicom=_dicom(transfer_syntax, keep_private, anonymize),
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
    from uhrct.job import degrade_file

    degrade_file(
        input,
        output,
        scale=_scale(scale),
        kind=kind.value,
        psf_fwhm_mm=psf_fwhm_mm,
        slice_thickness_mm=slice_thickness_mm,
        noise_hu=noise_hu,
        seed=seed,
        series=series,
        spacing_mm=_spacing(spacing),
        untilt=untilt,
        dicom=_dicom(transfer_syntax, keep_private, anonymize),
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
    from uhrct.job import structure_file

    structure_file(
        input,
        output,
        settings={
            "kind": operator.value,
            "sigma_mm": _numbers(sigma_mm, "--sigma-mm"),
            "contrast_hu": contrast_hu,
            "polarity": polarity.value,
        },
        series=series,
        spacing_mm=_spacing(spacing),
        untilt=untilt,
        dicom=_dicom(transfer_syntax, keep_private, anonymize),
        quiet=quiet,
    )


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
        spacing_mm=_spacing(spacing),
        quiet=quiet,
    )


@app.command()
def info(input: Input) -> None:
    """List what a file or folder holds, and whether it can be processed."""
    from uhrct.job import info_table

    info_table(input)


@app.command()
def models() -> None:
    """List the weights that are here: scale, size, licence, training data, scores."""
    from uhrct.job import models_table

    models_table()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML, see configs/.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; default runs/NAME-OF-CONFIG.")] = Path("runs"),
    max_minutes: Annotated[float | None, typer.Option(help="Wall-clock budget, resumed parts counted in.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    quiet: Quiet = False,
) -> None:
    """Train weights on your own CT; under torchrun on several devices."""
    from uhrct.training.config import load_config
    from uhrct.training.trainer import Trainer

    folder = out / config.stem if out == Path("runs") else out
    settings = load_config(config, overrides)
    chosen = None if device == Device.auto else _torch_device(device.value)
    if settings.stage == "estimator":
        from uhrct.training.estimator import train_estimator

        model = train_estimator(settings, folder, max_minutes=max_minutes, device=chosen, quiet=quiet)
        if not quiet:
            print(f"model in {model}")
        return
    trainer = Trainer(
        settings,
        folder,
        max_minutes=max_minutes,
        resume=resume,
        device=chosen,
        quiet=quiet,
    )
    model = trainer.run()
    if trainer.rank == 0 and not quiet:
        print(f"model in {model}")


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
    from uhrct.evaluation.benchmark_config import load_benchmark

    settings = load_benchmark(config)
    if report is not None:
        from uhrct.evaluation.benchmark_report import write_report

        print(f"report in {write_report(settings, report, quiet=quiet)}")
        return
    from uhrct.evaluation.benchmark import Benchmark

    Benchmark(settings, device=_torch_device(device.value), quiet=quiet).run()
    if not quiet:
        print(f"results in {settings.out}")


@app.command()
def pack(
    sources: Annotated[list[Path], typer.Argument(help="Data set folders or files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Store folder: new, or one to go on with.", show_default=False)],
    layout: Annotated[Layout, typer.Option(help="Of the data set, see docs/training.md.")] = Layout.auto,
    spacing: Spacing = None,
    unit_hu: Annotated[
        str | None, typer.Option(help="LOW,HIGH: what 0 and 1 stand for in files whose voxels were mapped to [0, 1].")
    ] = None,
    split: Annotated[Path | None, typer.Option(help="JSON: patients of train, validation and test.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of what is packed already.")] = False,
    quiet: Quiet = False,
) -> None:
    """Pack a data set once for training: files that map into memory, an index, a split. Goes on where it stopped."""
    from uhrct.training.packing import pack as pack_into
    from uhrct.training.packing import summary

    ends = None if unit_hu is None else _numbers(unit_hu, "--unit-hu")
    if ends is not None and (len(ends) != 2 or not ends[0] < ends[1]):
        raise UhrctError(f"--unit-hu {unit_hu!r}: give two numbers LOW,HIGH, such as -1024,3071")
    report = pack_into(
        list(sources),
        out,
        layout=layout.value,
        spacing_mm=_spacing(spacing),
        unit_hu=None if ends is None else (ends[0], ends[1]),
        split=split,
        verify=verify,
        quiet=quiet,
    )
    if not quiet:
        print("\n".join(summary(report, out)))
    for line in report.problems:
        print(f"uhrct: not packed: {_one_line(line)}", file=sys.stderr)
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
        shape=None if shape is None else _numbers(shape, "--shape"),  # type: ignore[arg-type]  # checked there
        spacing_mm=None if spacing is None else _numbers(spacing, "--spacing"),
        centre_mm=None if centre is None else _numbers(centre, "--centre"),
        dose=dose,
        imaging=imaging.value,
        kernel=kernel.value,
        psf_fwhm_mm=psf_fwhm_mm,
        name=image,
        quiet=quiet,
    )


def _dicom(syntax: Syntax, keep_private: bool, anonymize: bool) -> Any:
    from uhrct.formats import DicomOptions

    return DicomOptions(syntax.value, keep_private, anonymize)


def _torch_device(name: str) -> Any:
    from uhrct.serving import pick_device

    return pick_device(name)


def _scale(text: str) -> tuple[int, int, int]:
    """ "2" -> (1, 2, 2), "5x2x2" -> (5, 2, 2)."""
    try:
        factors = [int(t) for t in text.lower().split("x")]
    except ValueError:
        factors = []
    if any(f < 1 for f in factors) or len(factors) not in (1, 3):
        raise UhrctError(f"--scale {text!r}: give a whole number (2) or factors ZxYxX (1x2x2)")
    return (1, factors[0], factors[0]) if len(factors) == 1 else (factors[0], factors[1], factors[2])


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    values = _numbers(text, "--input-spacing")
    if len(values) != 3 or not all(0 < v < 1e4 for v in values):
        raise UhrctError(f"--input-spacing {text!r}: give three positive numbers Z,Y,X in mm, such as 1.0,0.7,0.7")
    return values[0], values[1], values[2]


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(t) for t in text.split(","))
    except ValueError:
        raise UhrctError(f"{option} {text!r}: give numbers with commas between") from None


def main() -> None:
    """Entry point: user errors become one line and exit code 2, without a traceback."""
    logging.basicConfig(format="uhrct: note: %(message)s", stream=sys.stderr)

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"uhrct: note: {_one_line(message)}", file=sys.stderr)

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
    print(f"uhrct: {_one_line(what)}", file=sys.stderr)
    sys.exit(2)


def _one_line(what: object) -> str:
    return " ".join(str(what).split())
