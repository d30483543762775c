"""The learned operator is trained alone, comes nearer to its operator, and is what the loss then uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from uhrct.core.errors import UhrctError
from uhrct.models.surrogate import Surrogate
from uhrct.training.config import TrainingConfig
from uhrct.training.surrogate import train_surrogate
from uhrct.training.trainer import Trainer

Tiny = Callable[..., TrainingConfig]
STRUCTURE = {"kind": "frangi", "contrast_hu": 200.0, "sigma_mm": [1.0, 1.6]}


def config(tiny: Tiny, **changes: Any) -> TrainingConfig:
    settings = {"stage": "surrogate", "model": {"structure": STRUCTURE}, "crop": 8, "learning_rate": 5e-3}
    return tiny(**{**settings, **changes})


def test_it_comes_nearer_to_its_operator(tiny: Tiny, tmp_path: Path) -> None:
    errors = []
    for steps in (1, 60):
        file = train_surrogate(config(tiny, steps=steps), tmp_path / str(steps), quiet=True)
        record = json.loads((file.parent / "log.jsonl").read_text())
        assert record["step"] == steps
        errors.append(record["validation"]["c"])
    assert errors[1] < 0.7 * errors[0]
    operator = Surrogate.load(file).operator
    assert (operator.kind, operator.contrast_hu, operator.sigma_mm) == ("frangi", 200.0, (1.0, 1.6))


def test_an_equal_seed_gives_equal_weights_and_a_training_can_use_them(tiny: Tiny, tmp_path: Path) -> None:
    files = [train_surrogate(config(tiny, steps=2), tmp_path / name, quiet=True) for name in "ab"]
    a, b = (load_file(f) for f in files)
    assert all(torch.equal(a[k], b[k]) for k in a)
    mean = tiny(steps=1, structure_share=0.15, structure_operator=str(files[0]))
    Trainer(mean, tmp_path / "run", quiet=True, device=torch.device("cpu")).run()
    assert "structure_image" in (tmp_path / "run" / "log.jsonl").read_text()


def test_budgets_and_refusals(tiny: Tiny, tmp_path: Path) -> None:
    for name, budget in (("a", {"max_minutes": 1e-9}), ("b", {"max_cpu_minutes": 1e-9})):
        train_surrogate(config(tiny, steps=10**6, validation=()), tmp_path / name, quiet=True, **budget)
    for budget in ({"max_minutes": 0.0}, {"max_cpu_minutes": -1.0}):
        with pytest.raises(UhrctError, match="give a number above 0"):
            train_surrogate(config(tiny), tmp_path / "new", quiet=True, **budget)
    with pytest.raises(UhrctError, match="not empty"):
        train_surrogate(config(tiny), tmp_path / "a", quiet=True)
    with pytest.raises(UhrctError, match="unknown or missing settings"):
        train_surrogate(config(tiny, model={"colour": "red"}), tmp_path / "new", quiet=True)
