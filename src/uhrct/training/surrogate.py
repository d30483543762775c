"""Training of the learned enhancement operator: L1 to the analytic one's map (eq. 8), on HR slices of the corpus."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.evaluation.structure_error import SMSE_WINDOW_HU
from uhrct.models.model import Model, ModelConfig
from uhrct.models.surrogate import Surrogate
from uhrct.physics.resampling import upsample_stack
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import BatchMaker, hr_spacing
from uhrct.training.data.patients import Patient, corpus_hash, load_patients


def train_surrogate(
    config: TrainingConfig,
    out: Path,
    *,
    max_minutes: float | None = None,
    max_cpu_minutes: float | None = None,
    device: torch.device | None = None,
    quiet: bool = False,
) -> Path:
    """Train a surrogate of the operator `config.model["structure"]` and save it.

    Half of what it sees are mixtures of a slice with its own interpolation: what networks in training make.

    Parameters
    ----------
    config : corpus, batch, crop, augmentation, steps, learning rate; `model.scale` is that of the interpolation
    out : folder of the run, which gets `surrogate.safetensors`, `train.json` and `log.jsonl`; must be new or empty
    max_minutes, max_cpu_minutes : `Budget`

    Returns
    -------
    Path of the weights, for ``structure_operator=``.

    Raises
    ------
    UhrctError
        If `out` is not empty, the budget is none, or the configuration is no good.
    """
    device = device or torch.device("cpu")
    budget = Budget(max_minutes, max_cpu_minutes)
    if out.exists() and any(out.iterdir()):
        raise UhrctError(f"{out}: not empty; choose another --out (a surrogate takes minutes: it does not resume)")
    try:
        model = Model(ModelConfig(**config.model))
    except TypeError as e:
        raise UhrctError(f"model: unknown or missing settings ({e})") from e
    torch.manual_seed(config.seed)
    surrogate = Surrogate(model.operator).to(device)
    patients = load_patients(config.corpus, config.corpus_weights, device)
    batches = BatchMaker(patients, config, model)
    out.mkdir(parents=True, exist_ok=True)
    (out / "train.json").write_text(json.dumps(config.as_dict(), indent=2) + "\n")
    optimizer = torch.optim.AdamW(surrogate.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    running, step, done = math.nan, 0, 0.0
    budget.look()
    while done < 1:
        for group in optimizer.param_groups:
            warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
            group["lr"] = config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        image, spacing = _images(batches, step, model)
        wanted = model.operator(image, spacing)
        loss = (surrogate(image, spacing) - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(surrogate.parameters(), config.gradient_clip)
        optimizer.step()
        value = float(loss.detach())
        running = value if step == 0 else 0.99 * running + 0.01 * value
        step += 1
        done = max(step / config.steps, budget.look())
    surrogate.save(out / "surrogate.safetensors")
    scores = {p.name: mean_error(surrogate, p, config.validation_slices) for p in _held_out(config, device)}
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "minutes": round(budget.minutes, 3),
        "cpu_minutes": round(budget.cpu_minutes, 3),
        "loss": round(running, 5),
        "validation": scores,
        "corpus_sha256": corpus_hash(patients)[:16],
    }
    (out / "log.jsonl").write_text(json.dumps(record) + "\n")
    if not quiet:
        print(f"{step} steps in {budget.minutes:.1f} min, mean absolute error {running:.4f}; {scores}", file=sys.stderr)
    return out / "surrogate.safetensors"


def _images(batches: BatchMaker, step: int, model: Model) -> tuple[Tensor, list[tuple[float, float]]]:
    """Slices (B, sz, y', x') in HU as losses see them, and their spacings."""
    batch = batches(step)
    image = batch.hr_hu
    half = len(image) // 2
    if half:
        lr = batch.lr_hu[:half]
        up = torch.cat([upsample_stack(stack, model.config.scale)[None] for stack in lr])
        g = torch.Generator().manual_seed(step)
        share = torch.rand(half, 1, 1, 1, generator=g).to(image.device)
        image = torch.cat([image[:half].lerp(up, share), image[half:]])
    return image.clamp(*SMSE_WINDOW_HU), hr_spacing(batch, model)


@torch.no_grad()
def mean_error(surrogate: Surrogate, patient: Patient, slices: int) -> float:
    """Mean absolute difference of both operators' maps over evenly spaced slices of a patient."""
    errors = []
    for k in evenly_spaced(len(patient.hu), slices):
        image = patient.hu[k].float().clamp(*SMSE_WINDOW_HU)
        wanted = surrogate.operator(image, patient.spacing_mm)
        errors.append(float((surrogate(image, patient.spacing_mm) - wanted).abs().mean()))
    return round(sum(errors) / len(errors), 5)


def _held_out(config: TrainingConfig, device: torch.device) -> list[Patient]:
    return load_patients(config.validation, {}, device) if config.validation else []
