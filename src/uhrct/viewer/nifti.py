"""A volume as the bytes of a NIfTI file that NiiVue reads."""

from __future__ import annotations

import numpy as np

from uhrct.core import exchange
from uhrct.core.volume import Volume

#: The header, and four bytes that say that no extension follows.
_HEADER_BYTES = 352


def nifti_bytes(volume: Volume) -> bytes:
    """An uncompressed NIfTI-1 file: voxels as they are, geometry, and nothing else.

    Example
    -------
    >>> import nibabel
    >>> data = nifti_bytes(Volume(np.array([[[-1000, 40]]], np.int16), (2.0, 0.7, 0.7)))
    >>> nibabel.Nifti1Image.from_bytes(data).get_fdata().ravel().tolist()
    [-1000.0, 40.0]
    """
    # the smallest array with this geometry: nibabel shall not copy the voxels
    header = exchange.to_nibabel(np.zeros((1, 1, 1), volume.hu.dtype), volume.affine).header
    spacing = volume.spacing_mm
    header.set_data_shape(volume.shape[::-1])
    header.set_zooms(spacing[::-1])
    header.set_slope_inter(1, 0)
    header["vox_offset"] = _HEADER_BYTES
    header["magic"] = b"n+1"
    little = header.as_byteswapped("<") if header.endianness != "<" else header
    voxels = np.ascontiguousarray(volume.hu, volume.hu.dtype.newbyteorder("<"))
    return bytes(little.binaryblock).ljust(_HEADER_BYTES, b"\0") + voxels.tobytes()
