"""Fixtures: real CT where it lies beside the project, small models, a small corpus to train on, a browser."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file
from scipy import ndimage

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.evaluation.lungs import lung_mask
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample
from uhrct.training.config import TrainingConfig, merged

# pytest-xdist runs one worker per core: more threads would only wait for each other
torch.set_num_threads(1)
# a background job of a shell ignores SIGINT, and the processes whose interruption is tested would inherit that
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
    "CT_small": None,  # pydicom ships it: 128 x 128, 5 mm thick
    "rider0117": ("validation/rider0117", 40),  # contrast, noise, padding outside the field of view
    "lidc0314": ("test/lidc0314", 130),  # Philips, no padding
}
CROP_PX = 192


@dataclass(frozen=True)
class Pair:
    """A real slice in HU (padding as air), its lungs, its LR scan, and what bicubic interpolation makes of that."""

    reference: np.ndarray
    lungs: np.ndarray
    lr: np.ndarray
    test: np.ndarray
    spacing_mm: tuple[float, float]
    #: threshold of the structure map: the vessels of CT_small are faint, because it is 5 mm thick
    vessel_from: float


@lru_cache
def real_pair(name: str, crop_px: int | None = None) -> Pair:
    """One of `SLICES`, or a square of it around lung. The test is skipped where the scan is missing."""
    where = SLICES[name]
    file = Path(get_testdata_file("CT_small.dcm"))
    if where is not None:
        folder = ROOT.parent / "shared" / "ct" / where[0]
        if not folder.is_dir():
            pytest.skip(f"real CT not here: {folder.name} is missing in ../shared/ct")
        file = sorted(folder.glob("*.dcm"))[where[1]]
    volume = io.read(file)
    spacing = (volume.spacing_mm[1], volume.spacing_mm[2])
    reference = volume.hu[0].astype(np.float64).clip(min=-1024)
    lungs = lung_mask(reference, spacing)
    if crop_px is not None and crop_px < min(reference.shape):
        pieces, _ = ndimage.label(lungs)
        centre = ndimage.center_of_mass(pieces == np.bincount(pieces[lungs]).argmax())
        y, x = (int(min(max(c - crop_px / 2, 0), n - crop_px)) for c, n in zip(centre, lungs.shape, strict=True))
        reference, lungs = (a[y : y + crop_px, x : x + crop_px] for a in (reference, lungs))
    lr = Acquisition((1, 2, 2)).forward(torch.from_numpy(reference.copy()))
    test = upsample(lr, 2, 2).numpy()
    return Pair(reference, lungs, lr.numpy(), test, spacing, 0.03 if name == "CT_small" else 0.25)


@pytest.fixture(scope="session", params=["CT_small", "rider0117"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """A detail of a real slice with lung in it: small, so that costly metrics can be tested on it."""
    return real_pair(request.param, CROP_PX)


@pytest.fixture(scope="session", params=SLICES)
def whole_pair(request: pytest.FixtureRequest) -> Pair:
    """A whole real slice."""
    return real_pair(request.param)


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


#: WebGL without a graphics card
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium: the one of playwright, or of the system."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser test: playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        found = None
        for path in (None, shutil.which("chromium"), shutil.which("google-chrome")):
            with suppress(sync_api.Error):
                found = found or playwright.chromium.launch(executable_path=path, args=FLAGS)
        if found is None:
            pytest.skip("no browser test: neither playwright's Chromium nor one of the system starts")
        yield found
        found.close()
