"""The benchmark of tasks: every tool on every volume, a run that continues, tables with the right numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chest_case import chest

from uhrct import io
from uhrct.benchmark.tasks.cases import readers_nodules
from uhrct.benchmark.tasks.config import TRUE_SCAN, load_tasks
from uhrct.benchmark.tasks.render import FOUND, render
from uhrct.benchmark.tasks.rows import TaskResults, read_task_results
from uhrct.benchmark.tasks.runner import TaskBenchmark
from uhrct.benchmark.tasks.summary import Measured, by_patient, groups
from uhrct.cli.benchmark import benchmark
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.tasks.nodule_insertion import insert_nodules
from uhrct.tasks.phantom_lines import phantom_points

CONFIG = """
out: {root}/results.jsonl
protocols: {{x4: [1, 4, 4]}}
against: projected
methods:
  bicubic: {{kind: bicubic}}
  projected: {{kind: projection}}
tasks:
  vessels: {{cases: [{root}/cases/chest]}}
  nodules: {{cases: [{{scan: {root}/cases/slab.nii.gz, inserted: 2, seed: 1}}]}}
"""


def slab() -> Volume:
    """A part of the chest without the airways: few slices, for speed."""
    volume = chest().volume
    return Volume(np.ascontiguousarray(volume.hu[18:42]), volume.spacing_mm)


def run(root: Path) -> TaskResults:
    return TaskBenchmark(load_tasks(root / "config.yaml"), quiet=True).run()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    (root / "cases" / "chest").mkdir(parents=True)
    case = chest()
    io.write(case.volume, root / "cases" / "chest" / "ct.nii.gz")
    for name, mask in (("vessels", case.vessels), ("lungs", case.lungs)):
        io.write(Volume(mask.astype(np.int16), case.volume.spacing_mm), root / "cases" / "chest" / f"{name}.nii.gz")
    io.write(slab(), root / "cases" / "slab.nii.gz")
    (root / "config.yaml").write_text(CONFIG.format(root=root))
    run(root)
    return root


@pytest.fixture
def place(measured: Path, tmp_path: Path) -> Path:
    """A copy of the finished benchmark, to change."""
    root = tmp_path / "copy"
    shutil.copytree(measured, root)
    (root / "config.yaml").write_text(CONFIG.format(root=root))
    return root


def change(place: Path, old: str, new: str) -> None:
    text = (place / "config.yaml").read_text()
    assert old in text
    (place / "config.yaml").write_text(text.replace(old, new, 1))


def rows(root: Path, task: str) -> dict[str, dict[str, Any]]:
    return {r["method"]: r for r in read_task_results(root / "results.jsonl").rows if r["task"] == task}


def test_every_tool_sees_the_true_scan_and_every_method(measured: Path) -> None:
    vessels = rows(measured, "vessels")
    assert vessels.keys() == {TRUE_SCAN, "bicubic", "projected"}
    values = {name: row["values"] for name, row in vessels.items()}
    assert values[TRUE_SCAN]["dice"] > 0.6
    assert values[TRUE_SCAN]["sensitivity"] > values["bicubic"]["sensitivity"]  # pixels of 5 mm show few vessels
    nodules = rows(measured, "nodules")
    assert nodules.keys() == vessels.keys()
    assert len({json.dumps(row["nodules"]) for row in nodules.values()}) == 1
    assert len(nodules[TRUE_SCAN]["nodules"]) == 2
    assert nodules[TRUE_SCAN]["found"]


def test_nothing_is_measured_twice(place: Path) -> None:
    before = (place / "results.jsonl").read_bytes()
    run(place)
    assert (place / "results.jsonl").read_bytes() == before


def test_a_row_that_was_cut_off_is_measured_again(place: Path) -> None:
    file = place / "results.jsonl"
    whole = read_task_results(file).rows
    lines = file.read_bytes().splitlines(keepends=True)
    last_vessels = max(k for k, line in enumerate(lines) if b'"task":"vessels"' in line)
    file.write_bytes(b"".join(lines[:last_vessels] + lines[last_vessels + 1 :]) + lines[last_vessels][:70])
    change(place, "  nodules:", "  # nodules:")
    again = run(place)
    assert again.broken == 0

    def plain(some: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps({k: v for k, v in r.items() if "seconds" not in k}) for r in some)

    assert plain(again.rows) == plain(whole)


def test_other_voxels_are_not_mixed_with_old_rows(place: Path) -> None:
    volume = io.read(place / "cases" / "chest" / "ct.nii.gz")
    io.write(Volume(volume.hu + 1, volume.spacing_mm), place / "cases" / "chest" / "ct.nii.gz", overwrite=True)
    change(place, "bicubic: {kind: bicubic}", "other: {kind: bicubic, seed: 5}")
    with pytest.raises(UhrctError, match="measured on other voxels"):
        run(place)


def test_the_report_has_the_numbers_of_the_rows(measured: Path, tmp_path: Path) -> None:
    benchmark(measured / "config.yaml", report=tmp_path / "report", quiet=True)
    text = (tmp_path / "report" / "tables.md").read_text()
    values = {name: row["values"] for name, row in rows(measured, "vessels").items()}
    dice = 100 * values["bicubic"]["dice"]
    assert f"| bicubic | 1 | {dice:.1f} |" in text
    assert f"| bicubic | 1 | {dice - 100 * values[TRUE_SCAN]['dice']:+.1f} |" in text
    names = {p.name for p in (tmp_path / "report" / "figures").iterdir()}
    assert names == {
        *(f"vessels-classical-x4-{what}.png" for what in ("boxes", "sizes", "trees")),
        *(f"nodules-classical-x4-{what}.png" for what in ("boxes", "sizes", "froc")),
    }


def test_without_a_true_mask_a_tool_is_compared_with_what_it_finds_in_the_true_scan(place: Path) -> None:
    (place / "results.jsonl").unlink()
    change(place, "cases/chest]", "cases/chest/ct.nii.gz}]")
    change(place, "{cases: [", "{cases: [{scan: ")
    change(place, "  nodules:", "  # nodules:")
    change(place, "{x4: [1, 4, 4]}", "{x2: [1, 2, 2]}")
    run(place)
    vessels = rows(place, "vessels")
    assert vessels[TRUE_SCAN]["values"]["dice"] == 1
    assert vessels[TRUE_SCAN]["values"]["leak_ml"] == 0
    assert 0.1 < vessels["bicubic"]["values"]["dice"] < 0.9
    benchmark(place / "config.yaml", report=place / "report", quiet=True)
    assert (place / "report" / "figures" / "vessels-classical-x2-trees.png").is_file()


def test_a_scan_in_which_a_tool_finds_nothing_is_no_reference(place: Path) -> None:
    (place / "results.jsonl").unlink()
    io.write(Volume(np.full((12, 64, 64), 40, np.int16), (1.0, 1.0, 1.0)), place / "cases" / "water.nii.gz")
    change(place, "cases/chest]", "cases/water.nii.gz}]")
    change(place, "{cases: [", "{cases: [{scan: ")
    change(place, "  nodules:", "  # nodules:")
    with pytest.raises(UhrctError, match=r"water.nii.gz: classical finds no vessels in the true scan"):
        run(place)


def nodule_rows(found: list[list[float]]) -> dict[str, Any]:
    known = [[0.0, 0.0, 0.0, 4.0], [50.0, 0.0, 0.0, 10.0]]
    return {"nodules": known, "excluded": [[90.0, 0.0, 0.0, 6.0]], "found": found}


def test_sensitivity_of_small_nodules() -> None:
    """The small one is found only after eight false positives; a finding in an excluded place is none."""
    wrong = [[0.0, 100.0 + k, 0.0, 0.8 - 0.01 * k] for k in range(8)]
    found = [[50.0, 1.0, 0.0, 0.9], [90.0, 0.0, 0.0, 0.85], *wrong, [0.0, 1.0, 0.0, 0.5]]
    one = Measured.of({"a": nodule_rows(found)})
    assert one.value("candidates", ["a"]) == 1
    assert one.value("sensitivity_4", ["a"]) == 0.5
    assert one.value("sensitivity_4_small", ["a"]) == 0
    assert len(one.matches["a"].wrong) == 8
    two = Measured.of({"a": nodule_rows(found), "b": nodule_rows([[0.0, 1.0, 0.0, 0.5]])})
    assert two.value("sensitivity_4_small", ["a", "b"]) == 1  # eight false positives in two scans


def test_seeds_of_one_patient_are_reported_by_patient() -> None:
    rows = {name: nodule_rows([[0.0, 1.0, 0.0, 0.5]]) for name in ("a", "a, seed 1", "b, seed 1")}
    parts = by_patient({TRUE_SCAN: Measured.of(rows), "ours": Measured.of({"a": rows["a"]})})
    assert {p: {name: [*m.rows] for name, m in methods.items()} for p, methods in parts.items()} == {
        "a": {TRUE_SCAN: ["a", "a, seed 1"], "ours": ["a"]},
        "b": {TRUE_SCAN: ["b, seed 1"]},
    }
    assert by_patient({TRUE_SCAN: Measured.of({"a": rows["a"], "b": rows["a"]})}) == {}  # LUNA16: one case of each


def test_rows_of_other_weights_do_not_count(measured: Path) -> None:
    config = load_tasks(measured / "config.yaml")
    results = read_task_results(measured / "results.jsonl")
    row = next(r for r in results.rows if r["task"] == "vessels" and r["method"] == "bicubic")
    results.rows.append(row | {"identity": "other", "case": "new"})
    assert list(groups(results, config)["vessels", "classical", "x4"]["bicubic"].rows) == ["new"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: projection", "weights: nowhere", None),
        ("kind: projection", "kind: projection, slices: 3", "slices has no meaning"),
        ("against: projected", "against: other", "none of the methods"),
        ("  vessels: {", "  vessels: {tools: [nowhere], ", "nowhere: no such weights"),
        ("  vessels: {", "  vessels: {tools: [x2], ", "x2: holds no mask network"),
        ("inserted: 2", "inserted: 0", "no nodule is known"),
        ("/chest]", "/nothing]", "no such folder"),
        ("  vessels: {", "  veins: {", "unknown setting tasks.veins"),
        ("/chest]", "/chest], tools: []", "tools"),
        ("/chest]", "/chest, {scan: chest}]", "a configuration of their own"),
    ],
)
def test_a_bad_configuration_gives_one_line(place: Path, old: str, new: str, words: str | None) -> None:
    (place / "results.jsonl").unlink()
    change(place, old, new)
    if words is None:  # methods whose weights are missing are left out, as in the other benchmark
        change(place, "bicubic: {kind: bicubic}", "also: {weights: nowhere}")
        words = "no method has weights"
    with pytest.raises(UhrctError, match=words) as caught:
        run(place)
    assert "\n" not in str(caught.value)


def test_inserted_nodules_are_where_they_are_said_to_be() -> None:
    scan = slab()
    volume, nodules = insert_nodules(scan, 2, seed=1)
    again, _ = insert_nodules(scan, 2, seed=1)
    assert np.array_equal(volume.hu, again.hu)
    changed = np.argwhere(volume.hu - scan.hu > 60) * scan.spacing_mm
    middles = np.array([n.centre_mm[::-1] for n in nodules])
    gaps = np.linalg.norm(changed[:, None] - middles, axis=2)
    assert (gaps.min(1) < 0.65 * max(n.diameter_mm for n in nodules) + 2).all()
    for k, nodule in enumerate(nodules):
        assert (gaps[:, k] < nodule.diameter_mm / 2).any()
    thin = Volume(np.ascontiguousarray(scan.hu[:8]), scan.spacing_mm)
    with pytest.raises(UhrctError, match="insert fewer"):
        insert_nodules(thin, 200, seed=1)


@pytest.mark.parametrize(("task", "kinds"), [("airways", ("airway",)), ("vessels", ("artery", "vein"))])
def test_points_of_a_phantom_lie_in_its_masks_and_have_its_length(
    phantom: Any, tmp_path: Path, task: str, kinds: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "truth.npz", **phantom.truth)
    points = phantom_points(tmp_path / "truth.npz", task, phantom.volume)
    whole_mm = 0.0
    for kind in kinds:
        place, parent = phantom.truth[f"{kind}_position_mm"], phantom.truth[f"{kind}_parent"]
        whole_mm += np.linalg.norm((place - place[parent])[parent >= 0], axis=1).sum()
    assert points.length_mm.sum() == pytest.approx(whole_mm)
    on_grid = points.inside(np.ones(phantom.volume.shape, bool)).length_mm.sum()
    assert points.inside(getattr(phantom, task)).length_mm.sum() > 0.99 * on_grid > 1000


def test_findings_of_few_readers_are_neither_right_nor_wrong() -> None:
    votes = np.zeros((12, 40, 40), np.uint8)
    z, y, x = np.mgrid[:12, :40, :40]
    votes[np.sqrt((z - 6) ** 2 + (y - 10) ** 2 + (x - 10) ** 2) < 4] = 3
    votes[5:7, 30:32, 30:32] = 2
    nodules, excluded = readers_nodules(votes, Volume(np.zeros(votes.shape, np.int16), (1.0, 1.0, 1.0)))
    assert nodules[0].centre_mm == (10, 10, 6)
    assert nodules[0].diameter_mm == pytest.approx(8, abs=0.5)
    assert [p.centre_mm for p in excluded] == [(30.5, 30.5, 5.5)]


def test_the_nearer_tree_is_seen_and_the_head_is_at_the_top() -> None:
    front, behind = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    front[6:9, 1:4, 4:7] = True
    behind[1:9, 6:9, 4:7] = True
    picture = render([(behind, (0.0, 0.0, 1.0)), (front, FOUND)], (0.8, 0.8, 0.8))
    assert picture[2, 5, 0] > 0.3  # where both are, the one in front
    assert picture[7, 5, 0] == 0
    assert picture[7, 5, 2] > 0.1
    assert not picture[:, 0].any()
