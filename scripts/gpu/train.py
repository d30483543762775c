"""Train everything that is missing on a GPU within a time budget: step 2 of 2. Also runs on a CPU.

    python scripts/gpu/train.py --parts .gpu --minutes 12 --out runs/gpu

The networks come in the order of need, each continues the best weights so far and gets its share of the time. Every
run folder holds a checkpoint. The same command with the same folder goes on where it stopped, on a CPU too; a larger
`--minutes` continues all of them. Needs torch 2.11 or newer and Python 3.11 or newer; uhrct is taken from src/.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

#: (name of the run, recipe, stage, weights to start from, share of the time), in the order of need
JOBS = (
    ("x2", "x2", "mean", "x2", 3),
    ("x4", "x4", "mean", "x4", 3),
    ("5x1x1", "5x1x1", "mean", "5x1x1", 2),
    ("5x2x2", "5x2x2", "mean", "5x2x2", 2),
    ("x2-denoiser", "x2", "denoiser", "x2/model", 1),
    ("x4-denoiser", "x4", "denoiser", "x4/model", 1),
    ("5x1x1-denoiser", "5x1x1", "denoiser", "5x1x1/model", 1),
    ("5x2x2-denoiser", "5x2x2", "denoiser", "5x2x2/model", 1),
)


def restored(job: tuple[Path, Path]) -> None:
    """The inverse of `squeezed` in pack.py, for all files of a part."""
    import numpy as np

    part, work = job
    with tarfile.open(part) as tar:
        for entry in tar:
            path = work / entry.name.removesuffix(".xz")
            source = tar.extractfile(entry)
            if source is None or work.resolve() not in path.resolve().parents:
                raise SystemExit(f"{part}: entry {entry.name!r} is not one of pack.py")
            raw = lzma.decompress(source.read())
            if path.suffix == ".raw" or (path.suffix == ".npy" and path.name.count(".") == 1):
                head = 128 if path.suffix == ".npy" else 0
                folded = np.frombuffer(raw[head:], np.uint8).reshape(2, -1).T.copy().view("<u2").ravel()
                step = ((folded >> 1) ^ -(folded & 1).astype(np.int16)).astype(np.int16)
                raw = raw[:head] + np.cumsum(step, dtype=np.int16).astype("<i2").tobytes()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, default=Path(".gpu"), help="folder with the parts of pack.py")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--minutes", type=float, required=True, help="for all jobs together")
    parser.add_argument("--jobs", default=",".join(j[0] for j in JOBS), help="names, with commas")
    parser.add_argument("overrides", nargs="*", help="key=value, for every job")
    args = parser.parse_args()
    import torch

    from uhrct.training.recipe import train

    work = args.parts / "unpacked"
    with ThreadPoolExecutor() as pool:
        list(pool.map(restored, [(p, work) for p in sorted(args.parts.glob("part-*.tar"))]))
    chosen = [j for j in JOBS if j[0] in args.jobs.split(",")]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    total = sum(job[-1] for job in chosen)
    for name, recipe, stage, start, share in chosen:
        init = args.out / start if "/" in start else start
        settings = [f"stages=[{stage}]", f"init={init}", "model.estimator=0", "data.validation=[]"]
        settings += [f"data.corpus={work / 'store'}", f"data.clean={work / 'clean'}", *args.overrides]
        minutes = args.minutes * share / total
        train(f"configs/{recipe}.yaml", settings, out=args.out / name, max_minutes=minutes, resume=True, device=device)


if __name__ == "__main__":
    main()
