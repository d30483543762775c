"""A corpus of two made-up patients and a model so small that a training step takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uhrct import formats
from uhrct.training.config import TrainingConfig
from uhrct.volume import Volume

SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


def patient(seed: int, shape: tuple[int, int, int] = (3, 72, 80)) -> Volume:
    """Air, an ellipse of tissue with vessels in lung, some noise; pixels that are not square."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    middle_y, middle_x = shape[1] / 2, shape[2] / 2
    radius = np.hypot((y - middle_y) / (0.42 * shape[1]), (x - middle_x) / (0.42 * shape[2]))
    hu = np.where(radius < 1, 40.0, -1000.0)
    hu[radius < 0.7] = -850
    for _ in range(12):
        cy, cx = middle_y + rng.normal(0, 10), middle_x + rng.normal(0, 10)
        hu += 800 * np.exp(-((y - cy - z) ** 2 + (x - cx) ** 2) / (2 * rng.uniform(0.8, 2) ** 2)) * (hu < -800)
    hu += rng.normal(0, 2, hu.shape)
    return Volume(np.rint(hu).astype(np.int16), (2.5, 0.7, 0.8))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """tmp/train/{a,b}.npz and tmp/validation/c.npz."""
    for name, seed in (("train/a", 1), ("train/b", 2), ("validation/c", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        formats.write(patient(seed), tmp_path / f"{name}.npz")
    return tmp_path


@pytest.fixture
def tiny(corpus: Path) -> Callable[..., TrainingConfig]:
    """tiny(**changes): a configuration on that corpus."""

    def make(**changes: Any) -> TrainingConfig:
        return TrainingConfig(
            **{
                "model": {"mean": SIZE},
                "corpus": (str(corpus / "train"),),
                "validation": (str(corpus / "validation"),),
                "validation_slices": 1,
                "steps": 6,
                "batch": 4,
                "crop": 16,
                "warmup_steps": 2,
                **changes,
            }
        )

    return make
