"""`make demo`: a real slice and a computed chest, degraded and restored, or the user's own scan; into `demo/`."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from uhrct import io
from uhrct.cli.app import exit_code
from uhrct.core.errors import UhrctError
from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU
from uhrct.core.progress import duration
from uhrct.core.volume import Volume
from uhrct.evaluation.baseline import interpolated
from uhrct.evaluation.before_after import BeforeAfter
from uhrct.evaluation.pictures import Panel, busiest, comparison
from uhrct.evaluation.protocol import score
from uhrct.phantom.make import phantom_folder
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.degrade import degrade
from uhrct.structure import StructureOperator
from uhrct.upscaling.files import write_result
from uhrct.upscaling.slabs import compute_slabs
from uhrct.upscaling.upscaler import Upscaler

#: of a user's scan only the middle slices: a demo takes seconds
MOST_SLICES = 16
#: time of one processor core for x2, per million pixels of input
CORE_SECONDS_PER_MEGAPIXEL = 36.0
Scale = tuple[int, int, int]


def main() -> None:
    """Run the demo on sys.argv[1], or on the shipped scans."""
    try:
        if len(sys.argv) > 1:
            sharpen(io.read(sys.argv[1]), demo_name(Path(sys.argv[1])), Path("demo"))
        else:
            run(Path("demo"))
    except UhrctError as e:
        print(f"uhrct: {e}", file=sys.stderr)
        sys.exit(exit_code(e))


def run(out: Path) -> None:
    """A slice of a skull at x4, and thick slices of a computed chest: degraded, restored, compared with the truth."""
    from pydicom.data import get_testdata_file

    skull = io.read(str(get_testdata_file("J2K_pixelrep_mismatch.dcm")))
    volumes, scores = restore(skull, "skull-base-x4", (1, 4, 4), out)
    _draw(volumes, scores, out / "skull-base-x4.png", "skull base: x4 of a degraded scan.")
    with tempfile.TemporaryDirectory(prefix="uhrct-demo-") as folder:
        # a part of the left lung; fewer vessels than usual, because growing them takes most of the time
        phantom_folder(
            Path(folder) / "chest",
            seed=3,
            family="test",
            density=0.4,
            dose=2.0,
            shape=(80, 160, 160),
            spacing_mm=(1.0, 0.7, 0.7),
            centre_mm=(0.0, 0.0, -75.0),
            quiet=True,
        )
        chest = io.read(Path(folder) / "chest" / "ct.nii.gz")
    volumes, _ = restore(chest, "chest-5x2x2", (5, 2, 2), out)
    before_after = BeforeAfter(volumes["low-resolution"], chest.grid)
    before_after.feed(0, volumes["ours"].hu)
    before_after.write(out / "chest-5x2x2.png")
    print(f"Look at {out / 'skull-base-x4.png'} and {out / 'chest-5x2x2.png'}.")


def restore(truth: Volume, name: str, scale: Scale, out: Path) -> tuple[dict[str, Volume], dict[str, dict[str, float]]]:
    """Degrade a scan with the scanner model, restore it, and write all volumes and the scores against the truth."""
    out.mkdir(parents=True, exist_ok=True)
    z, y, x = (n // s * s for n, s in zip(truth.shape, scale, strict=True))
    # as in the evaluation protocol, padding outside the field of view counts as -1024 HU: a degraded voxel that is
    # part padding, part tissue would otherwise decide the scores
    truth = Volume(truth.hu[:z, :y, :x].clip(min=int(FLOOR_HU)), truth.spacing_mm, truth.origin_mm, truth.direction)
    low = degrade(truth, scale=scale)
    # the blur of a simulated scan is known
    upscaler = Upscaler(scale=scale, psf_fwhm_mm=Acquisition(scale).psf_fwhm * low.spacing_mm[1])
    # a small example lies outside the range of the training; the warnings of a user's scan would frighten here
    plan = replace(upscaler.plan(low), warnings=())
    begin = time.monotonic()
    ours = truth.on_grid(truth.grid, np.concatenate([s.hu for s in compute_slabs(plan, low)]))
    seconds = time.monotonic() - begin
    cubic = interpolated(low, truth.grid, scale)
    volumes = {"low-resolution": low, "interpolation": cubic, "ours": ours, "truth": truth}
    for kind, volume in volumes.items():
        io.write(volume, out / f"{name}-{kind}.nii.gz", overwrite=True)
    scores = {kind: _scores(truth, volumes[kind]) for kind in ("interpolation", "ours")}
    (out / f"{name}-scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    _print_table(name, scores, seconds, z)
    return volumes, scores


def demo_name(path: Path) -> str:
    """The start of the file names for a user's scan: its folder and its name, since many scans are called `ct`.

    >>> demo_name(Path("patient 1/CHEST.nii.gz"))
    'yours-patient-1-CHEST'
    """
    whole = path.resolve()
    stem = whole.name[: len(whole.name) - len(io.paths.known_suffix(path))]
    return re.sub(r"[^\w.-]+", "-", f"yours-{whole.parent.name}-{stem}")


def sharpen(scan: Volume, name: str, out: Path) -> None:
    """Super-resolve the middle slices of a scan as they are, and draw them before and after."""
    out.mkdir(parents=True, exist_ok=True)
    first = max((scan.shape[0] - MOST_SLICES) // 2, 0)
    chosen = slice(first, first + MOST_SLICES)
    headers = scan.meta.get("dicom")
    # the kernel in the headers tells the blur
    part = replace(scan, hu=scan.hu[chosen], meta={"dicom": headers[chosen]} if headers else {})
    cores = torch.get_num_threads()
    time_s = CORE_SECONDS_PER_MEGAPIXEL * part.hu.size / 1e6 / cores
    middle = f"the middle {part.shape[0]} of {scan.shape[0]} slices"
    print(f"{name}: {middle}, about {duration(time_s)} on {cores} processor core(s)", flush=True)
    plan = Upscaler(scale=2).plan(part)
    print(f"scan properties: {plan.assumptions}")
    before_after = BeforeAfter(part, plan.grid)
    report = write_result(plan, part, out / f"{name}-x2.nii.gz", overwrite=True, listeners=[before_after.feed])
    shown = {"body_difference_hu": report["consistency_body_hu"], "scan_noise_hu": plan.facts.get("noise_hu")}
    for suffix in (".png", ".html"):
        before_after.write(out / f"{name}-compare{suffix}", **shown, assumed=plan.assumptions.lines())
    print(f"{name}: {part.shape} -> {plan.grid.shape} voxels. {before_after.sentence(**shown)}")
    print(f"Look at {out / name}-compare.png and {out / name}-compare.html.")


def _scores(truth: Volume, test: Volume) -> dict[str, float]:
    rows = [
        score(t.clip(FLOOR_HU), s.clip(FLOOR_HU), truth.spacing_mm[1:])
        for t, s in zip(truth.hu.astype(np.float32), test.hu.astype(np.float32), strict=True)
    ]
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


def _draw(volumes: dict[str, Volume], scores: dict[str, dict[str, float]], path: Path, title: str) -> None:
    operator = StructureOperator()
    truth = volumes["truth"].hu[0].astype(np.float32)
    panels = []
    for kind, v in volumes.items():
        hu = v.hu[0].astype(np.float32).clip(FLOOR_HU)
        structure = operator(torch.from_numpy(hu), v.spacing_mm[1:]).numpy()
        s = scores.get(kind)
        line = f"{s['psnr_wide']:.2f} dB, SMSE x 1000 {1000 * s['smse_frangi']:.4f}" if s else ""
        panels.append(Panel(f"{kind} {hu.shape[0]} x {hu.shape[1]}", hu, structure, line, hu - truth if s else None))
    reference = panels[-1]
    side = max(reference.hu.shape[0] // 12, 8) * 2
    zooms = busiest(reference.structure, side, count=2)
    comparison(panels, path, window_hu=DISPLAY_WINDOWS_HU["bone"], zooms=zooms, title=title)


def _print_table(name: str, scores: dict[str, dict[str, float]], seconds: float, slices: int) -> None:
    from rich.console import Console
    from rich.table import Table

    columns: dict[str, Callable[[dict[str, float]], str]] = {
        "PSNR dB [-1000, 600]": lambda s: f"{s['psnr_wide']:.2f}",
        "PSNR dB lung": lambda s: f"{s['psnr_lung']:.2f}",
        "PSNR dB mediastinum": lambda s: f"{s['psnr_mediastinum']:.2f}",
        "RMSE HU": lambda s: f"{s['rmse_hu']:.1f}",
        "SMSE x 1000": lambda s: f"{1000 * s['smse_frangi']:.4f}",
    }
    table = Table(title=f"{name}: {slices} slice(s), {seconds:.2f} s", box=None, title_justify="left")
    for column in ("", *columns):
        table.add_column(column)
    for kind, s in scores.items():
        table.add_row(kind, *(f(s) for f in columns.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
