"""What the tests of the page show: a made-up chest on any grid, and findings."""

import numpy as np

from uhrct.core.volume import Volume
from uhrct.viewer.findings import Finding


def body(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], seed: int) -> Volume:
    """Air, a body, a lung with a vessel, bone, and noise, all off the middle; edges are at the same place for all."""
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    hu = np.where(np.hypot(y - 0.55, x - 0.5) < 0.4, 40.0, -1000.0)
    hu = np.where(np.hypot(y - 0.5, x - 0.35) < 0.15, -850.0, hu)
    hu = np.where(np.hypot(y - 0.5, x - 0.3 - 0.1 * z) < 0.03, 0.0, hu)
    hu = np.where(np.hypot(y - 0.8, x - 0.5) < 0.07, 700.0, hu)
    hu += np.random.default_rng(seed).normal(0, 12, shape)
    origin = (10 + spacing_mm[2] / 2, -20 + spacing_mm[1] / 2, 300 + spacing_mm[0] / 2)
    return Volume(hu.round().astype(np.int16), spacing_mm, origin)


def finding(place: tuple[int, int, int], grade: str = "doubtful") -> Finding:
    z, y, x = place
    return Finding(kind="vessels", grade=grade, slice=z, row=y, column=x, length_mm=3.0)
