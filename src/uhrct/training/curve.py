"""A picture of a training: losses and validation over minutes."""

from __future__ import annotations

import json
from pathlib import Path


def draw_curve(run: Path) -> Path:
    """`curve.png` from a run's `log.jsonl`; needs matplotlib (``pip install uhrct[train]``)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [r for r in records if "validation" not in r]
    checks = [r for r in records if "validation" in r]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    no_losses = {"time", "step", "minutes", "cpu_minutes", "lr", "corpus_sha256"}
    for name in sorted(n for n in {n for r in losses for n in r} - no_losses if not n.endswith("gradient_norm")):
        points = [(r["minutes"], r[name]) for r in losses if name in r]
        if points:
            left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel="minutes", ylabel="training loss (running mean)", yscale="log")
    if left.lines:
        left.legend()
    for patient in checks[-1]["validation"] if checks else ():
        # a resumed run may have been given other patients
        points = [(r["minutes"], r["validation"][patient]["gain_db"]) for r in checks if patient in r["validation"]]
        right.plot(*zip(*points, strict=True), "o-", label=patient)
        right.legend()
    right.set(xlabel="minutes", ylabel="validation PSNR over interpolation (dB)")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(run / "curve.png", dpi=110)
    plt.close(figure)
    return run / "curve.png"
