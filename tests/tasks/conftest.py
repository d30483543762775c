"""A phantom with few vessels, made once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.phantom import make


@dataclass(frozen=True)
class Phantom:
    volume: Volume
    lungs: np.ndarray
    airways: np.ndarray
    vessels: np.ndarray
    truth: dict[str, np.ndarray]

    def points(self, kind: str, radius_mm: float) -> tuple[np.ndarray, ...]:
        """Voxels on the centre lines of branches with at least this radius."""
        place = self.truth[f"{kind}_position_mm"][self.truth[f"{kind}_radius_mm"] >= radius_mm]
        voxel = np.rint((place - np.array(self.volume.origin_mm)[::-1]) / self.volume.spacing_mm).astype(int)
        return tuple(voxel[((voxel >= 0) & (voxel < self.volume.shape)).all(1)].T)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    out = tmp_path_factory.mktemp("phantom") / "p"
    make.phantom_folder(
        out, seed=3, shape=(80, 165, 230), spacing_mm=(2.0, 1.6, 1.7), centre_mm=(35, 0, 0), quiet=True, density=0.4
    )
    masks = (io.read(out / f"{kind}.nii.gz").hu > 0 for kind in ("lungs", "airways", "vessels"))
    return Phantom(io.read(out / "ct.nii.gz"), *masks, dict(np.load(out / "truth.npz")))
