"""Surfaces, overlays and findings: what is read, and what is refused."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from uhrct.audit.grades import GRADES
from uhrct.audit.page import COLOURS
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Volume
from uhrct.tasks.mesh import surface, write_mesh
from uhrct.viewer.findings import GRADE_COLOURS, read_findings
from uhrct.viewer.mesh import mz3_bytes, read_mesh
from uhrct.viewer.overlay import between, overlay_of


def volume(values: object) -> Volume:
    return Volume(np.asarray(values).reshape(1, 1, -1), (1.0, 1.0, 1.0))


def test_grades_have_the_colours_of_the_audit() -> None:
    assert tuple(GRADE_COLOURS.items()) == tuple(zip(GRADES, COLOURS, strict=True))


@pytest.mark.parametrize("suffix", [".stl", ".obj"])
def test_the_surface_that_segment_writes_is_read(tmp_path: Path, suffix: str) -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 3:6, 1:5] = True
    mesh = surface(mask, volume(np.zeros(3, np.int16)).grid)
    write_mesh(mesh, tmp_path / f"tree{suffix}")
    corners_mm, triangles = read_mesh(tmp_path / f"tree{suffix}")
    assert np.allclose(corners_mm[triangles], mesh[0][mesh[1]], atol=1e-3)
    assert len(corners_mm) == len(mesh[0])
    magic, attributes, faces, corners, skip = struct.unpack_from("<2sHIII", mz3_bytes((corners_mm, triangles)))
    assert (magic, attributes, faces, corners, skip) == (b"MZ", 3, len(triangles), len(corners_mm), 0)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.stl", b""),
        ("a.stl", b"solid ascii\nfacet normal 0 0 1\n"),
        ("a.stl", bytes(80) + (10**9).to_bytes(4, "little")),
        ("a.stl", bytes(84)),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nf 1 2 9\n"),
        ("a.obj", b"v a b c\nf 1 2 3\n"),
        ("a.obj", b"v nan 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n"),
        ("a.obj", b"v 0 0\nf 1 1 1\n"),
        ("a.obj", b"hello"),
    ],
)
def test_damaged_surfaces_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputRefused, match=name):
        read_mesh(tmp_path / name)


def test_other_surfaces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match=r"\.stl or \.obj"):
        read_mesh(tmp_path / "a.step")
    with pytest.raises(InputRefused, match="cannot be read"):
        read_mesh(tmp_path / "a.stl")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 0.4, 0.9], "structure"),
        ([0.0, 12.5, 80.0], "uncertainty"),
        (np.array([0, 1, 1], np.int16), "mask"),
        (np.array([0, 1, 4], np.int16), "grades"),
        (np.array([0, 1, 9], np.int16), "labels"),
        (np.array([0, 30, 90], np.int16), "uncertainty"),
    ],
)
def test_kinds_of_overlays(values: object, kind: str) -> None:
    assert overlay_of(volume(values)).kind == kind


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1000.0, 40.0]])
def test_overlays_that_show_nothing_are_refused(values: list[float]) -> None:
    with pytest.raises(InputRefused):
        overlay_of(volume(values))


def test_the_width_of_an_interval() -> None:
    lower, upper = volume([-10.0, 0.0]), volume([20.0, 5.0])
    assert between(lower, upper).hu.ravel().tolist() == [30.0, 5.0]
    with pytest.raises(InputRefused, match="LOWER first"):
        between(upper, lower)
    with pytest.raises(InputRefused, match="different grids"):
        between(lower, volume([1.0, 2.0, 3.0]))


GOOD = {"kind": "vessels", "grade": "doubtful", "slice": 1, "row": 2, "column": 3, "length_mm": 4.0}


def report(**changes: object) -> dict[str, object]:
    return {"schema": "uhrct-audit-1", "findings": [GOOD | changes]}


@pytest.mark.parametrize("wrapped", [False, True])
def test_findings_are_read_from_both_reports(tmp_path: Path, wrapped: bool) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"audit": report()} if wrapped else report()))
    [found] = read_findings(tmp_path / "a.json", (2, 3, 4))
    assert (found.place, found.grade) == ((1, 2, 3), "doubtful")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{" * 5000,
        json.dumps({"schema": "other", "findings": []}),
        json.dumps(report(grade="fine")),
        json.dumps(report(slice=-1)),
        json.dumps(report(slice=2)),
        json.dumps(report(length_mm="<b>")),
        json.dumps(report(kind="<script>")),
        '{"schema": "uhrct-audit-1", "findings": NaN}',
    ],
)
def test_other_reports_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputRefused, match=r"a\.json"):
        read_findings(tmp_path / "a.json", (2, 3, 4))
