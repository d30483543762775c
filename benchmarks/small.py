"""A cut-down benchmark with shipped weights, measured again and held against the committed numbers.

    make benchmark-small            # or: python benchmarks/small.py
    make benchmark-small-refresh    # or: python benchmarks/small.py --refresh

The first ends with 1 and a line for each number that differs by more than its tolerance. The second measures and puts
the numbers in the place of the committed ones: after weights, metrics or the configuration changed. Both measure all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from uhrct.benchmark.check import disagreements
from uhrct.benchmark.config import load_benchmark
from uhrct.benchmark.results import read_results
from uhrct.benchmark.runner import Benchmark
from uhrct.core.errors import UhrctError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/benchmark-small.yaml"))
    parser.add_argument("--refresh", action="store_true", help="make these the committed numbers")
    args = parser.parse_args()
    try:
        config = load_benchmark(args.config)
        with tempfile.TemporaryDirectory() as folder:
            measured = Benchmark(replace(config, out=Path(folder) / config.out.name)).run()
            if args.refresh:
                config.out.parent.mkdir(parents=True, exist_ok=True)
                unfinished = config.out.with_suffix(".tmp")
                unfinished.write_bytes(measured.path.read_bytes())
                unfinished.replace(config.out)
                print(f"{len(measured.rows)} rows in {config.out}")
                return
        lines = disagreements(read_results(config.out), measured)
    except UhrctError as e:
        sys.exit(f"error: {e}")
    if lines:
        print("\n".join(lines))
        sys.exit(
            f"{config.out} disagrees in {len(lines)} places; if that is meant, run make benchmark-small-refresh "
            "and commit what it gives"
        )
    print(f"{len(measured.rows)} rows agree with {config.out}")


if __name__ == "__main__":
    main()
