"""`make demo`: real slices that the pydicom package ships, or the user's own scan, super-resolved into `demo/`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uhrct import io
from uhrct.cli.app import exit_code
from uhrct.core.errors import UhrctError
from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.pictures import Panel, busiest, comparison
from uhrct.evaluation.protocol import score
from uhrct.physics.degrade import degrade
from uhrct.physics.resampling import upsample
from uhrct.structure import StructureOperator
from uhrct.upscaling.slabs import compute_slabs
from uhrct.upscaling.upscaler import Upscaler

SCALE = (1, 2, 2)
#: of a user's scan only the middle slices: a demo takes seconds
MOST_SLICES = 8


def main() -> None:
    """Run the demo on sys.argv[1], or on the shipped slices."""
    try:
        if len(sys.argv) > 1:
            restore(io.read(sys.argv[1]), "yours", Path("demo"))
        else:
            run(Path("demo"))
    except UhrctError as e:
        print(f"uhrct: {e}", file=sys.stderr)
        sys.exit(exit_code(e))


def run(out: Path) -> None:
    """Both shipped slices: one degraded and restored, with scores against the truth; one simply super-resolved."""
    from pydicom.data import get_testdata_file

    skull = io.read(str(get_testdata_file("J2K_pixelrep_mismatch.dcm")))
    chest = io.read(str(get_testdata_file("CT_small.dcm")))
    restore(skull, "skull-base", out)
    sharpen(chest, "chest", out)


def restore(truth: Volume, name: str, out: Path) -> None:
    """Degrade a scan by the acquisition model, restore it x2, score and draw; and super-resolve the scan itself."""
    out.mkdir(parents=True, exist_ok=True)
    first = max((truth.shape[0] - MOST_SLICES) // 2, 0)
    y, x = (n // 2 * 2 for n in truth.shape[1:])
    # as in the evaluation protocol, padding outside the field of view counts as -1024 HU: a degraded voxel that is
    # part padding, part tissue would otherwise decide the scores
    part = truth.hu[first : first + MOST_SLICES, :y, :x].clip(min=int(FLOOR_HU))
    if 0 in part.shape or min(y, x) < 16:
        raise UhrctError(f"{name}: {truth.shape} voxels are too few for a demo")
    grid = Volume(part, truth.spacing_mm, truth.origin_mm, truth.direction).grid
    truth = truth.on_grid(grid, part)
    truth.meta.clear()  # a part of a series; its headers are not needed for pictures
    low = degrade(truth, scale=SCALE)
    upscaler = Upscaler(scale=SCALE)
    plan = upscaler.plan(low)
    begin = time.monotonic()
    ours = truth.on_grid(truth.grid, np.concatenate([s.hu for s in compute_slabs(plan, low)]))
    seconds = time.monotonic() - begin
    bicubic = truth.on_grid(truth.grid, _bicubic(low))
    volumes = {"low-resolution": low, "bicubic": bicubic, "ours": ours, "truth": truth}
    for kind, volume in volumes.items():
        io.write(volume, out / f"{name}-{kind}.nii.gz", overwrite=True)
    scores = {kind: _scores(truth, volume) for kind, volume in volumes.items() if kind in ("bicubic", "ours")}
    (out / f"{name}-scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    _draw(volumes, scores, truth.spacing_mm[1:], out / f"{name}.png", f"{name}: x2 of a degraded scan.")
    _print_table(name, scores, seconds, truth.shape[0])


def sharpen(scan: Volume, name: str, out: Path) -> None:
    """Super-resolve a scan as it is: no truth to compare with, so pictures only."""
    out.mkdir(parents=True, exist_ok=True)
    fine = Upscaler(scale=SCALE)(scan).volume
    bicubic = scan.on_grid(fine.grid, _bicubic(scan))
    volumes = {"as scanned": scan, "bicubic": bicubic, "ours": fine}
    fine.meta.clear()
    io.write(fine, out / f"{name}-ours.nii.gz", overwrite=True)
    _draw(volumes, {}, fine.spacing_mm[1:], out / f"{name}.png", f"{name}: x2 of the scan itself.")
    print(f"{name}: {scan.shape} -> {fine.shape} voxels, see {out / name}.png")


def _bicubic(low: Volume) -> np.ndarray:
    up = upsample(torch.from_numpy(low.hu).float().clamp(min=FLOOR_HU), *SCALE[1:]).numpy()
    return np.rint(up).astype(np.int16) if low.hu.dtype == np.int16 else up


def _scores(truth: Volume, test: Volume) -> dict[str, float]:
    rows = [
        score(t.clip(FLOOR_HU), s.clip(FLOOR_HU), truth.spacing_mm[1:])
        for t, s in zip(truth.hu.astype(np.float32), test.hu.astype(np.float32), strict=True)
    ]
    return {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}


def _draw(
    volumes: dict[str, Volume], scores: dict[str, dict[str, float]], spacing: tuple[float, ...], path: Path, title: str
) -> None:
    operator = StructureOperator()
    truth = None
    if "truth" in volumes:
        truth = volumes["truth"].hu[volumes["truth"].shape[0] // 2].astype(np.float32).clip(FLOOR_HU)
    panels = []
    for kind, v in volumes.items():
        hu = v.hu[v.shape[0] // 2].astype(np.float32).clip(FLOOR_HU)
        structure = operator(torch.from_numpy(hu), v.spacing_mm[1:]).numpy()
        s = scores.get(kind)
        line = f"{s['psnr_wide']:.2f} dB, SMSE x 1000 {1000 * s['smse_frangi']:.4f}" if s else ""
        error = hu - truth if s and truth is not None else None
        panels.append(Panel(f"{kind} {hu.shape[0]} x {hu.shape[1]}", hu, structure, line, error))
    reference = panels[-1]
    window = DISPLAY_WINDOWS_HU["bone"] if np.percentile(reference.hu, 95) > 300 else DISPLAY_WINDOWS_HU["paper"]
    side = max(reference.hu.shape[0] // 12, 8) * 2
    zooms = [(y // 2 * 2, x // 2 * 2, s // 2 * 2) for y, x, s in busiest(reference.structure, side, count=2)]
    comparison(panels, path, window_hu=window, zooms=zooms, title=title)


def _print_table(name: str, scores: dict[str, dict[str, float]], seconds: float, slices: int) -> None:
    from rich.console import Console
    from rich.table import Table

    columns: dict[str, Any] = {
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
