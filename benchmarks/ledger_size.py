"""The ledger of `uhrct batch` with many series: how fast it takes a list, and gives and settles series.

    python benchmarks/ledger_size.py --out results/ledger_size.json

No series is read or super-resolved; each gets a run report of the usual length. The ledger lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from uhrct.batch.ledger import DONE, LEDGER, Ledger
from uhrct.batch.series import Series
from uhrct.core.files import write_atomic

REPORT = {"text": "x" * 3000}
MOST_CLAIMS = 2000


def measure(count: int) -> dict[str, Any]:
    """Seconds and sizes for a ledger of `count` series."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        series = [
            Series(f"p{k // 10:06d}/s{k:07d}", Path(f"/scans/p{k // 10:06d}/s{k:07d}.nii.gz")) for k in range(count)
        ]
        ledger = Ledger(out)
        begin = time.perf_counter()
        ledger.enrol(series, "w", None)
        enrol_s = time.perf_counter() - begin
        found: dict[str, Any] = {"series": count, "enrol_s": round(enrol_s, 1)}
        claims = min(MOST_CLAIMS, count // 4)
        for name, start in (("first", 0), ("middle", count // 2)):
            begin = time.perf_counter()
            for _ in range(claims):
                claim = ledger.claim(start)
                assert claim is not None
                ledger.settle(claim.series.name, DONE, fingerprint="f" * 64, report=REPORT)
            found[f"claimed_and_settled_per_s_{name}"] = round(claims / (time.perf_counter() - begin))
        begin = time.perf_counter()
        ledger.counts()
        found["count_s"] = round(time.perf_counter() - begin, 3)
        found["ledger_bytes_per_series_without_report"] = round((out / LEDGER).stat().st_size / count)
        ledger.close()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ledger_size.json"))
    parser.add_argument("--series", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    args = parser.parse_args()
    results = [measure(count) for count in args.series]
    print(json.dumps(results, indent=2))
    write_atomic(args.out, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
