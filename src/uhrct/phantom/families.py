"""Families of phantoms: the anatomies that a seed can draw. The families for training and test share none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uhrct.core.errors import UhrctError

#: Ranges of anatomy (mm, HU) per family. They do not touch: no test chest has the size, calibre or HU of a train chest.
_PARAMETERS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    # name: (train, test)
    "half_width_mm": ((156.0, 172.0), (174.0, 184.0)),
    "half_depth_mm": ((104.0, 115.0), (117.0, 124.0)),
    "fat_mm": ((9.0, 17.0), (18.0, 25.0)),
    "lung_hu": ((-880.0, -845.0), (-840.0, -815.0)),
    "blood_hu": ((38.0, 52.0), (54.0, 68.0)),
    "vessel_tip_mm": ((0.27, 0.33), (0.34, 0.39)),
    "airway_tip_mm": ((0.25, 0.27), (0.28, 0.31)),  # of the thinnest
    "heart": ((0.92, 1.05), (1.07, 1.18)),
}
RANGES = {
    family: {name: ranges[k] for name, ranges in _PARAMETERS.items()} for k, family in enumerate(("train", "test"))
}
FAMILIES = tuple(RANGES)


@dataclass(frozen=True)
class Draw:
    """The draws of a seed: anatomy parameters, and independent random streams by name.

    Example
    -------
    >>> a, b = Draw("train", 0), Draw("test", 0)
    >>> a["half_width_mm"] < b["half_width_mm"]
    True
    """

    family: str
    seed: int

    def __post_init__(self) -> None:
        if self.family not in RANGES:
            raise UhrctError(f"family {self.family!r} is not known; choose from {', '.join(FAMILIES)}")
        if not 0 <= self.seed < 2**63:
            raise UhrctError(f"`seed` {self.seed}: give a whole number from 0 to 2^63 - 1")

    def stream(self, *name: str | int) -> np.random.Generator:
        """A generator that depends on family, seed and name alone, so that a new stream changes no other one."""
        letters = [ord(c) for part in name for c in f"/{part}"]
        return np.random.default_rng([FAMILIES.index(self.family), self.seed, *letters])

    def __getitem__(self, parameter: str) -> float:
        low, high = RANGES[self.family][parameter]
        return float(self.stream("parameter", parameter).uniform(low, high))
