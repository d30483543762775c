"""Real slices: one that pydicom ships, and one of each kind of scanner where ../shared/ct lies beside the project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from uhrct import formats
from uhrct.acquisition import Acquisition
from uhrct.resampling import upsample

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
    volume = formats.read(file)
    return volume.hu[0], (volume.spacing_mm[1], volume.spacing_mm[2])


@pytest.fixture(scope="session", params=SLICES)
def pair(request: pytest.FixtureRequest) -> Pair:
    shared = Path(__file__).resolve().parents[3] / "shared" / "ct"
    hu, spacing = real_slice(request.param, shared)
    reference = hu.astype(np.float64).clip(min=-1024)
    operator = Acquisition((1, 2, 2))
    lr = operator.forward(torch.from_numpy(reference))
    return Pair(
        reference, upsample(lr, 2, 2).numpy(), lr.numpy(), spacing, 0.03 if request.param == "CT_small" else 0.25
    )
