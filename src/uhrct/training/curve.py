"""A picture of a training: losses and validation scores over minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: fields of a log record that are no losses
NO_LOSSES = {"time", "stage", "step", "minutes", "cpu_minutes", "lr", "corpus_sha256", "pieces", "series", "coverage"}


def draw_curve(run: Path) -> Path:
    """Draw `curve.png` from a run's `log.jsonl`; needs matplotlib (``pip install uhrct[train]``)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = _since_start([json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    gains: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for r in records:
        for name in r.keys() - NO_LOSSES - {"validation"}:
            if not name.endswith("gradient_norm"):
                curves.setdefault((r["stage"], name), []).append((r["minutes"], r[name]))
        for series, scores in r.get("validation", {}).items():
            if "gain_db" in scores:
                gains.setdefault((r["stage"], series), []).append((r["minutes"], scores["gain_db"]))
    for axis, lines, mark in ((left, curves, "-"), (right, gains, "o-")):
        for (stage, name), points in sorted(lines.items()):
            axis.plot(*zip(*points, strict=True), mark, label=f"{stage}: {name}")
        axis.grid(alpha=0.3)
        if lines:
            axis.legend(fontsize="small")
    # the loss of a likelihood may be negative everywhere
    positive = any(value > 0 for points in curves.values() for _, value in points)
    left.set(xlabel="minutes", ylabel="training loss (running mean)", yscale="log" if positive else "linear")
    right.set(xlabel="minutes", ylabel="validation PSNR over interpolation (dB)")
    figure.savefig(run / "curve.png", dpi=110)
    plt.close(figure)
    return run / "curve.png"


def _since_start(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records with minutes since the start of the run; in the log they count from the start of the stage."""
    length: dict[str, float] = {}
    for r in records:
        length[r["stage"]] = max(r["minutes"], length.get(r["stage"], 0.0))
    begin, passed = {}, 0.0
    for stage, minutes in length.items():
        begin[stage], passed = passed, passed + minutes
    return [{**r, "minutes": r["minutes"] + begin[r["stage"]]} for r in records]
