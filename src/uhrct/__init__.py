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
    from uhrct.errors import UhrctError
    from uhrct.formats import read, write
    from uhrct.upscaler import upscale
    from uhrct.volume import Grid, Volume

try:
    __version__ = version("uhrct")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["Grid", "UhrctError", "Volume", "read", "upscale", "write"]

_HOMES = {
    "Grid": "uhrct.volume",
    "UhrctError": "uhrct.errors",
    "Volume": "uhrct.volume",
    "read": "uhrct.formats",
    "upscale": "uhrct.upscaler",
    "write": "uhrct.formats",
}


def __getattr__(name: str) -> Any:
    # imported when used: torch alone takes longer than `uhrct --help` may
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'uhrct' has no attribute {name!r}")
