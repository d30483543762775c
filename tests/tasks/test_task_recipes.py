"""The recipes for VESSEL12, ATM'22 and LUNA16, on tiny trees in their layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest_case import chest

from uhrct import io
from uhrct.benchmark.tasks.config import TRUE_SCAN, load_tasks
from uhrct.benchmark.tasks.report import write_task_report
from uhrct.benchmark.tasks.rows import Row
from uhrct.benchmark.tasks.runner import TaskBenchmark
from uhrct.benchmark.tasks.summary import groups
from uhrct.benchmark.tasks.vessel12 import Marks, read_marks, vessel12_scans
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.tasks.nodule_insertion import insert_nodules

CONFIGS = Path(__file__).parents[2] / "configs"


def run(recipe: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Row]]:
    """Method -> rows of a recipe that is run as a user would, beside the data; at x4 alone."""
    text = (CONFIGS / f"{recipe}.yaml").read_text()
    assert "x2: [1, 2, 2], " in text
    (root / "recipe.yaml").write_text(text.replace("x2: [1, 2, 2], ", ""))
    monkeypatch.chdir(root)
    config = load_tasks("recipe.yaml")
    results = TaskBenchmark(config, quiet=True).run()
    write_task_report(config, root / "report", quiet=True)
    [methods] = groups(results, config).values()
    assert list(methods) == [TRUE_SCAN, "bicubic", "ours"]
    return {name: list(measured.rows.values()) for name, measured in methods.items()}


def mask(array: np.ndarray) -> Volume:
    return Volume(array.astype(np.int16), chest().volume.spacing_mm)


def write_vessel12(root: Path) -> Marks:
    """A scan, its lung mask of the same name, and marks in vessels and beside them."""
    case = chest()
    for folder in ("Scans", "Lungmasks", "Annotations"):
        (root / folder).mkdir(parents=True)
    io.write(case.volume, root / "Scans" / "VESSEL12_21.mhd")
    io.write(mask(case.lungs), root / "Lungmasks" / "VESSEL12_21.mhd")
    rng = np.random.default_rng(0)
    inner = case.lungs & ~case.airways & (case.volume.hu < -750)
    places = np.concatenate([rng.permutation(np.argwhere(part))[:40] for part in (case.vessels, inner)])
    marks = Marks(places, np.arange(80) < 40)
    lines = [",".join(map(str, (*place[::-1], int(own)))) for place, own in zip(places, marks.vessel, strict=True)]
    (root / "Annotations" / "VESSEL12_21_Annotations.csv").write_text("\n".join(["x,y,z,label", *lines]) + "\n")
    return marks


def test_vessel12(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vessel12(tmp_path / "VESSEL12")
    rows = run("benchmark-vessel12", tmp_path, monkeypatch)
    values = {name: own[0]["values"] for name, own in rows.items()}
    assert values[TRUE_SCAN]["sensitivity"] > 0.7
    assert values[TRUE_SCAN]["specificity"] > 0.9
    assert values["bicubic"]["sensitivity"] < values[TRUE_SCAN]["sensitivity"]
    assert "marked vessels found" in (tmp_path / "report" / "tables.md").read_text()
    assert (tmp_path / "report" / "figures" / "vessel_points-classical-x4-boxes.png").is_file()


def test_atm22(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = chest()
    for folder, volume in (("imagesTr", case.volume), ("labelsTr", mask(case.airways))):
        (tmp_path / "ATM22" / folder).mkdir(parents=True)
        io.write(volume, tmp_path / "ATM22" / folder / "ATM_001_0000.nii.gz")
    rows = run("benchmark-atm22", tmp_path, monkeypatch)
    assert rows[TRUE_SCAN][0]["values"]["dice"] > 0.6


def test_luna16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = tmp_path / "LUNA16" / "subset9"
    subset.mkdir(parents=True)
    case = chest().volume
    slab = Volume(np.ascontiguousarray(case.hu[18:42]), case.spacing_mm)
    volume, nodules = insert_nodules(slab, 2, seed=1)
    for name in ("1.2.3", "1.2.4"):
        io.write(volume, subset / f"{name}.mhd")
    lines = [["1.2.3", *n.centre_mm, n.diameter_mm] for n in nodules] + [["9.9.9", 0.0, 0.0, 0.0, 5.0]]
    for name, wanted in (("annotations", lines), ("annotations_excluded", [["1.2.4", *nodules[0].centre_mm, -1]])):
        text = "\n".join(["seriesuid,coordX,coordY,coordZ,diameter_mm", *(",".join(map(str, row)) for row in wanted)])
        (tmp_path / "LUNA16" / f"{name}.csv").write_text(text + "\n")
    rows = run("benchmark-luna16", tmp_path, monkeypatch)
    first, second = rows[TRUE_SCAN]
    assert first["nodules"] == [[*np.round(n.centre_mm, 2), round(n.diameter_mm, 2)] for n in nodules]
    assert not second["nodules"]
    assert len(second["excluded"]) == 1
    assert first["found"]


def test_marks_stay_where_they_are_written(tmp_path: Path) -> None:
    marks = write_vessel12(tmp_path)
    [(scan, table)] = vessel12_scans(tmp_path)
    assert scan.parent.name == "Scans"
    found = read_marks(table)
    np.testing.assert_array_equal(found.voxel, marks.voxel)
    np.testing.assert_array_equal(found.vessel, marks.vessel)
    assert (found.inside((20, 104, 152)).voxel[:, 0] < 20).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y,z,label\n1,2,3,1\n1,2,oops,0\n", "line 3 is not x,y,z,label"),
        ("1,2,3,1\n1,2,3\n", "line 2 is not x,y,z,label"),
        ("1,2,3,1\n1,-2,3,0\n", "line 2: voxels are counted from 0"),
        ("1,2,3,1\n1,2,4,2\n", "the label is 0 or 1"),
        ("1,2,3,1\n", "needs voxels with label 1 .vessel. and with label 0"),
        ("", "needs voxels with label"),
    ],
)
def test_a_table_that_is_none_gives_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a_Annotations.csv").write_text(text)
    with pytest.raises(UhrctError, match=words):
        read_marks(tmp_path / "a_Annotations.csv")
    with pytest.raises(UhrctError, match=r"its scan a\.mhd is not in"):
        vessel12_scans(tmp_path)
