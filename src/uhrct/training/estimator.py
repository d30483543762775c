"""Fitting the network that estimates what scan it is: statistics are gathered first, then the perceptron is trained."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import degraded_stack, evenly_spaced
from uhrct.models.model import Model
from uhrct.physics.scan_properties import ESTIMATED, ScanProperties
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Patient, corpus_hash, load_patients
from uhrct.training.data.scanners import acquire, draw_properties
from uhrct.training.trainer import build_model

#: a perceptron's steps take a millisecond; the batches, which it sees many times over, take the minutes
FIT_STEPS, FIT_BATCH = 4000, 256
#: of standardised statistics: patients differ by more than the few that train
JITTER = 0.05
_NOISE, _CORRELATION = ESTIMATED.index("noise_hu"), ESTIMATED.index("noise_fwhm")


def train_estimator(
    config: TrainingConfig,
    out: Path,
    *,
    max_minutes: float | None = None,
    max_cpu_minutes: float | None = None,
    device: torch.device | None = None,
    quiet: bool = False,
) -> Path:
    """Fit the estimator of the model `config.init` to scans drawn from the corpus; the rest of it stays as it is.

    Parameters
    ----------
    config : corpus, crop, share of degraded items; `steps` batches are gathered at most
    out : folder of the run, which gets `model/`, `train.json` and `log.jsonl`; must be new or empty
    max_minutes, max_cpu_minutes : gather for so long (`Budget`)

    Returns
    -------
    Path of the model folder.
    """
    device = device or torch.device("cpu")
    budget = Budget(max_minutes, max_cpu_minutes)
    if out.exists() and any(out.iterdir()):
        raise UhrctError(f"{out}: not empty; choose another --out (an estimator takes minutes: it does not resume)")
    model = build_model(config)
    if config.init is None or model.estimator is None:
        raise UhrctError("stage estimator: give init=MODEL, whose estimator is to be trained, and model.estimator=64")
    model.to(device).eval().requires_grad_(False)
    out.mkdir(parents=True, exist_ok=True)
    (out / "train.json").write_text(json.dumps(config.as_dict(), indent=2) + "\n")
    patients = load_patients(config.corpus, config.corpus_weights, device)
    batches = BatchMaker(patients, config, model)
    budget.look()
    seen, truth = [], []
    for step in range(config.steps):
        batch = batches(step)
        assert batch.properties is not None
        hu = batch.lr_hu[:, model.config.context].clamp(min=FLOOR_HU)
        seen.append(model.estimator.statistics(hu))
        truth.append(batch.properties[:, : len(ESTIMATED)])
        if budget.look() >= 1:
            break
    x, y = torch.cat(seen), torch.cat(truth)
    loss = _fit(model, x, y, config)
    held_out = load_patients(config.validation, {}, device)
    scores = {p.name: _errors(model, p, config) for p in held_out}
    budget.look()
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": len(seen),
        "minutes": round(budget.minutes, 3),
        "cpu_minutes": round(budget.cpu_minutes, 3),
        "pieces": len(x),
        "loss": round(loss, 5),
        "validation": scores,
        "corpus_sha256": corpus_hash(patients)[:16],
    }
    (out / "log.jsonl").write_text(json.dumps(record) + "\n")
    if not quiet:
        print(f"{len(x)} pieces in {budget.minutes:.1f} min, {scores}", file=sys.stderr)
    model.save_pretrained(out / "model")
    return out / "model"


def _fit(model: Model, x: Tensor, y: Tensor, config: TrainingConfig) -> float:
    """Absolute differences, so that what voxels do not tell is taken as what is most usual; the last steps' loss."""
    estimator = model.estimator
    assert estimator is not None
    estimator.centre.copy_(x.mean(0))
    estimator.spread.copy_(x.std(0) + 1e-3)
    layers = estimator.layers.requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=3e-3, weight_decay=1e-2)
    g = torch.Generator().manual_seed(config.seed)
    weight = torch.ones_like(y)
    weight[:, _CORRELATION] = (y[:, _NOISE] > 0.1).float()  # the correlation of no noise can't be seen
    running = math.nan
    for step in range(FIT_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / FIT_STEPS))
        i = torch.randint(len(x), (FIT_BATCH,), generator=g).to(x.device)
        jitter = JITTER * torch.randn((len(i), x.shape[1]), generator=g).to(x.device)
        loss = (weight[i] * (layers(estimator.standard(x[i]) + jitter) - y[i]).abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = float(loss.detach()) if step == 0 else 0.99 * running + 0.01 * float(loss.detach())
    layers.requires_grad_(False)
    return running


def _errors(model: Model, patient: Patient, config: TrainingConfig) -> dict[str, float]:
    """Mean absolute errors of `Model.estimate` over scans of all kinds of a held-out patient."""
    volume = Volume(patient.hu.cpu().numpy(), (patient.spacing_z_mm or 2.5, *patient.spacing_mm))
    g = torch.Generator().manual_seed(0)
    slices = evenly_spaced(volume.shape[0] // model.config.scale[0], config.validation_slices)
    truths = [degraded_stack(volume, model.acquisition, k)[0][None] for k in slices]
    errors = []
    for _ in range(16):
        scan = draw_properties(ScanProperties(), False, g)
        lr = torch.cat([acquire(hr, model.acquisition, [scan], g)[:, 0] for hr in truths])
        estimated = model.estimate(lr.to(patient.hu.device))
        error = {name: abs(getattr(estimated, name) - getattr(scan, name)) for name in ESTIMATED}
        if not scan.noise_hu:
            error["noise_fwhm"] = np.nan
        errors.append([error[name] for name in ESTIMATED])
    return {f"{name}_mae": float(v) for name, v in zip(ESTIMATED, np.nanmean(errors, 0), strict=True)}
