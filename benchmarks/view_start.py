"""How long `uhrct view` of 300 slices takes: from the start of the command until all panes are drawn.

    python benchmarks/view_start.py --out results/view_start.json

The scan has 300 x 256 x 256 voxels, its result 300 x 512 x 512: slices of ../shared/ct/test/lidc0314 again and again,
as they are and averaged over 2 x 2 pixels, because reading depends on how well a file is packed. It is measured with
packed NIfTI, with plain NIfTI, and with DICOM folders, in a headless Chromium that draws without a graphics card and
so shows less voxels. "served" is when the address was printed, "usable" when every pane was drawn and checked. The
time of the processor is that of command and browser together: on a machine that also does other work, waiting for the
processor is no fault of the page.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Error, sync_playwright

from uhrct import io
from uhrct.core.files import write_json
from uhrct.core.volume import Volume

SLICES, SIDE = 300, 512
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
KINDS = {"packed NIfTI": ".nii.gz", "plain NIfTI": ".nii", "DICOM folder": ""}
#: a run that takes longer than this misses the goal
GOAL_S = 10.0


def make(folder: Path, corpus: Path) -> tuple[Volume, Volume]:
    """Scan and result with the voxels of a real scan."""
    real = io.read(corpus / "test/lidc0314")
    fine = real.hu[np.arange(SLICES) % len(real.hu)]
    z_mm, y_mm, x_mm = real.spacing_mm
    means = fine.reshape(SLICES, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4)).round().astype(np.int16)
    shift = (y_mm / 2, x_mm / 2)
    scan = Volume(means, (z_mm, 2 * y_mm, 2 * x_mm), (shift[1], shift[0], 0.0))
    return scan, Volume(np.ascontiguousarray(fine), real.spacing_mm, (0.0, 0.0, 0.0))


def launched(playwright: Any) -> Any:
    for path in (None, shutil.which("chromium"), shutil.which("google-chrome")):
        with suppress(Error):
            return playwright.chromium.launch(executable_path=path, args=FLAGS)
    sys.exit("no Chromium: neither that of playwright nor one of the system starts")


def processor_s() -> float:
    """Time of the processor of all processes below this one that live, and of those that have ended."""
    ticks: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            # parent; user, system, and those of children that have ended
            ticks[int(folder.name)] = int(words[1]), sum(map(int, words[11:15]))
    below, count = {os.getpid()}, 0
    while len(below) != count:
        count = len(below)
        below |= {pid for pid, (parent, _) in ticks.items() if parent in below}
    return sum(ticks[pid][1] for pid in below) / os.sysconf("SC_CLK_TCK")


def timed(browser: Any, scan: Path, result: Path) -> dict[str, Any]:
    """Seconds from the start of the command."""
    begin, used = time.monotonic(), processor_s()
    command = [sys.executable, "-m", "uhrct", "view", "--quiet", str(scan), str(result)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            served = time.monotonic() - begin
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            page.goto(address)
            page.wait_for_selector("body[data-ready=yes]", timeout=120_000)
            usable, used = time.monotonic() - begin, processor_s() - used
            assert page.inner_text("#messages") == "", page.inner_text("#messages")
            text = page.inner_text("#text")
            page.close()
        finally:
            process.send_signal(signal.SIGINT)
    return {"served_s": served, "usable_s": usable, "processor_s": used, "shown": text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/view_start.json"))
    parser.add_argument("--corpus", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--files", type=Path, help="folder that keeps scan and result for the next run")
    parser.add_argument("--prepare", action="store_true", help="only make the files")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        pairs = {kind: (folder / f"scan{suffix}", folder / f"fine{suffix}") for kind, suffix in KINDS.items()}
        if not all(path.exists() for pair in pairs.values() for path in pair):
            volumes = make(folder, args.corpus)
            for pair in pairs.values():
                for volume, path in zip(volumes, pair, strict=True):
                    io.write(volume, path)
        if args.prepare:
            return
        rows: dict[str, Any] = {}
        with sync_playwright() as playwright:
            browser = launched(playwright)
            for kind, (scan, result) in pairs.items():
                runs = [timed(browser, scan, result) for _ in range(args.runs)]
                keys = ("served_s", "usable_s", "processor_s")
                rows[kind] = {key: round(statistics.median(run[key] for run in runs), 1) for key in keys}
                rows[kind] |= {"slowest_s": round(max(run["usable_s"] for run in runs), 1), "shown": runs[0]["shown"]}
                print(kind, rows[kind], flush=True)
    found = {
        "scan_voxels": [SLICES, SIDE // 2, SIDE // 2],
        "result_voxels": [SLICES, SIDE, SIDE],
        "runs": args.runs,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "goal_s": GOAL_S,
        "median_seconds": rows,
    }
    write_json(args.out, found)


if __name__ == "__main__":
    main()
