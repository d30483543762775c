"""Write the table of scores into README.md, from the result files of `benchmarks/fidelity.py`.

    python benchmarks/readme_table.py

It goes between the marks `<!-- scores -->` and `<!-- end -->`.
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


def row(weights: str, case: str) -> str:
    """One line of the table: PSNR, its gain, and SMSE x 1000."""
    rows = [r for r in read_scores(Path(f"results/{weights}.jsonl"))[1] if r["case"] == case]
    rows = [r for r in rows if r["degradation"] == "scanner"]

    def mean(method: str, key: str) -> float:
        return float(np.mean([r[key] for r in rows if r["method"] == method]))

    base = mean(BASE, "psnr_wide")
    cells = [ROWS[weights], CASES[case], f"{base:.2f}"]
    cells += [f"{mean(m, 'psnr_wide'):.2f} (**{mean(m, 'psnr_wide') - base:+.2f}**)" for m in (DEFAULT, KEPT)]
    cells += [" / ".join(f"{1000 * mean(m, 'smse_frangi'):.3f}"[:6].lstrip("0") for m in (BASE, DEFAULT, KEPT))]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    head = ["scale", "patient", "interpolation, dB", "default, dB", "`--denoise 0`, dB", "SMSE, in this order"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(row(w, c) for w in ROWS for c in CASES)]
    readme = Path("README.md")
    table = "\n".join(lines)
    readme.write_text(MARKS.sub(lambda m: f"{m[1]}{table}\n{m[2]}", readme.read_text()))


if __name__ == "__main__":
    main()
