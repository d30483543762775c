"""Fixtures: real CT where it lies beside the project, small models, a small corpus to train on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample
from uhrct.training.config import TrainingConfig, merged

# one thread: on busy cores the threads of an operation wait for each other
torch.set_num_threads(1)
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
    from uhrct.models.model import Model, ModelConfig

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


#: name -> (folder, number of the slice), all with lung and vessels
SLICES = {
    "CT_small": None,
    "rider0117": ("validation/rider0117", 40),  # contrast, noise, cut by the field of view
    "lidc0314": ("test/lidc0314", 130),  # Philips, no padding
    "cmbcrc01068": ("train/cmbcrc01068", 40),  # sharp kernel
}


@dataclass(frozen=True)
class Pair:
    """A real slice in HU, padding as air, and what bicubic interpolation makes of it at half its resolution."""

    reference: np.ndarray
    test: np.ndarray
    lr: np.ndarray
    spacing_mm: tuple[float, float]
    #: of the structure map: CT_small is 5 mm thick, and its vessels are faint
    vessel_from: float


def real_slice(name: str, shared: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """(HU (y, x), spacing in mm) of one of `SLICES`, or a skip."""
    where = SLICES[name]
    if where is None:
        file = Path(get_testdata_file("CT_small.dcm"))
    else:
        folder = shared / where[0]
        if not folder.is_dir():
            pytest.skip(f"real CT not here: {folder.name} is missing in ../shared/ct")
        file = sorted(folder.glob("*.dcm"))[where[1]]
    volume = io.read(file)
    return volume.hu[0], (volume.spacing_mm[1], volume.spacing_mm[2])


@pytest.fixture(scope="session", params=SLICES)
def pair(request: pytest.FixtureRequest) -> Pair:
    shared = Path(__file__).resolve().parents[2] / "shared" / "ct"
    hu, spacing = real_slice(request.param, shared)
    reference = hu.astype(np.float64).clip(min=-1024)
    operator = Acquisition((1, 2, 2))
    lr = operator.forward(torch.from_numpy(reference))
    return Pair(
        reference, upsample(lr, 2, 2).numpy(), lr.numpy(), spacing, 0.03 if request.param == "CT_small" else 0.25
    )


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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/{a,b}.npz and validation/c.npz; tests must not change it."""
    root = tmp_path_factory.mktemp("corpus")
    for name, seed in (("train/a", 1), ("train/b", 2), ("validation/c", 3)):
        (root / name).parent.mkdir(exist_ok=True)
        io.write(patient(seed), root / f"{name}.npz")
    return root


@pytest.fixture(scope="session")
def tiny(corpus: Path) -> Callable[..., TrainingConfig]:
    """tiny(**changes): a configuration on that corpus; changes of groups are merged."""
    data = {"corpus": str(corpus / "train"), "validation": str(corpus / "validation"), "validation_slices": 1}
    base = {
        "model": {"mean": SIZE},
        "data": {**data, "batch": 4, "crop": 16},
        "optimizer": {"warmup_steps": 2},
        "steps": 6,
    }

    def make(**changes: Any) -> TrainingConfig:
        return TrainingConfig.model_validate(merged(base, changes))

    return make
