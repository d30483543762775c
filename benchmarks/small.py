"""Measure a small benchmark with shipped weights and compare it with the committed numbers.

    make benchmark-small            # or: python benchmarks/small.py
    make benchmark-small-refresh    # or: python benchmarks/small.py --refresh

The first prints each number that differs by more than its tolerance, and then ends with status 1. The second replaces
the committed numbers; use it after weights, metrics or the configuration changed. Both measure everything.
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
from uhrct.core.files import write_atomic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/benchmark-small.yaml"))
    parser.add_argument("--refresh", action="store_true", help="replace the committed numbers")
    args = parser.parse_args()
    try:
        config = load_benchmark(args.config)
        with tempfile.TemporaryDirectory() as folder:
            measured = Benchmark(replace(config, out=Path(folder) / config.out.name)).run()
            if args.refresh:
                config.out.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(config.out, measured.path.read_bytes())
                print(f"{len(measured.rows)} rows in {config.out}")
                return
        lines = disagreements(read_results(config.out), measured)
    except UhrctError as e:
        sys.exit(f"error: {e}")
    if lines:
        print("\n".join(lines))
        sys.exit(
            f"{config.out} disagrees in {len(lines)} places; if you meant the change, run make benchmark-small-refresh "
            "and commit the file"
        )
    print(f"{len(measured.rows)} rows agree with {config.out}")


if __name__ == "__main__":
    main()
