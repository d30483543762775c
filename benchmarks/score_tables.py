"""Write the tables of scores into docs/scores.md and README.md, from the result files of `benchmarks/fidelity.py`.

    python benchmarks/score_tables.py

They go between the marks `<!-- scores -->` and `<!-- end -->`. The page gets all numbers, the README the gains.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from uhrct.evaluation.score_file import read_scores

#: weights -> how the table names them
ROWS = {
    "x2": "x2",
    "x2-fast": "x2, `--quality fast`",
    "x4": "x4",
    "x4-fast": "x4, `--quality fast`",
    "5x1x1": "5x1x1",
    "5x2x2": "5x2x2",
}
CASES = {"validation/rider0117": "rider0117", "test/lidc0314": "lidc0314"}
DEFAULT, KEPT, BASE = "ours, mean", "ours, mean, no noise removed", "interpolation"
MARKS = re.compile(r"(<!-- scores -->\n).*?(<!-- end -->)", re.DOTALL)


def values(weights: str, case: str) -> dict[str, dict[str, float]]:
    """method -> means over the slices of a patient: PSNR in dB, SMSE x 1000."""
    rows = [r for r in read_scores(Path(f"results/{weights}.jsonl"))[1] if r["case"] == case]
    rows = [r for r in rows if r["degradation"] == "scanner"]
    return {
        method: {
            "psnr": float(np.mean([r["psnr_wide"] for r in rows if r["method"] == method])),
            "smse": 1000 * float(np.mean([r["smse_frangi"] for r in rows if r["method"] == method])),
        }
        for method in (BASE, DEFAULT, KEPT)
    }


def full() -> str:
    """A row for each scale and patient: PSNR, its gain, and SMSE x 1000."""
    rows = [["scale", "patient", "interpolation, dB", "default, dB", "`--denoise 0`, dB", "SMSE, in this order"]]
    for weights, name in ROWS.items():
        for case, patient in CASES.items():
            v = values(weights, case)
            gains = [f"{v[m]['psnr']:.2f} (**{v[m]['psnr'] - v[BASE]['psnr']:+.2f}**)" for m in (DEFAULT, KEPT)]
            smse = " / ".join(f"{one['smse']:.3f}"[:6].lstrip("0") for one in v.values())
            rows.append([name, patient, f"{v[BASE]['psnr']:.2f}", *gains, smse])
    return table(rows)


def gains() -> str:
    """A row for each scale: gain in PSNR of the default and without removal of noise, by patient."""
    head = ["scale", *(f"{patient}: default, `--denoise 0`" for patient in CASES.values())]
    rows = [head]
    for weights in (w for w in ROWS if not w.endswith("-fast")):
        cells = []
        for case in CASES:
            v = values(weights, case)
            cells.append(", ".join(f"{v[m]['psnr'] - v[BASE]['psnr']:+.1f} dB" for m in (DEFAULT, KEPT)))
        rows.append([ROWS[weights], *cells])
    return table(rows)


def table(rows: list[list[str]]) -> str:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for page, text in ((Path("docs/scores.md"), full()), (Path("README.md"), gains())):
        page.write_text(MARKS.sub(lambda m, text=text: f"{m[1]}{text}\n{m[2]}", page.read_text()))


if __name__ == "__main__":
    main()
