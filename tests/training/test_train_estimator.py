"""The estimator learns what voxels show, and nothing else of the model moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import CPU, equal, network, train
from safetensors.torch import load_file

from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import correlated_noise
from uhrct.training import estimator as estimator_module
from uhrct.training.config import TrainingConfig
from uhrct.training.data.patients import load_patients

Tiny = Callable[..., TrainingConfig]


def test_it_learns_noise_and_leaves_the_rest_alone(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator_module, "FIT_STEPS", 300)
    mean = {"image_width": 8, "image_blocks": 1, "structure_width": 0}
    start = Model(ModelConfig(mean=mean, properties=True))
    start.save_pretrained(tmp_path / "start")
    data = {"crop": 24, "batch": 16, "degraded": 0.7}
    config = tiny(
        stage="estimator", init=str(tmp_path / "start"), steps=12, data=data, model={"mean": mean, "estimator": 32}
    )
    saved = train(config, out=tmp_path / "run")
    assert equal(network(saved, "mean"), load_file(tmp_path / "start" / "model.safetensors"))
    assert {k.split(".")[0] for k in saved} == {"mean", "estimator"}
    model = Model.from_pretrained(tmp_path / "run" / "model")
    hr = load_patients(config.data.validation, {}, CPU)[0].hu[:, :72, :72].float()
    lr = model.acquisition.forward(hr)
    noise = correlated_noise(tuple(lr.shape), 0.0, torch.Generator().manual_seed(0))
    quiet, loud = (model.estimator.read(lr + sigma * noise) for sigma in (0.0, 50.0))
    assert loud.noise_hu > quiet.noise_hu + 10
