"""`uhrct batch` under attack: kills, a full disk, two runs at once. Nothing may be lost, and little done twice.

    python benchmarks/batch_faults.py --out results/batch_faults.json

It makes 200 small studies from ../shared/ct (NIfTI and DICOM) and super-resolves them with two workers. Every 20 s a
worker is killed, three times the whole run, once the disk is full, and at the end two runs share the ledger. Then
ledger and disk are compared, and some results with those of one undisturbed process. The full disk needs root, because
it is a small file system in memory; without root that part is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from uhrct import io
from uhrct.batch.ledger import DONE, RUNNING, Ledger
from uhrct.core.files import write_atomic
from uhrct.core.volume import Volume
from uhrct.upscaling.upscaler import Upscaler

SCANS = ("validation/rider0117", "validation/tcga_ay_4070", "validation/lungdx_a0001_B", "test/lidc0314")
#: slices, rows and columns of a study
SHAPE = (3, 72, 72)
#: size of the file system for the results; it is filled once
DISK_MIB = 64


def make_cohort(folder: Path, count: int, corpus: Path) -> None:
    """Small cut-outs of real scans; every fourth as DICOM."""
    rng = np.random.default_rng(0)
    scans = [io.read(corpus / name) for name in SCANS]
    for k in range(count):
        scan = scans[k % len(scans)]
        z, y, x = (int(rng.integers(n // 4, 3 * n // 4 - s)) for n, s in zip(scan.shape, SHAPE, strict=True))
        hu = np.ascontiguousarray(scan.hu[z : z + SHAPE[0], y : y + SHAPE[1], x : x + SHAPE[2]])
        cut = Volume(hu, scan.spacing_mm)
        place = folder / f"patient{k // 5:02d}" / (f"study{k:03d}" if k % 4 == 0 else f"study{k:03d}.nii.gz")
        place.parent.mkdir(parents=True, exist_ok=True)
        io.write(cut, place)


class Watcher(threading.Thread):
    """Notes every result that appears, and every one that is replaced."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self.out, self.versions, self.over = out, {}, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            for path in self.out.glob("patient*/study*"):
                try:
                    first = next(path.iterdir()) if path.is_dir() else path
                    version = first.stat()
                except (OSError, StopIteration):
                    continue
                self.versions.setdefault(str(path.relative_to(self.out)), set()).add(version.st_ino)

    @property
    def replaced(self) -> int:
        """How many results were written more than once."""
        return sum(len(v) > 1 for v in self.versions.values())


def start(scans: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "uhrct", "batch", str(scans), str(out), "--workers", "2", "-q"]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def running(out: Path) -> list[int]:
    """Processes that hold a series."""
    ledger = Ledger(out)
    try:
        return [int(r["worker"].rsplit(":", 2)[1]) for r in ledger.rows() if r["state"] == RUNNING]
    finally:
        ledger.close()


def done(out: Path) -> int:
    ledger = Ledger(out)
    try:
        return ledger.counts()[DONE]
    finally:
        ledger.close()


def attack(scans: Path, out: Path, count: int, small_disk: bool, every_s: float) -> dict[str, Any]:
    """Run until everything is done, whatever happens on the way."""
    rng = random.Random(0)
    told: dict[str, Any] = {"workers_killed": 0, "runs_killed": 0, "disk_full": 0, "runs_at_once": 0, "refusals": []}
    ends = [count * share // 10 for share in (2, 4, 7)]  # the whole run is killed when so many are done
    ballast = out / "ballast"
    fill_at = count // 2 if small_disk else None
    runs = [start(scans, out)]
    next_kill = time.monotonic() + every_s
    while True:
        time.sleep(0.3)
        settled = done(out)
        if fill_at is not None and settled >= fill_at:
            fill_at = None
            with ballast.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            told["disk_full"] += 1
        if ends and settled >= ends[0]:
            ends.pop(0)
            for run in runs:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
            told["runs_killed"] += 1
            runs = [start(scans, out)]
        if settled >= 8 * count // 10 and len(runs) == 1 and not told["runs_at_once"]:
            runs.append(start(scans, out))
            told["runs_at_once"] = 2
        if time.monotonic() > next_kill and (workers := running(out)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                told["workers_killed"] += 1
            next_kill = time.monotonic() + every_s
        for run in [r for r in runs if r.poll() is not None]:
            runs.remove(run)
            assert run.stderr is not None
            if run.returncode:
                told["refusals"].append(run.stderr.read().decode().strip().splitlines()[-1].replace(str(out), "OUT"))
        if not runs:
            if done(out) == count:
                return told
            ballast.unlink(missing_ok=True)
            runs = [start(scans, out)]


def judge(scans: Path, out: Path, count: int, watcher: Watcher) -> dict[str, Any]:
    """Whether ledger and disk agree, and results are those of an undisturbed process."""
    ledger = Ledger(out)
    rows = ledger.rows()
    expected = {row["output"] for row in rows}
    found = {str(p.relative_to(out)) for p in out.glob("patient*/*")}
    wrong = 0
    upscaler = Upscaler(scale=2)
    for row in rows[:: max(count // 20, 1)]:
        volume = io.read(row["path"], series=row["uid"] or None)
        wrong += not np.array_equal(io.read(out / row["output"]).hu, upscaler(volume).volume.hu)
    unreadable = 0
    for row in rows:
        try:
            io.read(out / row["output"])
        except Exception:
            unreadable += 1
    return {
        "studies": len(rows),
        "done": sum(row["state"] == DONE for row in rows),
        "results_missing": len(expected - found),
        "files_that_are_no_result": len(found - expected),
        "results_unreadable": unreadable,
        "results_compared": len(rows[:: max(count // 20, 1)]),
        "results_with_other_voxels": wrong,
        "results_written_twice": watcher.replaced,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/batch_faults.json"))
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills of a worker")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scans, out = Path(folder) / "in", Path(folder) / "out"
        out.mkdir()
        make_cohort(scans, args.studies, args.corpus)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(out)]
        small_disk = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
        try:
            watcher = Watcher(out)
            watcher.start()
            begin = time.monotonic()
            told = attack(scans, out, args.studies, small_disk, args.every)
            told["seconds"] = round(time.monotonic() - begin, 1)
            watcher.over.set()
            found = told | judge(scans, out, args.studies, watcher)
        finally:
            if small_disk:
                subprocess.run(["umount", "--lazy", str(out)], check=False)
    print(json.dumps(found, indent=2))
    write_atomic(args.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
