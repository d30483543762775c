"""Time to write a DICOM series, relative to a plain copy of the same files.

    python benchmarks/dicom_write.py [--slices 300] [--side 1024] [--repeats 3] [--out runs/bench-dicom-write.json]

Both go to the same disk by turns, several times. The best time of each counts, because other work on the machine can
only add time. Target: at most 2.0 for `explicit`. On a busy machine use the processor time (`cpu_ratio`, all threads
together). Compression is measured once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.core.files import write_atomic
from uhrct.core.volume import Grid, Volume
from uhrct.io import Derivation, DicomOptions
from uhrct.io.derivation import TRANSFER_SYNTAXES


def main() -> None:
    """Measure, print, and write the report."""
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
            repeats = options.repeats if syntax == "explicit" else 1
            results[syntax] = _measure(source, fine, syntax, Path(name), repeats)
            print(syntax, json.dumps(results[syntax]))
        for suffix in (".nii.gz", ".nii"):
            begin = time.perf_counter()
            io.write(Volume(fine, source.refined_grid((1, 2, 2)).spacing_mm), Path(name) / f"out{suffix}")
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
        write_atomic(options.out, json.dumps(report, indent=1) + "\n")


def _series(slices: int, side: int) -> tuple[Volume, np.ndarray]:
    """(source with a real header for each slice, voxels with four times as many pixels), made of repeated real CT."""
    file = get_testdata_file("CT_small.dcm")
    real = io.read(file).hu[0]
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
    writes: list[tuple[float, float]] = []
    copies: list[tuple[float, float]] = []
    out, copy = folder / "out", folder / "copy"
    for _ in range(repeats):
        for old in (out, copy):
            shutil.rmtree(old, ignore_errors=True)
        with _timed(writes):
            _write(source, fine, syntax, out)
        with _timed(copies):
            shutil.copytree(out, copy)
    size = sum(file.stat().st_size for file in out.iterdir())
    write, write_cpu = (min(column) for column in zip(*writes, strict=True))
    copied, copied_cpu = (min(column) for column in zip(*copies, strict=True))
    return {
        "write_s": round(write, 3),
        "copy_s": round(copied, 3),
        "ratio": round(write / copied, 2),
        "cpu_ratio": round(write_cpu / copied_cpu, 2),
        "MB": round(size / 1e6),
        "voxel_MB_per_s": round(fine.nbytes / 1e6 / write),
    }


@contextlib.contextmanager
def _timed(into: list[tuple[float, float]]) -> Iterator[None]:
    """Append (wall-clock seconds, processor seconds) of the block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.append((time.perf_counter() - wall, time.process_time() - cpu))


def _write(source: Volume, fine: np.ndarray, syntax: str, out: Path) -> None:
    with io.open_writer(
        out,
        source.refined_grid((1, 2, 2)),
        dtype=np.int16,
        source=source,
        derivation=Derivation("benchmark", "benchmark"),
        dicom=DicomOptions(syntax),
    ) as writer:
        for k in range(len(fine)):
            writer.write(fine[k : k + 1])


if __name__ == "__main__":
    main()
