"""Arrays turned so that slices go from the head to the feet, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Upright:
    """The views of an array in which axis 0 goes from the head to the feet and axis 2 from the right to the left.

    Example
    -------
    >>> hu = np.arange(24).reshape(2, 3, 4)
    >>> turn = Upright.of(np.eye(3)[::-1])  # axis 0 goes to the head
    >>> bool((turn.turned(hu) == hu[::-1]).all()), bool((turn.back(turn.turned(hu)) == hu).all())
    (True, True)
    """

    axes: tuple[int, int, int]
    flips: tuple[int, int, int]

    @classmethod
    def of(cls, direction: np.ndarray) -> Upright:
        """From the `direction` of a `Volume`."""
        up = int(np.argmax(np.abs(direction[2])))
        left = max((a for a in range(3) if a != up), key=lambda a: abs(direction[0, a]))
        back = 3 - up - left
        flips = (-1 if direction[2, up] > 0 else 1, 1, 1 if direction[0, left] > 0 else -1)
        return cls((up, back, left), flips)

    def slices(self, shape: tuple[int, int, int]) -> int:
        """Number of axial slices of an array of this shape, before it is turned."""
        return shape[self.axes[0]]

    def turned(self, array: np.ndarray) -> np.ndarray:
        """A view of `array`."""
        f = self.flips
        return array.transpose(self.axes)[:: f[0], :: f[1], :: f[2]]

    def back(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `turned`."""
        f = self.flips
        return array[:: f[0], :: f[1], :: f[2]].transpose(np.argsort(self.axes))

    def spacing(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Spacing in the order of the turned axes."""
        a, b, c = (spacing_mm[axis] for axis in self.axes)
        return a, b, c
