"""Speed against an earlier state of this repository, side by side in one run -> results/against_release.json.

    python benchmarks/against_release.py                    # against the last commit of release 0.1.0 (2026-11-23)

Neighbouring slices of test/lidc0314 with 512 x 512 pixels become 1024 x 1024. Each program runs in processes of its
own, which take turns; the time is that of the whole call for the slices, after a first slice to warm up. Run it on an
idle machine. The earlier state is taken from git into a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from uhrct import io
from uhrct.core.files import write_atomic

#: release 0.1.0
OLD = "9a6599513860786e1cc7b6440cd9059f1115a67a"
#: runs in each program; its own `uhrct` is imported
CHILD = """
import json, resource, sys, time
import numpy as np
import uhrct
from uhrct import Volume
try:  # as the command line does
    from uhrct.core.memory import keep_freed_memory
    keep_freed_memory()
except ImportError:
    pass
stored = np.load(sys.argv[1])
options = json.loads(sys.argv[2])
def scan(hu):
    return Volume(hu, tuple(map(float, stored["spacing_mm"])))
uhrct.upscale(scan(stored["hu"][:1]), scale=2, **options)
begin = time.perf_counter()
uhrct.upscale(scan(stored["hu"]), scale=2, **options)
print(json.dumps([time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))
"""


def run(source: Path, scan: Path, options: dict[str, object]) -> tuple[float, float]:
    """(seconds, peak memory in GB) of the package below `source`."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(scan), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=source)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/against_release.json"))
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--old", default=OLD, help="commit of the earlier state")
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    here = Path(__file__).resolve().parents[1] / "src"
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), args.old], check=True, capture_output=True)
        try:
            volume = io.read(args.data / "test/lidc0314")
            first = (len(volume.hu) - args.slices) // 2
            scan = Path(folder) / "scan.npz"
            np.savez(scan, hu=volume.hu[first : first + args.slices], spacing_mm=volume.spacing_mm)
            programs: dict[str, tuple[Path, dict[str, object]]] = {
                "release": (old / "src", {}),
                "now": (here, {}),
                "now, air computed": (here, {"skip_air": False}),
                "now, fast": (here, {"quality": "fast"}),
            }
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
            for _ in range(args.turns):
                for name, (source, options) in programs.items():
                    taken[name].append(run(source, scan, options))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], check=True, capture_output=True)
    seconds = {name: statistics.median(s for s, _ in runs) for name, runs in taken.items()}
    result = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "old_commit": args.old,
        "slices": args.slices,
        "seconds_per_slice": {name: round(s / args.slices, 3) for name, s in seconds.items()},
        "times_as_fast_as_release": {name: round(seconds["release"] / s, 2) for name, s in seconds.items()},
        "peak_memory_gb": {name: round(max(m for _, m in runs), 2) for name, runs in taken.items()},
    }
    print(json.dumps(result, indent=2))
    write_atomic(args.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
