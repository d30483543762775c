"""Read a surface (STL, OBJ) and give it to NiiVue: its MZ3 format, in RAS coordinates."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.io.paths import shown

#: More triangles make a browser slow. `uhrct segment` gives about one million for a chest.
MOST_TRIANGLES = 4_000_000
#: A text file of so many triangles has about this size.
_MOST_BYTES = 600_000_000
_STL_HEADER = 84
_FACET = np.dtype([("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("unused", "<u2")])
Mesh = tuple[np.ndarray, np.ndarray]


def read_mesh(path: Path) -> Mesh:
    """(corners in mm (n, 3) as in the file, triangles (m, 3)) of a binary `.stl` or an `.obj` file.

    Raises
    ------
    InputRefused
        If the file cannot be read, is damaged, or has no triangles or too many.
    UhrctError
        If it is of another kind.
    """
    kinds = {".stl": _stl, ".obj": _obj}
    name = shown(path)
    if path.suffix.lower() not in kinds:
        raise UhrctError(f"{name}: `mesh` is a .stl or .obj file, as `uhrct segment --mesh` writes")
    try:
        size = path.stat().st_size
        if not path.is_file() or size > _MOST_BYTES:
            raise InputRefused(f"{name}: is no file of at most {_MOST_BYTES / 1e6:.0f} MB; make a coarser surface")
        corners_mm, triangles = kinds[path.suffix.lower()](path.read_bytes())
    except OSError as error:
        raise InputRefused(f"{name}: cannot be read ({error.strerror or error})") from None
    except InputRefused as error:
        raise InputRefused(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None
    except (ValueError, IndexError, OverflowError):
        raise InputRefused(f"{name}: is damaged, a line of numbers is wrong; write it again") from None
    _check(name, corners_mm, triangles)
    return corners_mm, triangles


def _check(name: str, corners_mm: np.ndarray, triangles: np.ndarray) -> None:
    if not len(triangles):
        raise InputRefused(f"{name}: has no triangles")
    if len(triangles) > MOST_TRIANGLES:
        raise InputRefused(
            f"{name}: has {len(triangles)} triangles, a browser shows at most {MOST_TRIANGLES}; make a coarser surface"
        )
    if triangles.min() < 0 or triangles.max() >= len(corners_mm) or not np.isfinite(corners_mm).all():
        raise InputRefused(f"{name}: is damaged, a triangle has a corner that does not exist; write it again")


def mz3_bytes(mesh: Mesh) -> bytes:
    """The surface in NiiVue's MZ3 format. Corners move from LPS, as `uhrct segment` writes them, to RAS.

    Example
    -------
    >>> data = mz3_bytes((np.eye(3), np.array([[0, 1, 2]])))
    >>> data[:2], len(data), np.frombuffer(data[28:40], "<f4").tolist()
    (b'MZ', 64, [-1.0, 0.0, 0.0])
    """
    corners_mm, triangles = mesh
    ras = (corners_mm * np.array([-1.0, -1.0, 1.0])).astype("<f4") + np.float32(0)  # no -0.0
    header = struct.pack("<2sHIII", b"MZ", 3, len(triangles), len(corners_mm), 0)
    return header + triangles.astype("<i4").tobytes() + ras.tobytes()


def _stl(data: bytes) -> Mesh:
    count = int.from_bytes(data[80:_STL_HEADER], "little")
    if len(data) < _STL_HEADER or len(data) != _STL_HEADER + count * _FACET.itemsize:
        raise InputRefused("is no complete binary STL file; write it again")
    points = np.frombuffer(data, _FACET, count, _STL_HEADER)["points"].reshape(-1, 3)
    corners, numbers = np.unique(points, axis=0, return_inverse=True)
    return corners.astype(float), numbers.reshape(-1, 3)


def _obj(data: bytes) -> Mesh:
    corners, faces = [], []
    for line in data.decode("latin-1").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            corners.append([float(w) for w in words[1:4]])
        elif words[0] == "f":
            numbers = [int(w.split("/")[0]) for w in words[1:]]
            numbers = [n - 1 if n > 0 else len(corners) + n for n in numbers]
            faces += [(numbers[0], a, b) for a, b in zip(numbers[1:], numbers[2:], strict=False)]
    return np.array(corners, float).reshape(-1, 3), np.array(faces, np.int64).reshape(-1, 3)
