"""Pack the training corpus for a GPU machine that is reached through small transfers: step 1 of 2.

    python scripts/gpu/pack.py --corpus ../shared/ct/train --out .gpu --part-mib 30

The folder gets parts of limited size. Copy them to the other machine, in any order and in as many transfers as needed,
then start `scripts/gpu/train.py` there. Long series of thick slices are shortened to their middle.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from uhrct.core.progress import track
from uhrct.training.data.packing import pack
from uhrct.training.data.patients import load_patients, with_clean

#: slices of a series that are kept; thin series, which through-plane training needs, are kept whole
KEPT, THIN_MM = 40, 1.5


def shortened(corpus: Path, folder: Path) -> None:
    """Links to the DICOM files of every series, of long thick ones only to the middle."""
    import pydicom

    for series in sorted(f for f in corpus.iterdir() if f.is_dir()):
        files = sorted(series.glob("*.dcm"))
        positions = [float(pydicom.dcmread(f, stop_before_pixels=True).ImagePositionPatient[2]) for f in files[:2]]
        if len(files) > KEPT and abs(positions[1] - positions[0]) > THIN_MM and "single" not in series.name:
            first = (len(files) - KEPT) // 2
            files = files[first : first + KEPT]
        (folder / series.name).mkdir(parents=True)
        for file in files:
            os.symlink(file.resolve(), folder / series.name / file.name)


def squeezed(path: Path) -> bytes:
    """The file, compressed. Of 16-bit images first the difference to the left neighbour is taken."""
    raw = path.read_bytes()
    if path.suffix == ".raw" or (path.suffix == ".npy" and path.name.count(".") == 1):
        head = 128 if path.suffix == ".npy" else 0
        words = np.frombuffer(raw[head:], "<i2")
        step = np.diff(words, prepend=np.int16(0)).astype(np.int16)
        folded = (step << 1) ^ (step >> 15)  # small numbers of both signs become small numbers
        raw = raw[:head] + folded.view(np.uint8).reshape(-1, 2).T.tobytes()
    return lzma.compress(raw, preset=2)


def parts(files: list[Path], root: Path, limit: int) -> Iterator[list[tuple[str, bytes]]]:
    """Compressed files, as many in each part as fit."""
    group: list[tuple[str, bytes]] = []
    size = 0
    with ThreadPoolExecutor() as pool:
        for path, data in zip(files, track(pool.map(squeezed, files), "compress", total=len(files)), strict=True):
            if group and size + len(data) > limit:
                yield group
                group, size = [], 0
            group.append((path.relative_to(root).as_posix(), data))
            size += len(data)
    yield group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/ct/train"))
    parser.add_argument("--out", type=Path, default=Path(".gpu"))
    parser.add_argument("--part-mib", type=float, default=30)
    args = parser.parse_args()
    work = args.out / "work"
    shutil.rmtree(work / "source", ignore_errors=True)
    shortened(args.corpus, work / "source")
    report = pack([work / "source"], work / "store")
    for line in report.problems:
        raise SystemExit(line)
    with_clean(load_patients((str(work / "store"),), {}, torch.device("cpu")), work / "clean")
    files = sorted(f for name in ("store", "clean") for f in (work / name).rglob("*") if f.is_file())
    for k, group in enumerate(parts(files, work, int(args.part_mib * 2**20))):
        with tarfile.open(args.out / f"part-{k:02d}.tar", "w") as tar:
            for name, data in group:
                entry = tarfile.TarInfo(f"{name}.xz")
                entry.size = len(data)
                tar.addfile(entry, BytesIO(data))
    total = sum(p.stat().st_size for p in args.out.glob("part-*.tar"))
    print(f"{args.out}: {k + 1} parts, {total / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
