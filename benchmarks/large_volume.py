"""A volume larger than memory: a part of 2048 x 2048 x 2048 voxels in OME-Zarr, with its peak memory.

    python benchmarks/large_volume.py --out results/large_volume.json

The volume is synthetic: one slice of ../shared/ct, enlarged, in a few slices of the volume; the others are air and take
no room on disk. A new process then super-resolves slices from its middle at x2 with --quality fast.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from uhrct import io
from uhrct.core.files import write_atomic
from uhrct.core.volume import Volume
from uhrct.upscaling.slabs import compute_part
from uhrct.upscaling.upscaler import Upscaler

SIDE, SPACING_MM = 2048, 0.15
#: slices with a body
BODY = slice(1016, 1032)


def make(path: Path, corpus: Path) -> None:
    """The input: air with a body in some slices."""
    scan = io.read(corpus / "test/lidc0314")
    plane = np.kron(scan.hu[130], np.ones((SIDE // scan.shape[1], SIDE // scan.shape[2]), np.int16))
    noise = np.random.default_rng(0).normal(0, 10, plane.shape)
    plane = np.rint(plane + noise).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:  # our own metadata, of a small volume
        small = Path(folder) / "small.zarr"
        io.write(Volume(np.zeros((1, 8, 8), np.int16), (SPACING_MM,) * 3), small)
        facts = dict(zarr.open_group(str(small), mode="r").attrs)
    group = zarr.open_group(str(path), mode="w-")
    group.attrs.update(facts)
    array = group.create_array("0", shape=(SIDE,) * 3, chunks=(4, 512, 512), dtype="int16", fill_value=-1000)
    for z in range(BODY.start, BODY.stop, 4):
        array[z : z + 4] = np.stack([plane] * 4)


def compute(path: Path, slices: int) -> dict[str, object]:
    """Runs in a process of its own: the slices, their time and the peak memory."""
    volume = io.read(path, on_disk=True)
    upscaler = Upscaler(scale=2, quality="fast", psf_fwhm_mm=0.6 * SPACING_MM, noise_hu=10.0)
    begin = time.perf_counter()
    plan = upscaler.plan(volume)
    first = (BODY.start + BODY.stop) // 2
    voxels = sum(slab.hu.size for slab in compute_part(plan, volume, first, first + slices))
    return {
        "input_voxels": list(volume.shape),
        "output_voxels": list(plan.grid.shape),
        "slices_computed": slices,
        "output_voxels_computed": voxels,
        "seconds": round(time.perf_counter() - begin, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/large_volume.json"))
    parser.add_argument("--corpus", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--compute", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compute:
        print(json.dumps(compute(args.compute, args.slices)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "large.zarr", args.corpus)
        command = [sys.executable, __file__, "--compute", f"{folder}/large.zarr", "--slices", str(args.slices)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)
    write_atomic(args.out, json.dumps(json.loads(done.stdout.splitlines()[-1]), indent=2) + "\n")


if __name__ == "__main__":
    main()
