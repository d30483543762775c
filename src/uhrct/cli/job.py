"""What the command line's verbs do with files: read, compute slab by slab, write."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.progress import track
from uhrct.core.version import __version__
from uhrct.core.volume import Grid, Volume
from uhrct.physics.degrade import degrade

if TYPE_CHECKING:
    from rich.table import Table

    from uhrct.upscaling.upscaler import Upscaler


@dataclass
class UpscaleJob:
    """One `uhrct upscale`: everything is checked before the work begins, nothing half-written is left after it."""

    input: Path
    output: Path
    scale: tuple[int, int, int] | None = None
    target_spacing_mm: tuple[float, ...] | None = None
    structure: Path | None = None
    uncertainty: Path | None = None
    device: str = "auto"
    weights: str | None = None
    series: str | None = None
    spacing_mm: tuple[float, float, float] | None = None
    untilt: bool = False
    dicom: io.DicomOptions = field(default_factory=io.DicomOptions)
    quiet: bool = False
    psf_fwhm_mm: float | None = None
    noise_hu: float | None = None
    slice_thickness_mm: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Do it."""
        outputs = [self.output, *(p for p in (self.structure, self.uncertainty) if p is not None)]
        _check_outputs(self.input, outputs)
        if self.uncertainty is not None and self.settings.get("samples", 1) < 2:
            raise UhrctError("--uncertainty is the spread of samples; add --steps 4 --samples 8, say")
        volume = io.read(self.input, series=self.series, spacing_mm=self.spacing_mm, untilt=self.untilt)

        from uhrct.models.choice import load_for_scale, scale_word
        from uhrct.upscaling.upscaler import Upscaler

        scale, settings = self._wish(volume)
        upscaler = Upscaler(
            load_for_scale(scale, self.weights, self.device),
            structure=self.structure is not None,
            told=self._told(volume),
            **settings,
        )
        grid = upscaler.grid(volume)
        scan = upscaler.scan(volume)
        self._say_plan(upscaler, volume, grid)
        derivation = self._derivation(upscaler, scale_word(scale), str(scan))
        begin = time.monotonic()
        with ExitStack() as stack:
            image = stack.enter_context(
                io.open_writer(
                    self.output,
                    grid,
                    dtype=volume.hu.dtype,
                    source=volume,
                    derivation=derivation,
                    dicom=self.dicom,
                )
            )
            wanted = (("structure", "structure", self.structure), ("sd_hu", "uncertainty", self.uncertainty))
            maps = {
                name: stack.enter_context(
                    io.open_map_writer(path, grid, quantity, source=volume, derivation=derivation, dicom=self.dicom)
                )
                for name, quantity, path in wanted
                if path is not None
            }
            for slab in track(
                upscaler.slabs(volume), "upscale", quiet=self.quiet, total=self._passes(upscaler, volume)
            ):
                image.write(slab.hu)
                for name, writer in maps.items():
                    writer.write(np.asarray(getattr(slab, name), np.float32))
        if not self.quiet:
            left = upscaler.measured.get("consistency_hu")
            agrees = "" if left is None else f"differs from the measured data by {left:.2f} HU. "
            print(
                f"{self.output}: {'x'.join(map(str, grid.shape))} voxels of "
                f"{_mm(grid.spacing_mm)} in {time.monotonic() - begin:.1f} s; "
                f"{agrees}Research use only; not a medical device.",
                file=sys.stderr,
            )

    def _wish(self, volume: Volume) -> tuple[tuple[int, int, int], dict[str, Any]]:
        """The scale to compute, and the upscaler's settings, out of a scale or a spacing asked for."""
        from uhrct.models.choice import nearest_scale, target_spacing

        if self.target_spacing_mm is None:
            return self.scale or (1, 2, 2), self.settings
        if self.scale is not None:
            raise UhrctError("--scale and --spacing: give one of them")
        wanted = target_spacing(volume, self.target_spacing_mm)
        return nearest_scale(volume.spacing_mm, wanted, self.weights), {**self.settings, "spacing_mm": wanted}

    def _told(self, volume: Volume) -> dict[str, float]:
        """What the user says of the scan, in the scan's own pixels and increments."""
        z, y, _ = volume.spacing_mm
        told = {}
        if self.psf_fwhm_mm is not None:
            told["psf_fwhm"] = self.psf_fwhm_mm / y
        if self.noise_hu is not None:
            told["noise_hu"] = self.noise_hu
        if self.slice_thickness_mm is not None:
            told["slice_thickness"] = self.slice_thickness_mm / z
        return told

    def _say_plan(self, upscaler: Upscaler, volume: Volume, grid: Grid) -> None:
        if self.quiet:
            return
        from uhrct.models.choice import scale_word

        config = upscaler.model.config
        if upscaler.spacing_mm is not None:
            own = volume.refined_grid(config.scale).spacing_mm
            print(
                f"nearest served scale {scale_word(config.scale)} ({_mm(own)}), then cubic resampling from the same "
                f"corner to {_mm(grid.spacing_mm)}",
                file=sys.stderr,
            )
        if config.properties:
            print(f"scan taken as: {upscaler.scan(volume)}", file=sys.stderr)

    @staticmethod
    def _passes(upscaler: Any, volume: Volume) -> int:
        batch = upscaler.batch_for(volume)
        return -(-volume.shape[0] // batch)

    def _derivation(self, upscaler: Upscaler, scale: str, scan: str) -> io.Derivation:
        s, sha256 = self.settings, upscaler.model.weights_sha256
        mode = (
            "posterior mean" if s["steps"] == 1 else f"mean of {s['samples']} posterior sample(s), {s['steps']} steps"
        )
        what = f"{scale}, weights {sha256[:16]}, {mode}, seed {s['seed']}, consistency {s['consistency']}"
        if upscaler.spacing_mm is not None:
            what += f", resampled to {_mm(upscaler.spacing_mm)}"
        if upscaler.model.config.properties:
            what += f", scan taken as {scan}"
        what += f", {upscaler.computed_in}"  # other hardware, other last digits, other UIDs
        return io.Derivation(
            description=f"uhrct {__version__} super-resolution {what}. Research use only; not a medical device.",
            key=f"{__version__} {what}",
            suffix=f"SR {scale}",
        )


def degrade_file(
    input: Path,
    output: Path,
    *,
    scale: tuple[int, int, int],
    kind: str = "scanner",
    psf_fwhm_mm: float | None = None,
    slice_thickness_mm: float | None = None,
    noise_hu: float = 0.0,
    seed: int = 0,
    series: str | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    untilt: bool = False,
    dicom: io.DicomOptions | None = None,
    quiet: bool = False,
) -> None:
    """`uhrct degrade`: a low-resolution scan out of a high-resolution one."""
    for option, value in (("--noise-hu", noise_hu), ("--psf-fwhm-mm", psf_fwhm_mm)):
        if value is not None and not 0 <= value < 1e4:
            raise UhrctError(f"{option} {value}: give a number from 0")
    if psf_fwhm_mm is not None and kind != "scanner":
        raise UhrctError(f"--psf-fwhm-mm belongs to --kind scanner; {kind} downsampling has no PSF to choose")
    if slice_thickness_mm is not None and not 0 < slice_thickness_mm < 1e3:
        raise UhrctError(f"--slice-thickness-mm {slice_thickness_mm}: give a number above 0")
    if slice_thickness_mm is not None and scale[0] == 1:
        raise UhrctError("--slice-thickness-mm belongs to a scale that makes slices thicker, such as --scale 5x1x1")
    if not 0 <= seed < 2**63:
        raise UhrctError(f"--seed {seed}: give a whole number from 0 to 2^63 - 1")
    _check_outputs(input, [output])
    volume = io.read(input, series=series, spacing_mm=spacing_mm, untilt=untilt)
    lr = degrade(
        volume,
        scale=scale,
        kind=kind,
        psf_fwhm_mm=psf_fwhm_mm,
        slice_thickness_mm=slice_thickness_mm,
        noise_hu=noise_hu,
        seed=seed,
    )
    psf = "default" if psf_fwhm_mm is None else f"{psf_fwhm_mm} mm"
    slab = "" if slice_thickness_mm is None else f", slices {slice_thickness_mm} mm thick"
    what = f"{kind} model, scale {scale}, psf {psf}{slab}, noise {noise_hu} HU, seed {seed}"
    derivation = io.Derivation(
        description=f"uhrct {__version__} simulated low-resolution CT: {what}",
        key=what,
        suffix="simulated LR",
    )
    io.write(lr, output, derivation, dicom)
    if not quiet:
        print(f"{output}: {'x'.join(map(str, lr.shape))} voxels ({what})", file=sys.stderr)


def structure_file(
    input: Path,
    output: Path,
    *,
    settings: dict[str, Any],
    series: str | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    untilt: bool = False,
    dicom: io.DicomOptions | None = None,
    quiet: bool = False,
) -> None:
    """`uhrct structure`: the enhancement map of a CT, slice by slice."""
    import torch

    from uhrct.structure import StructureOperator

    operator = StructureOperator(**settings)
    _check_outputs(input, [output])
    volume = io.read(input, series=series, spacing_mm=spacing_mm, untilt=untilt)
    what = ", ".join(f"{key} {value}" for key, value in settings.items())
    derivation = io.Derivation(f"uhrct {__version__} structure map, {what}", key=what, suffix="", codes=())
    writer = io.open_map_writer(output, volume.grid, "structure", source=volume, derivation=derivation, dicom=dicom)
    with writer, torch.inference_mode():
        for hu in track(volume.hu, "structure", quiet=quiet):
            air = np.maximum(hu, -1024)  # the step from padding to air is no structure
            writer.write(operator(torch.from_numpy(air).float(), volume.spacing_mm[1:]).numpy()[None])


def info_table(path: Path) -> None:
    """`uhrct info`: a line per series, and whether it can be processed."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in (
        "#",
        "kind",
        "description",
        "voxels z y x",
        "mm z y x",
        "plane",
        "scanner",
        "syntax",
        "can be processed",
    ):
        table.add_column(name, overflow="fold")
    for s in io.inspect(path):
        table.add_row(
            str(s.number or "-"),
            f"{s.kind} {s.modality}".strip(),
            s.description,
            " ".join(map(str, s.shape)) if s.shape else "?",
            " ".join(f"{v:.3g}" for v in s.spacing_mm) if s.spacing_mm else "?",
            s.orientation,
            s.scanner,
            s.transfer_syntax,
            s.processable,
        )
    _print(table)


def models_table() -> None:
    """`uhrct models`: the weights that are here."""
    from rich.table import Table

    from uhrct.models.choice import scale_word
    from uhrct.models.model import available_models, read_config

    table = Table(box=None, pad_edge=False)
    for name in ("name", "scale", "size", "samples", "licence", "trained on", "PSNR over interpolation"):
        table.add_column(name, overflow="fold")
    for folder in available_models():
        config, _ = read_config(folder)
        card = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
        gains = "; ".join(f"{k} {v:+.2f} dB" for k, v in card.get("gain_db", {}).items())
        table.add_row(
            folder.name,
            scale_word(config.scale),
            f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB",
            "yes" if config.denoiser is not None else "no",
            card.get("licence", "?"),
            card.get("training_data", "?"),
            gains or "?",
        )
    _print(table)


def _mm(spacing_mm: tuple[float, ...]) -> str:
    return " x ".join(f"{s:.3f}" for s in spacing_mm) + " mm (z, y, x)"


def _print(table: Table) -> None:
    from rich.console import Console

    # no markup: the [/C] of a series description is text
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False, emoji=False).print(table)


def _check_outputs(input: Path, outputs: list[Path]) -> None:
    for path in outputs:
        io.check_output(path, input)
    if len({p.resolve() for p in outputs}) < len(outputs):
        raise UhrctError(f"{outputs[0]}: two outputs have the same name; give each its own")
    for path in outputs:
        if any(other.resolve() in path.resolve().parents for other in outputs):
            raise UhrctError(f"{path}: lies inside another output of this run; put it beside")
