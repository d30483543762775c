"""Trains stages in a test, and reads what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.recipe import run_stages
from uhrct.training.run import Run

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


def train(*stages: TrainingConfig, out: Path, resume: bool = False, **budget: float) -> Tensors:
    """Train the stages; the tensors of the model that they leave."""
    model = run_stages(list(stages), Run(out, resume=resume, device=CPU, quiet=True), Budget(**budget))
    return load_file(model / "model.safetensors")


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def network(tensors: Tensors, name: str) -> Tensors:
    """The tensors of one network of a model."""
    return {k: v for k, v in tensors.items() if k.startswith(name + ".")}
