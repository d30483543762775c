"""Cost of a phantom, and pictures of it beside a real scan.

    python benchmarks/phantom.py                                # 512^3 by the command line -> results/phantom.json
    python benchmarks/phantom.py --pictures docs/images         # phantom.png and phantom-projections.png

Run the first on an idle machine: it measures wall-clock seconds, processor seconds and peak memory of `uhrct phantom`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core.files import write_atomic
from uhrct.evaluation.pictures import pyplot
from uhrct.phantom.imaging import add_noise
from uhrct.phantom.make import make_view
from uhrct.phantom.scene import Imager, Scene, View, make_scene
from uhrct.phantom.tomography import scan

PICTURE_WINDOWS_HU = {"lung": (-1200.0, 200.0), "soft tissue": (-160.0, 240.0)}
DETAIL_MM = 110.0
Image = tuple[np.ndarray, tuple[float, float]]  # HU (rows, columns) and the spacing of both, mm


def cost(shape: str, spacing: str | None) -> dict[str, Any]:
    """Seconds and peak memory of `uhrct phantom` in a process of its own, with all its threads."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uhrct", "phantom", f"{folder}/chest", "--shape", shape, "--seed", "1"]
        command += ["--psf-fwhm-mm", "1.1", "--dose", "1.5", "--quiet"]
        if spacing is not None:
            command += ["--spacing", spacing]
        begin = time.perf_counter()
        child = os.posix_spawn(sys.executable, command, os.environ)
        _, status, used = os.wait4(child, 0)
        wall = time.perf_counter() - begin
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))
    return {
        "command": " ".join(["uhrct", "phantom", "OUT", *command[5:]]),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "wall_s": round(wall, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_mb": round(used.ru_maxrss / 1024),
    }


def real_slice(folder: Path, at: float) -> Image:
    """The slice at the share `at` of the height, with padding as air."""
    volume = io.read(folder)
    hu = np.maximum(volume.hu[int(at * (volume.shape[0] - 1))].astype(np.float32), -1024)
    return hu, (volume.spacing_mm[1], volume.spacing_mm[2])


def by_projections(scene: Scene, data: Path) -> dict[str, Image]:
    """One level of the chest by the model and by projections, and real slices of a soft and a sharp kernel."""
    z, y = 1.25, 400 / 512
    view = View((3, 512, 512), (z, y, y), centre_mm=(8.0, 0.0, 0.0))
    hu = Imager(scene, view).slab(0, 3).hu
    images: dict[str, Image] = {"real: LIDC-IDRI-0002, STANDARD, 1.25 mm": real_slice(data / "train/lidc0002", 0.34)}
    images["model, dose 1"] = (add_noise(hu, view, 1.0, 1, 0)[1], (y, y))
    for kernel in ("standard", "sharp"):
        for dose in (1.0, 0.25):
            seen = scan(hu, view.spacing_mm, dose, 1, 0, kernel=kernel)[1]
            images[f"fan beam, {kernel}, dose {dose:g}"] = (seen, (y, y))
    images["real: CMB-CRC, LUNG, 2.5 mm"] = real_slice(data / "train/cmbcrc01068", 0.55)
    return images


def by_model(scene: Scene, data: Path) -> dict[str, Image]:
    """Three planes of a chest by the model beside a real slice."""
    view = View((1, 512, 512), (0.8, 400 / 512, 400 / 512), 1.1, (8.0, 0.0, 0.0))
    axial = add_noise(Imager(scene, view).slab(0, 1).hu, view, 1.5, 1, 0)[0]
    images = {
        "phantom, axial": (axial, view.spacing_mm[1:]),
        "real: LIDC-IDRI-0002": real_slice(data / "train/lidc0002", 0.34),
    }
    for name, shape, centre in (
        ("coronal", (256, 8, 320), (0.0, 5.0, 0.0)),
        ("sagittal", (256, 320, 8), (0.0, 0.0, -75.0)),
    ):
        view = make_view(shape, (1.25, 1.25, 1.25), 1.1, centre)
        slabs = [Imager(scene, view).slab(k, k + 16).hu for k in range(0, 256, 16)]
        hu = add_noise(np.concatenate(slabs), view, 1.5, 1, 0)
        images[f"phantom, {name}"] = (hu[::-1, 4] if name == "coronal" else hu[::-1, :, 4], (1.25, 1.25))
    return images


def figure(images: dict[str, Image], out: Path, *, detail: bool) -> None:
    """One column per image, one row per window. `detail` adds a row with an enlarged part of the right lung."""
    plt = pyplot()
    rows = [*PICTURE_WINDOWS_HU.items(), *([("detail", PICTURE_WINDOWS_HU["lung"])] if detail else [])]
    fig, axes = plt.subplots(len(rows), len(images), figsize=(3.6 * len(images), 3.6 * len(rows)), squeeze=False)
    for column, (title, (hu, (dy, dx))) in enumerate(images.items()):
        for row, (name, (low, high)) in enumerate(rows):
            shown = hu
            if name == "detail":
                side_y, side_x = int(DETAIL_MM / dy), int(DETAIL_MM / dx)
                top, left = hu.shape[0] // 2 - side_y // 2, int(hu.shape[1] * 0.5 - 1.15 * side_x)
                shown = hu[top : top + side_y, left : left + side_x]
            axis = axes[row, column]
            axis.imshow(shown, cmap="gray", vmin=low, vmax=high, aspect=dy / dx)
            axis.axis("off")
            if row == 0:
                axis.set_title(title, color="white", fontsize=11)
    fig.patch.set_facecolor("black")
    fig.tight_layout(pad=0.3)
    fig.savefig(out, dpi=72, facecolor="black", bbox_inches="tight", pad_inches=0.1)  # keeps the titles whole
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="make the pictures there, measure nothing")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"), help="real scans")
    parser.add_argument("--shape", default="512,512,512")
    parser.add_argument("--spacing")
    parser.add_argument("--out", type=Path, default=Path("results/phantom.json"))
    args = parser.parse_args()
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
        scene = make_scene("train", 1)
        figure(by_projections(scene, args.data), args.pictures / "phantom-projections.png", detail=True)
        figure(by_model(scene, args.data), args.pictures / "phantom.png", detail=False)
        return
    load = os.getloadavg()[0]
    result = cost(args.shape, args.spacing) | {"load_average_before": round(load, 2)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
