"""The numbers behind the limits of `uhrct.upscaling.scan_warnings`, and how often each warning fires.

    python benchmarks/scan_warnings.py --out results/scan-warnings.json

Every series of train, calibration and validation is measured as it is. The ranges of train and calibration are those
from which the limits were read. Test series are not looked at.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from uhrct import io
from uhrct.core.progress import track
from uhrct.physics.scan_properties import ScanProperties
from uhrct.upscaling.scan_facts import scan_facts
from uhrct.upscaling.scan_warnings import limits, scan_warnings

SPLITS = ("train", "calibration", "validation")
SCALE = (1, 2, 2)


def measured(data: Path) -> dict[str, list[dict[str, Any]]]:
    """split -> for each series its patient, by a number, its facts and its warnings."""
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    folders = [f for split in SPLITS for f in sorted((data / split).iterdir()) if f.is_dir()]
    for folder in track(folders, "scan facts"):
        for series in io.inspect(folder):
            if series.problem:
                continue
            volume = io.read(folder, series=str(series.number))
            facts = scan_facts(volume)
            row = {"patient": str(volume.meta["dicom"][0].get("PatientID")), "facts": facts}
            row["warnings"] = scan_warnings(facts, ScanProperties(psf_known=False), SCALE)
            row["outside"] = sorted(n for n, limit in limits(SCALE).items() if n in facts and limit.warning(facts[n]))
            found[folder.parent.name].append(row)
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Range of each number, and how many patients have a warning for it."""
    ranges: dict[str, list[float]] = {}
    fired: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name, value in row["facts"].items():
            low, high = ranges.get(name, [value, value])
            ranges[name] = [min(low, value), max(high, value)]
        for name in row["outside"]:
            fired[name].add(row["patient"])
    return {
        "series": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "ranges": ranges,
        "patients_with_a_warning": {name: len(patients) for name, patients in sorted(fired.items())},
        "patients_with_any_warning": len({row["patient"] for row in rows if row["outside"]}),
        "warnings": sorted({line for row in rows for line in row["warnings"]}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    args = parser.parse_args()
    found = {split: summary(rows) for split, rows in measured(args.data).items()}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for split, s in found.items():
        fired = ", ".join(f"{name} {n}" for name, n in s["patients_with_a_warning"].items()) or "none"
        print(f"{split}: {s['patients']} patients, with a warning: {s['patients_with_any_warning']} ({fired})")


if __name__ == "__main__":
    main()
