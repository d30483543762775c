"""A chest section with known vessels: truth, its scan, and a model that returns the interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from uhrct.core.volume import Volume
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.acquisition import Acquisition

PIXEL_MM = 0.7
SCANNER = Acquisition((1, 2, 2), psf_fwhm=0.6)
NOISE_HU = 6.0


@dataclass(frozen=True)
class Case:
    truth: np.ndarray  # (3, y, x), HU
    scan: Volume

    def volume(self, hu: np.ndarray) -> Volume:
        return self.scan.on_grid(self.scan.refined_grid((1, 2, 2)), hu.astype(np.float32))


def tube(shape: tuple[int, int], row: float, columns: tuple[int, int], contrast_hu: float = 800.0) -> np.ndarray:
    """A vessel 2 mm wide along x, with blurred edges and ends."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    along = 1 / (1 + np.exp(-(x - columns[0]))) / (1 + np.exp(x - columns[1]))
    return contrast_hu * np.exp(-0.5 * ((y - row) / 1.4) ** 2) * along


def chest(seed: int = 0, size: int = 160) -> Case:
    """Three equal slices: a body of soft tissue with one round lung and two vessels in it."""
    y, x = np.mgrid[:size, :size]
    r = np.hypot(y - size / 2, x - size / 2)
    hu = np.where(r < 0.47 * size, 40.0, -1000.0)
    hu = np.where(r < 0.27 * size, -850.0, hu)
    hu = hu + tube(hu.shape, 60, (50, 110)) + tube(hu.shape, 100, (50, 110))
    truth = np.repeat(hu[None], 3, 0).astype(np.float32)
    low = SCANNER.forward(torch.from_numpy(truth)).numpy()
    low = low + np.random.default_rng(seed).normal(0, NOISE_HU, low.shape)
    return Case(truth, Volume(low.astype(np.float32), (2.5, 2 * PIXEL_MM, 2 * PIXEL_MM)))


def interpolating_model() -> Model:
    """Its network adds nothing to the interpolation."""
    model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    return model
