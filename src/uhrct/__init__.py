"""uhrct: CT super-resolution that keeps topology. Research use only; not a medical device.

import uhrct
scan = uhrct.read("ct_folder/")             # DICOM, NIfTI, NRRD, MHA, npz -> Volume, HU (z, y, x)
fine = uhrct.upscale(scan, scale=2)
uhrct.write(fine, "fine.nii.gz")
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uhrct.core.errors import UhrctError
    from uhrct.core.volume import Grid, Volume
    from uhrct.io import read, write
    from uhrct.upscaling.upscaler import upscale

try:
    __version__ = version("uhrct")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Grid", "UhrctError", "Volume", "read", "upscale", "write"]

_HOMES = {
    "Grid": "uhrct.core.volume",
    "UhrctError": "uhrct.core.errors",
    "Volume": "uhrct.core.volume",
    "read": "uhrct.io",
    "upscale": "uhrct.upscaling.upscaler",
    "write": "uhrct.io",
}


def __getattr__(name: str) -> Any:
    # imported when used: torch alone takes longer than `uhrct --help` may
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'uhrct' has no attribute {name!r}")
