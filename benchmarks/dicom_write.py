"""Writing a DICOM series against a plain file copy of the same bytes, in one run, as a ratio.

    python benchmarks/dicom_write.py [--slices 300] [--side 1024] [--repeats 3] [--out runs/bench-dicom-write.json]

Both go to the same disk, one after the other, several times; the best time of each counts, since everything else
that runs on the machine can only add. Target: at most 2.0 for `explicit`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file

from uhrct import formats
from uhrct.formats import Derivation, DicomOptions
from uhrct.formats.derivation import TRANSFER_SYNTAXES
from uhrct.volume import Grid, Volume


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source, fine = _series(options.slices, options.side)
    results = {}
    with tempfile.TemporaryDirectory(prefix="uhrct-bench-") as name:
        for syntax in TRANSFER_SYNTAXES:
            results[syntax] = _measure(source, fine, syntax, Path(name), options.repeats)
            print(syntax, json.dumps(results[syntax]))
        for suffix in (".nii.gz", ".nii"):
            begin = time.perf_counter()
            formats.write(Volume(fine, source.refined_grid((1, 2, 2)).spacing_mm), Path(name) / f"out{suffix}")
            seconds = time.perf_counter() - begin
            results[suffix] = {"write_s": round(seconds, 3), "MB_per_s": round(fine.nbytes / 1e6 / seconds)}
            print(suffix, json.dumps(results[suffix]))
    report = {
        "slices": options.slices,
        "side": options.side,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "machine": platform.processor() or platform.machine(),
        "results": results,
    }
    print(json.dumps(report))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def _series(slices: int, side: int) -> tuple[Volume, np.ndarray]:
    """A source with a real header for each slice, and voxels of four times as many pixels: real CT, repeated."""
    file = get_testdata_file("CT_small.dcm")
    real = formats.read(file).hu[0]
    half = side // 2
    tile = np.tile(real, (half // 128 + 1, half // 128 + 1))[:half, :half]
    headers = []
    for k in range(slices):
        header = dcmread(file, stop_before_pixels=True)
        header.SOPInstanceUID = f"1.2.3.{k}"
        headers.append(header)
    grid = Grid((slices, half, half), (1.0, 0.6, 0.6))
    source = Volume(np.broadcast_to(tile, grid.shape), grid.spacing_mm, meta={"dicom": headers})
    fine = np.stack([np.roll(tile, k, 0).repeat(2, 0).repeat(2, 1) for k in range(slices)])
    return source, fine


def _measure(source: Volume, fine: np.ndarray, syntax: str, folder: Path, repeats: int) -> dict[str, float]:
    writes, copies = [], []
    out, copy = folder / "out", folder / "copy"
    for _ in range(repeats):
        for old in (out, copy):
            shutil.rmtree(old, ignore_errors=True)
        begin = time.perf_counter()
        with formats.open_writer(
            out,
            source.refined_grid((1, 2, 2)),
            dtype=np.int16,
            source=source,
            derivation=Derivation("benchmark", "benchmark"),
            dicom=DicomOptions(syntax),
        ) as writer:
            for k in range(len(fine)):
                writer.write(fine[k : k + 1])
        writes.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        shutil.copytree(out, copy)
        copies.append(time.perf_counter() - begin)
    size = sum(file.stat().st_size for file in out.iterdir())
    return {
        "write_s": round(min(writes), 3),
        "copy_s": round(min(copies), 3),
        "ratio": round(min(writes) / min(copies), 2),
        "MB": round(size / 1e6),
        "voxel_MB_per_s": round(fine.nbytes / 1e6 / min(writes)),
    }


if __name__ == "__main__":
    main()
