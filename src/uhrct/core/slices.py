"""Voxels that stay on disk until they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class Slices(ABC):
    """An array (z, y, x) of int16 or float32 whose slices are read when they are asked for.

    A `Volume` may hold it instead of an array. Only what works slice by slice can use such a volume.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    ndim = 3

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, slices: slice | np.ndarray) -> np.ndarray:
        """The slices of a range, or those with the numbers in an array: (k, y, x)."""
