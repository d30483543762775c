"""Phantoms as patients: folders that `uhrct phantom` made, with the structure map that is true of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.phantom.truth import MASKS

#: what tells a phantom's folder from any other
TRUTH = "truth.json"
#: thousandths in which a map is stored, and what stands for "not known"
ONE, UNKNOWN = 1000, -1


def phantom_image(folder: Path, files: list[Path]) -> Path | None:
    """The image among a folder's volumes, None if it is no phantom's."""
    if not (folder / TRUTH).is_file():
        return None
    images = [f for f in files if f.parent == folder and f.name.split(".")[0] not in ("truth", *MASKS)]
    return images[0] if len(images) == 1 else None


def truth_map(folder: Path) -> Tensor:
    """The exact structure map of a phantom, int16 (z, y, x) in thousandths, -1 where it is not known.

    In the lungs it is 1 in vessels and 0 elsewhere, in fissures and airway walls too: they are no vessels, however
    much an operator answers them. Nodules and all that lies outside the lungs (ribs, heart, great vessels)
    are not known: there an operator has to say what structure is.

    Raises
    ------
    UhrctError
        If a label volume is missing, unreadable or on another grid.
    """
    lungs, vessels, nodules = (_label(folder / f"{name}.nii.gz") for name in ("lungs", "vessels", "nodules"))
    if not lungs.shape == vessels.shape == nodules.shape:
        raise UhrctError(f"{folder}: its label volumes differ in shape; make it anew with uhrct phantom")
    exact = np.where(lungs, np.int16(0), np.int16(UNKNOWN))
    exact[vessels] = ONE
    exact[nodules] = UNKNOWN
    return torch.from_numpy(exact)


def _label(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UhrctError(f"{path}: missing; a phantom's folder is used whole, as uhrct phantom left it")
    return io.read(path).hu > 0
