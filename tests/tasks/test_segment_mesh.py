"""Surfaces: place, volume, orientation, and files that another reader understands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid
from uhrct.tasks.mesh import surface, write_mesh


def enclosed_mm3(corners_mm: np.ndarray, triangles: np.ndarray) -> float:
    """Positive if the normals point outwards (divergence theorem)."""
    a, b, c = (corners_mm[triangles[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def ball(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    z, y, x = np.mgrid[:40, :40, :40]
    return np.sqrt(sum(((a - 20) * s) ** 2 for a, s in zip((z, y, x), spacing_mm, strict=True))) < 10


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_ball_lies_where_the_grid_says(flips: tuple[int, int, int]) -> None:
    spacing = (1.0, 0.8, 0.7)
    grid = Grid((40, 40, 40), spacing, (5.0, -7.0, 30.0), np.eye(3)[::-1] * np.array(flips))
    corners_mm, triangles = surface(ball(spacing), grid)
    centre = np.array(grid.origin_mm) + grid.direction @ (np.array(spacing) * 20)
    assert np.allclose((corners_mm.max(0) + corners_mm.min(0)) / 2, centre, atol=0.05)
    assert enclosed_mm3(corners_mm, triangles) == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.03)


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply"])
def test_files_hold_the_surface(tmp_path: Path, suffix: str) -> None:
    corners_mm, triangles = surface(ball((1.0, 1.0, 1.0)), Grid((40, 40, 40), (1.0, 1.0, 1.0)))
    path = tmp_path / f"tree{suffix}"
    write_mesh((corners_mm, triangles), path)
    data = path.read_bytes()
    if suffix == ".stl":
        count = int.from_bytes(data[80:84], "little")
        facets = np.frombuffer(data[84:], [("normal", "<f4", 3), ("points", "<f4", (3, 3)), ("unused", "<u2")])
        assert count == len(facets) == len(triangles)
        points = facets["points"]
    elif suffix == ".obj":
        lines = data.decode().splitlines()
        corners = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
        points = corners[np.array([line.split()[1:] for line in lines if line.startswith("f ")], int) - 1]
    else:
        head, body = data.split(b"end_header\n", 1)
        assert f"element face {len(triangles)}".encode() in head
        corners = np.frombuffer(body[: 12 * len(corners_mm)], "<f4").reshape(-1, 3)
        faces = np.frombuffer(body[12 * len(corners_mm) :], [("n", "u1"), ("corners", "<i4", 3)])
        points = corners[faces["corners"]]
    assert np.allclose(points, corners_mm[triangles], atol=1e-3)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match=r"written as \.stl, \.obj or \.ply"):
        write_mesh((np.eye(3), np.array([[0, 1, 2]])), tmp_path / "tree.vtk")
