"""The estimator is fitted alone, and learns what voxels tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import correlated_noise
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training import estimator as estimator_module
from uhrct.training.config import TrainingConfig
from uhrct.training.data.patients import load_patients
from uhrct.training.estimator import train_estimator

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 0}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    Model(ModelConfig(mean=SIZE, properties=True)).save_pretrained(tmp_path / "start")
    return tmp_path / "start"


def config(tiny: Tiny, start: Path, **changes: Any) -> TrainingConfig:
    settings = {"crop": 24, "batch": 16, "steps": 12, "degraded": 0.7, "model": {"estimator": 32}}
    return tiny(**{**settings, "stage": "estimator", "init": str(start), **changes})


def test_it_learns_noise_and_leaves_the_rest_alone(
    tiny: Tiny, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator_module, "FIT_STEPS", 300)
    folder = train_estimator(config(tiny, start), tmp_path / "run", quiet=True)
    before, after = load_file(start / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert {k.split(".")[0] for k in after.keys() - before.keys()} == {"estimator"}
    model = Model.from_pretrained(folder)
    hr = load_patients(config(tiny, start).validation, {}, torch.device("cpu"))[0].hu[:, :72, :72].float()
    lr = model.acquisition.forward(hr)
    noise = correlated_noise(tuple(lr.shape), 0.0, torch.Generator().manual_seed(0))
    quiet, loud = (model.estimate(lr + sigma * noise).noise_hu for sigma in (0.0, 50.0))
    assert loud > quiet + 10
    assert "noise_hu_mae" in (tmp_path / "run" / "log.jsonl").read_text()


def test_an_equal_seed_gives_equal_weights(
    tiny: Tiny, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator_module, "FIT_STEPS", 20)
    runs = [train_estimator(config(tiny, start, steps=2), tmp_path / name, quiet=True) for name in "ab"]
    a, b = (load_file(r / "model.safetensors") for r in runs)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_what_it_needs_is_said(tiny: Tiny, start: Path, tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match=r"model\.estimator"):
        train_estimator(config(tiny, start, model={}), tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UhrctError, match="not empty"):
        train_estimator(config(tiny, start), tmp_path / "full")
    with pytest.raises(UhrctError, match="max-minutes"):
        train_estimator(config(tiny, start), tmp_path / "b", max_minutes=0)


def test_without_an_estimator_a_scan_is_taken_as_clean(start: Path) -> None:
    assert Model.from_pretrained(start).estimate(torch.zeros(1, 20, 20)) == ScanProperties()
