"""The learned operator comes nearer to the operator that it imitates, and a loss can use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from runs import CPU, records, train

from uhrct.models.surrogate import Surrogate
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.recipe import run_stages
from uhrct.training.run import Run

Tiny = Callable[..., TrainingConfig]
STRUCTURE = {"kind": "frangi", "contrast_hu": 200.0, "sigma_mm": [1.0, 1.6]}


def test_it_comes_nearer_to_its_operator_and_a_training_can_use_it(tiny: Tiny, tmp_path: Path) -> None:
    changes = {"stage": "surrogate", "model": {"structure": STRUCTURE}, "data": {"crop": 8}}
    errors = []
    for steps in (1, 60):
        config = tiny(**changes, steps=steps, optimizer={"learning_rate": 5e-3, "ema": 0.9})
        file = run_stages([config], Run(tmp_path / str(steps), device=CPU, quiet=True), Budget())
        record = json.loads((file.parent / "log.jsonl").read_text().splitlines()[-1])
        assert record["step"] == steps
        errors.append(record["validation"]["c"]["mean_error"])
    assert errors[1] < 0.7 * errors[0]
    operator = Surrogate.load(file).operator
    assert (operator.kind, operator.contrast_hu, operator.sigma_mm) == ("frangi", 200.0, (1.0, 1.6))
    mean = tiny(steps=1, loss={"structure_share": 0.15, "structure_operator": str(file)}, data={"validation": []})
    train(mean, out=tmp_path / "run")
    assert "structure_image" in records(tmp_path / "run")[0]
