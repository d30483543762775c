"""Phantoms as training series: folders made by `uhrct phantom`, with their exact structure map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.phantom.truth import MASKS

#: the file that marks the folder of a phantom
TRUTH = "truth.json"
#: a map is stored in thousandths; UNKNOWN stands for "not known"
ONE, UNKNOWN = 1000, -1


def phantom_image(folder: Path, files: list[Path]) -> Path | None:
    """The image in the folder of a phantom; None if the folder is no phantom."""
    if not (folder / TRUTH).is_file():
        return None
    images = [f for f in files if f.parent == folder and f.name.split(".")[0] not in ("truth", *MASKS)]
    return images[0] if len(images) == 1 else None


def truth_map(folder: Path) -> Tensor:
    """The exact structure map of a phantom, int16 (z, y, x) in thousandths, -1 where it is unknown.

    In the lungs the map is 1 in vessels and 0 elsewhere, also in fissures and airway walls, although operators answer
    them. It is unknown in nodules and outside the lungs (ribs, heart, great vessels). There the operator decides.

    Raises
    ------
    UhrctError
        If a label volume is missing, unreadable or on another grid.
    """
    lungs, vessels, nodules = (_label(folder / f"{name}.nii.gz") for name in ("lungs", "vessels", "nodules"))
    if not lungs.shape == vessels.shape == nodules.shape:
        raise UhrctError(f"{folder}: its label volumes differ in shape; make it again with uhrct phantom")
    exact = np.where(lungs, np.int16(0), np.int16(UNKNOWN))
    exact[vessels] = ONE
    exact[nodules] = UNKNOWN
    return torch.from_numpy(exact)


def _label(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UhrctError(f"{path}: missing; use the folder of a phantom as uhrct phantom wrote it")
    return io.read(path).hu > 0
