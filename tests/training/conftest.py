"""One small model trained by all stages, for every test that only looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import train

from uhrct.training import estimator, residuals
from uhrct.training.config import TrainingConfig

WIDE = {"image_width": 16, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


@pytest.fixture(scope="session", autouse=True)
def short() -> Iterator[None]:
    """Shorter measurements and fits than those of a real training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "FIT_STEPS", 100)
        patch.setattr(estimator, "VALIDATION_SCANS", 2)
        patch.setattr(residuals, "BATCHES", 2)
        yield


@pytest.fixture(scope="session")
def stages(tiny: Callable[..., TrainingConfig]) -> list[TrainingConfig]:
    """Mean, denoiser and estimator of one model; the mean network is wide enough for Muon."""
    model = {"mean": WIDE, "denoiser": WIDE, "estimator": 4, "properties": True, "context": 1}
    common = {"model": model, "steps": 4, "optimizer": {"name": "muon"}}
    return [
        tiny(**common, stage="mean", loss={"lengths_share": 0.1, "structure_from": 0.5}, data={"degraded": 0.5}),
        tiny(**common, stage="denoiser", loss={"l2": 1.0, "l1": 0.0}),
        tiny(**common, stage="estimator", data={"degraded": 0.7, "crop": 24}),
    ]


@pytest.fixture(scope="session")
def finished(stages: list[TrainingConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of these stages; tests must not change it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(*stages, out=out)
    return out
