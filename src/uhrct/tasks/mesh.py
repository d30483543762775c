"""The surface of a mask as triangles in patient coordinates (LPS, mm), and files of it: STL, OBJ, PLY."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.volume import Grid
from uhrct.tasks.boxes import box_of

SUFFIXES = (".stl", ".obj", ".ply")
Mesh = tuple[np.ndarray, np.ndarray]


def check_mesh(path: Path) -> None:
    """Raise before the work what `write_mesh` would raise after it.

    >>> check_mesh(Path("tree.step"))
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: tree.step: a surface is written as .stl, .obj or .ply
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UhrctError(f"{path}: a surface is written as .stl, .obj or .ply")


def surface(mask: np.ndarray, grid: Grid) -> Mesh:
    """(corners in mm (n, 3), triangles (m, 3)) by marching cubes. Normals point outwards.

    References
    ----------
    Lewiner et al., 2003, doi 10.1080/10867651.2003.10487582.

    Example
    -------
    >>> mask = np.zeros((5, 5, 5), bool); mask[2, 2, 2] = True
    >>> corners_mm, triangles = surface(mask, Grid((5, 5, 5), (2.0, 1.0, 1.0), (10.0, 20.0, 30.0)))
    >>> corners_mm.mean(0).round(3).tolist(), len(triangles)
    ([12.0, 22.0, 34.0], 8)
    """
    from skimage.measure import marching_cubes  # evaluation extra

    box = box_of(mask)
    start = [side.start - 1 for side in box]
    padded = np.pad(mask[box], 1).astype(np.float32)
    corners, triangles, _, _ = marching_cubes(padded, 0.5)
    step = grid.direction * np.asarray(grid.spacing_mm)
    corners_mm = np.asarray(grid.origin_mm) + (corners + start) @ step.T
    if np.linalg.det(grid.direction) > 0:  # a mirrored grid turns the triangles
        triangles = triangles[:, ::-1]
    return corners_mm, np.ascontiguousarray(triangles)


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a surface. The suffix selects the format: `.stl` and `.ply` are binary, `.obj` is text.

    Raises
    ------
    UhrctError
        If the suffix is unknown, or the file cannot be written.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_mesh((np.eye(3), np.array([[0, 1, 2]])), Path(folder) / "a.obj")
    ...     (Path(folder) / "a.obj").read_text().splitlines()[-1]
    'f 1 2 3'
    """
    check_mesh(path)
    writers: dict[str, Callable[..., str | bytes]] = {".stl": _stl, ".obj": _obj, ".ply": _ply}
    write_atomic(path, writers[path.suffix.lower()](*mesh))


def _stl(corners_mm: np.ndarray, triangles: np.ndarray) -> bytes:
    points = corners_mm[triangles].astype("<f4")
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facets = np.zeros(len(points), [("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("unused", "<u2")])
    facets["normal"], facets["points"] = normals, points
    header = b"uhrct segment; mm, patient coordinates LPS".ljust(80)
    return header + np.uint32(len(points)).astype("<u4").tobytes() + facets.tobytes()


def _obj(corners_mm: np.ndarray, triangles: np.ndarray) -> str:
    lines = ["# uhrct segment; mm, patient coordinates LPS"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in corners_mm.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return "\n".join(lines) + "\n"


def _ply(corners_mm: np.ndarray, triangles: np.ndarray) -> bytes:
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment uhrct segment; mm, patient coordinates LPS\n"
        f"element vertex {len(corners_mm)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(len(triangles), [("n", "u1"), ("corners", "<i4", 3)])
    faces["n"], faces["corners"] = 3, triangles
    return header.encode() + corners_mm.astype("<f4").tobytes() + faces.tobytes()
