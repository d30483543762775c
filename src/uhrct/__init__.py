"""uhrct: CT super-resolution that aims to keep vessels, airways and lesions. Research use only; not a medical device.

import uhrct
scan = uhrct.read("ct_folder/")             # DICOM, NIfTI, NRRD, MHA, npz -> Volume, HU (z, y, x)
fine = uhrct.upscale(scan, scale=2)         # also a path, a nibabel or SimpleITK image, or an array with spacing_mm
uhrct.write(fine, "fine.nii.gz")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from uhrct.core.version import __version__

if TYPE_CHECKING:
    from uhrct.core.errors import InputRefused, NothingToDo, UhrctError
    from uhrct.core.volume import Volume
    from uhrct.io import read, write
    from uhrct.upscaling.upscaler import Upscaler, upscale


__all__ = [
    "InputRefused",
    "NothingToDo",
    "UhrctError",
    "Upscaler",
    "Volume",
    "__version__",
    "read",
    "upscale",
    "write",
]

_HOMES = {
    "InputRefused": "uhrct.core.errors",
    "NothingToDo": "uhrct.core.errors",
    "UhrctError": "uhrct.core.errors",
    "Upscaler": "uhrct.upscaling.upscaler",
    "Volume": "uhrct.core.volume",
    "read": "uhrct.io",
    "upscale": "uhrct.upscaling.upscaler",
    "write": "uhrct.io",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # imported when used: torch alone takes longer than `uhrct --help` may
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'uhrct' has no attribute {name!r}")
