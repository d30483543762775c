"""Errors of SimpleITK in one line. It decodes only JPEG pixels of DICOM files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from uhrct.core.errors import UhrctError


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the long messages of ITK into one line, and hide its warnings."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            reason = "axis directions are not orthonormal (sheared affine); resample it first"
        elif "Zero-valued spacing" in text:
            reason = "voxel spacing is zero; correct it at the source"
        else:
            reason = f"cannot be read, damaged or truncated? ({text.strip().splitlines()[-1].strip()})"
        raise UhrctError(reason) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
