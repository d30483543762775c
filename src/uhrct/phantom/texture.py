"""Random fields defined at every point of space, so that every resolution shows the same texture."""

from __future__ import annotations

import numpy as np

from uhrct.physics.resampling import gaussian_matrix

TILE = 144  # samples along each side of a periodic tile


class Texture:
    """A periodic Gaussian random field with mean 0 and standard deviation 1.

    Parameters
    ----------
    rng : generator
    step_mm : distance between samples of the tile; there is no finer detail
    grain : correlation length in samples (sigma of the Gaussian filter)
    """

    def __init__(self, rng: np.random.Generator, step_mm: float, grain: float = 0.8) -> None:
        self.step_mm = step_mm
        field = rng.standard_normal((TILE, TILE, TILE), dtype=np.float32)
        blur = _periodic(grain).astype(np.float32)
        field = np.einsum("ai,ijk->ajk", blur, field, optimize=True)
        field = blur @ field @ blur.T
        self.tile = field / field.std()

    def weights(self, centre_mm: np.ndarray, width_mm: float) -> np.ndarray:
        """Matrix (n, TILE) that averages the linearly interpolated field over voxels of `width_mm` at the centres."""
        parts = max(1, int(np.ceil(width_mm / self.step_mm)))
        inside = (np.arange(parts) + 0.5) / parts - 0.5
        at = (centre_mm[:, None] + inside * width_mm) / self.step_mm
        j = np.floor(at).astype(int)
        t = at - j
        matrix = np.zeros((len(centre_mm), TILE), np.float32)
        rows = np.broadcast_to(np.arange(len(centre_mm))[:, None], j.shape)
        np.add.at(matrix, (rows, j % TILE), (1 - t) / parts)
        np.add.at(matrix, (rows, (j + 1) % TILE), t / parts)
        return matrix


class TextureOnGrid:
    """A texture's slices on the columns and rows of a grid."""

    def __init__(
        self, texture: Texture, y_mm: np.ndarray, x_mm: np.ndarray, spacing_mm: tuple[float, float, float]
    ) -> None:
        self.texture, self.thickness = texture, spacing_mm[0]
        self.rows = texture.weights(y_mm, spacing_mm[1])
        self.columns = texture.weights(x_mm, spacing_mm[2])

    def slice(self, z_mm: float) -> np.ndarray:
        w = self.texture.weights(np.array([z_mm]), self.thickness)[0]
        used = np.flatnonzero(w)
        plane = np.tensordot(w[used], self.texture.tile[used], 1)
        return self.rows @ plane @ self.columns.T


def _periodic(grain: float) -> np.ndarray:
    line = gaussian_matrix(3 * TILE, grain)[TILE : 2 * TILE]
    return line.reshape(TILE, 3, TILE).sum(1)
