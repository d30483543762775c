"""Measure the segmenters of `uhrct segment` on phantoms with exact masks, and their cost on a real chest.

The costs of the networks for vessels and of `uhrct detect` are measured too.

    python benchmarks/segmenters.py                       # -> results/segmenters.json
    python benchmarks/segmenters.py --work FOLDER         # keeps the phantoms there, and uses those that it finds
    python benchmarks/segmenters.py --only scores         # the costs in the file stay
    python benchmarks/segmenters.py --only costs          # the scores in the file stay

Scores need no idle machine. Seconds do: the file holds both wall-clock and processor seconds.
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
from scipy import ndimage

from uhrct import io
from uhrct.core.files import write_json
from uhrct.core.volume import Volume
from uhrct.phantom.make import phantom_folder
from uhrct.structure.vessels import skeleton
from uhrct.tasks.segment import TASKS, segment

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "results" / "segmenters.json"
PHANTOMS = (("train", 1), ("test", 2))
SPACING_MM = (1.0, 0.78, 0.78)
TREES = {"airways": ("airway",), "vessels": ("artery", "vein")}
#: Branches by radius of lumen or vessel, mm.
RADII_MM = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 20.0)
COST_SLICES = 300


def lengths_found(found: np.ndarray, volume: Volume, folder: Path, kinds: tuple[str, ...], inside: np.ndarray) -> dict:
    """Share of the centre line of the truth within one voxel of the mask, by radius."""
    truth = np.load(folder / "truth.npz")
    near = ndimage.binary_dilation(found, np.ones((3, 3, 3)))
    radius, length, hit = [], [], []
    for kind in kinds:
        place, parent = truth[f"{kind}_position_mm"], truth[f"{kind}_parent"]
        voxel = np.rint((place - np.array(volume.origin_mm)[::-1]) / volume.spacing_mm).astype(int)
        ok = ((voxel >= 0) & (voxel < volume.shape)).all(1) & (parent >= 0)
        ok[ok] = inside[tuple(voxel[ok].T)]
        length.append(np.linalg.norm(place - place[np.maximum(parent, 0)], axis=1)[ok])
        radius.append(truth[f"{kind}_radius_mm"][ok])
        hit.append(near[tuple(voxel[ok].T)])
    r, mm, found_there = np.concatenate(radius), np.concatenate(length), np.concatenate(hit)
    classes = {}
    for low, high in zip(RADII_MM, RADII_MM[1:], strict=False):
        which = (r >= low) & (r < high)
        if which.any():
            share = 100 * mm[which & found_there].sum() / mm[which].sum()
            classes[f"{low:g}-{high:g}"] = {
                "length_mm": round(float(mm[which].sum())),
                "found_percent": round(share, 1),
            }
    return {"found_percent": round(100 * float(mm[found_there].sum() / mm.sum()), 1), "by_radius_mm": classes}


def scores(task: str, volume: Volume, folder: Path) -> dict[str, Any]:
    """One task on one phantom."""
    truth = io.read(folder / f"{task}.nii.gz").hu > 0
    lungs = io.read(folder / "lungs.nii.gz").hu > 0
    found = segment(volume, task).labels > 0
    ml = float(np.prod(volume.spacing_mm)) / 1000
    if task == "vessels":
        truth &= lungs
    row: dict[str, Any] = {
        "dice": round(float(2 * (found & truth).sum() / (found.sum() + truth.sum())), 4),
        "truth_ml": round(float(truth.sum() * ml), 1),
        "found_ml": round(float(found.sum() * ml), 1),
    }
    if task == "lungs":
        return row
    near = ndimage.binary_dilation(truth, np.ones((3, 3, 3)), iterations=2 if task == "airways" else 1)
    line, truth_line = skeleton(found), skeleton(truth)
    precision, sensitivity = float(truth[line].mean()), float(found[truth_line].mean())
    row["cldice"] = round(2 * precision * sensitivity / (precision + sensitivity), 4)
    row["centre_line_in_truth_percent"] = round(100 * precision, 2)
    row["leak_ml"] = round(float((found & ~near).sum() * ml), 3)
    row["centre_line_false_percent"] = round(float(100 * (line & ~near).sum() / max(line.sum(), 1)), 2)
    inside = lungs if task == "vessels" else np.ones_like(lungs)
    return row | lengths_found(found, volume, folder, TREES[task], inside)


def cost(command: list[str]) -> dict[str, Any]:
    """Seconds and peak memory of a command in a process of its own, and what its report says about the result."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uhrct", *(word.format(folder=folder) for word in command)]
        command += ["--json", f"{folder}/run.json", "-q"]
        begin = time.perf_counter()
        child = os.posix_spawn(sys.executable, command, os.environ)
        _, status, used = os.wait4(child, 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))
        report = json.loads(Path(folder, "run.json").read_text())
        row = {
            "wall_s": round(time.perf_counter() - begin, 1),
            "cpu_s": round(used.ru_utime + used.ru_stime, 1),
            "peak_memory_mb": round(used.ru_maxrss / 1024),
        }
        if "nodules" in report:
            return row | {"findings": len(report["nodules"])}
        labels = [{k: v for k, v in label.items() if k != "code"} for label in report["labels"]]
        return row | {"segmentation_wall_s": report["seconds"], "labels": labels}


def costs(data: Path, temporary: Path) -> dict[str, Any]:
    """What each command needs for a chest of 300 slices."""
    scan = io.read(data / "test" / "lidc0314")
    repeated = np.concatenate([scan.hu, scan.hu[::-1]])[:COST_SLICES]  # mirrored at the head, so without a step
    chest = temporary / "chest.nrrd"
    io.write(Volume(repeated, scan.spacing_mm), chest)
    out = "{folder}/out.nii.gz"
    commands = {task: ["segment", str(chest), out, "--task", task] for task in TASKS}
    for name in ("vessels", "vessels-segresnet"):
        commands[f"vessels, weights {name}"] = [*commands["vessels"], "--weights", name]
    commands["nodules"] = ["detect", str(chest), "--most", "300"]
    rows: dict[str, Any] = {"scan": f"lidc0314, mirrored to {COST_SLICES} slices of 512 x 512"}
    for name, command in commands.items():
        rows[name] = cost(command)
        print(name, rows[name], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for phantoms")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "ct")
    parser.add_argument("--only", choices=["costs", "scores"], help="keep what else was measured before")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    result: dict[str, Any] = json.loads(RESULT.read_text()) if arguments.only else {}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if arguments.only != "scores":
            result |= {"machine": machine, "cost": costs(arguments.data, Path(temporary))}
            write_json(RESULT, result)
        if arguments.only == "costs":
            return
        result["phantoms"] = {"spacing_mm": SPACING_MM}
        for family, seed in PHANTOMS:
            folder = work / f"{family}-{seed}"
            if not folder.exists():
                phantom_folder(folder, seed=seed, family=family, spacing_mm=SPACING_MM)
            volume = io.read(folder / "ct.nii.gz")
            rows = result["phantoms"][f"{family}-{seed}"] = {task: scores(task, volume, folder) for task in TASKS}
            print(family, seed, rows, file=sys.stderr, flush=True)
            write_json(RESULT, result)


if __name__ == "__main__":
    main()
