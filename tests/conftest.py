"""Shared fixtures: real CT where it lies beside the project, and small models."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

# two cores, often shared: oversubscription makes tests slow and their times erratic
torch.set_num_threads(min(2, os.cpu_count() or 1))
# a background job of a shell ignores SIGINT, and so would the processes whose interruption is tested
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_ct() -> Path:
    """The folder of real CT, or a skip that says so."""
    folder = ROOT.parent / "shared" / "ct"
    if not folder.is_dir():
        pytest.skip("real CT not here: ../shared/ct is missing")
    return folder


@pytest.fixture
def tiny_model():
    """A small dual-stream model with mean and denoiser, random but fixed weights that do something."""
    from uhrct.model import Model, ModelConfig

    torch.manual_seed(0)
    size = {"image_width": 32, "image_blocks": 2, "structure_width": 16, "structure_blocks": 1}
    model = Model(ModelConfig(mean=size, denoiser=size)).eval().requires_grad_(False)
    for p in model.parameters():
        p += 0.05 * torch.randn(p.shape)  # blocks start as the identity; a test of tiles needs them alive
    return model


@pytest.fixture
def slice_hu() -> np.ndarray:
    """A made-up slice (96, 80) int16: body, lung, vessels, noise, and padding in a corner."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:96, :80]
    hu = np.where(np.hypot(y - 48, x - 40) < 34, 40.0, -1000.0)
    hu[np.hypot(y - 44, x - 36) < 18] = -850
    for cy, cx, r in ((40, 30, 1.5), (50, 38, 2.5), (44, 44, 1.0)):
        hu += 800 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r)) * (hu < -800)
    hu += rng.normal(0, 12, hu.shape)
    hu[:10, :10] = -2000
    return np.rint(hu).astype(np.int16)
