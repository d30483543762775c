"""Committed numbers: equal numbers pass, every changed number is found and named."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uhrct import io
from uhrct.benchmark.check import TOLERANCES, disagreements, tolerance
from uhrct.benchmark.config import load_benchmark
from uhrct.benchmark.results import Results, read_results
from uhrct.benchmark.runner import Benchmark
from uhrct.core.volume import Volume
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.measures import MEASURES
from uhrct.evaluation.slab import SLAB_MEASURES

ROOT = Path(__file__).resolve().parents[2]


def made_up(**values: Any) -> Results:
    """One slice by two methods; `values` are of the second."""
    methods = [{"name": n, "identity": n, "protocol": "x2", "weights_sha256": f"{n}-weights"} for n in "ab"]
    run = {"methods": methods, "cases": [{"case": "c", "sha256": "1"}], "constants": {"k": 1}}
    place = {"protocol": "x2", "degradation": "scanner", "case": "c", "slice": 7}
    numbers = {"psnr_wide": 40.0, "cldice_25": 0.9, "broken_mm": 100.0, "cldice_50": None}
    rows = [{"method": n, "identity": n, "values": numbers, **place} for n in "ab"]
    rows[1] = rows[1] | {"values": numbers | values}
    return Results(Path("committed.jsonl"), [run], rows)


def test_every_metric_has_a_tolerance() -> None:
    for metric in MEASURES | SLAB_MEASURES:
        assert 0 < tolerance(metric, 1.0) < 2.5
    assert all(any(m.startswith(k) for m in MEASURES | SLAB_MEASURES) for k in TOLERANCES)


@pytest.mark.parametrize(
    ("metric", "value", "line"),
    [
        ("psnr_wide", 40.009, ""),
        ("psnr_wide", 40.011, "psnr_wide is 40.011, committed 40 (tolerance 0.01)"),
        ("psnr_wide", None, "psnr_wide is undefined, committed 40"),
        ("cldice_25", 0.881, ""),
        ("cldice_25", 0.879, "cldice_25 is 0.879, committed 0.9 (tolerance 0.02)"),
        ("broken_mm", 104.0, ""),  # 5 % is more than 2 mm
        ("broken_mm", 106.0, "broken_mm is 106, committed 100 (tolerance 5)"),
        ("cldice_50", 0.5, "cldice_50 is 0.5, committed undefined"),
    ],
)
def test_every_difference_is_named(metric: str, value: float | None, line: str) -> None:
    expected = [f"x2, scanner, c, slice 7, b: {line}"] if line else []
    assert disagreements(made_up(), made_up(**{metric: value})) == expected


def test_rows_that_are_missing_are_named() -> None:
    whole, half = made_up(), made_up()
    half.rows.pop()
    assert disagreements(whole, half) == ["x2, scanner, c, slice 7, b: not measured"]
    assert disagreements(half, whole) == ["x2, scanner, c, slice 7, b: not among the committed numbers"]
    assert disagreements(Results(Path("none.jsonl")), whole) == ["none.jsonl: no committed numbers"]


def test_volumes_are_compared_too() -> None:
    a, b = made_up(), made_up()
    for results, flicker in ((a, 1.0), (b, 1.1)):
        row = {k: v for k, v in results.rows[0].items() if k != "slice"}
        results.slabs.append(row | {"slab": (3, 9), "values": {"flicker": flicker}})
    assert disagreements(a, b) == ["x2, scanner, c, slices 3 to 8, a: flicker is 1.1, committed 1 (tolerance 0.005)"]


def test_other_weights_cases_and_constants_are_named_once() -> None:
    other = made_up(psnr_wide=30.0)
    other.runs[-1]["methods"][1]["weights_sha256"] = "new"
    assert disagreements(made_up(), other) == ["x2, b: the committed numbers are of other weights (b-weights)"]
    for what in ("cases", "constants"):
        other.runs[-1][what] = []
        assert disagreements(made_up(), other) == [f"the {what} are not those of the committed numbers"]


SMALL = """
data: {root}
out: {root}/committed.jsonl
cases: [a.nii.gz]
protocols: {{x2: [1, 2, 2]}}
degradations: [scanner]
slices: 1
methods:
  bicubic: {{kind: bicubic}}
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It makes the committed numbers, finds them again, and ends with 1 where one was changed."""
    hu = np.random.default_rng(0).normal(-500, 50, (2, 32, 32)).astype(np.int16)
    io.write(Volume(hu, (1.0, 0.7, 0.7)), tmp_path / "a.nii.gz")
    config, committed = tmp_path / "small.yaml", tmp_path / "committed.jsonl"
    config.write_text(SMALL.format(root=tmp_path))

    def command(*options: str) -> None:
        monkeypatch.setattr("sys.argv", ["small.py", "--config", str(config), *options])
        runpy.run_path(str(ROOT / "benchmarks/small.py"), run_name="__main__")

    with pytest.raises(SystemExit, match="disagrees in 1 places"):
        command()
    assert f"{committed}: no committed numbers" in capsys.readouterr().out
    command("--refresh")
    assert {f.name for f in tmp_path.iterdir()} == {"a.nii.gz", "small.yaml", "committed.jsonl"}
    command()
    assert "1 rows agree" in capsys.readouterr().out
    *before, row = committed.read_text().splitlines()
    changed = json.loads(row)
    changed["values"]["mae_hu"] += 1
    committed.write_text("\n".join([*before, json.dumps(changed)]) + "\n")
    with pytest.raises(SystemExit, match="disagrees in 1 places"):
        command()
    assert "x2, scanner, a.nii.gz, slice 0, bicubic: mae_hu is " in capsys.readouterr().out
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(SystemExit, match=r"error: .*no such case"):
        command()


@pytest.fixture(scope="module")
def again(shared_ct: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results]:
    """(committed, measured): one slice of validation/rider0117 by x4, bicubic and our mean."""
    config = load_benchmark(ROOT / "configs/benchmark-small.yaml")
    case, names = "validation/rider0117", ("bicubic", "ours, mean")
    committed = read_results(ROOT / config.out)
    slices = sorted(committed.of("x4", "scanner", case)["bicubic"])
    one = Benchmark(
        replace(
            config,
            data=shared_ct,
            out=tmp_path_factory.mktemp("small") / "small.jsonl",
            cases=(case,),
            protocols=(("x4", (1, 4, 4)),),
            degradations=("scanner",),
            methods=tuple(m for m in config.methods if m.name in names),
            slices=1,
        ),
        quiet=True,
    )

    def of_first_slice(hu: np.ndarray, spacing_mm: tuple[float, ...], **_: object) -> np.ndarray:
        """The mask of the slice that is measured: that of the whole scan takes much longer."""
        mask = np.zeros(hu.shape, bool)
        mask[:1] = lung_mask(hu[:1], spacing_mm)
        return mask

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uhrct.benchmark.runner.lung_mask", of_first_slice)
        measured = one.run()
    assert measured.rows[0]["slice"] == slices[0] == 0
    run = committed.runs[-1]
    current = {(m["name"], m["protocol"]) for m in measured.runs[-1]["methods"]}
    run["methods"] = [m for m in run["methods"] if (m["name"], m["protocol"]) in current]
    run["cases"] = [c for c in run["cases"] if c["case"] == case]
    kept = {(r["method"], r["slice"]) for r in measured.rows}
    place = ("x4", "scanner", case)
    committed.rows = [
        r
        for r in committed.rows
        if (r["protocol"], r["degradation"], r["case"]) == place and (r["method"], r["slice"]) in kept
    ]
    return committed, measured


def test_committed_numbers_come_again_and_a_changed_one_is_found(again: tuple[Results, Results]) -> None:
    committed, measured = again
    assert len(measured.rows) == 2
    assert disagreements(committed, measured) == [], "after weights changed: make benchmark-small-refresh"
    for row in committed.rows:
        for metric, value in row["values"].items():
            if value is None:
                continue
            row["values"][metric] = value + 2.5 * tolerance(metric, value)
            [line] = disagreements(committed, measured)
            assert f"{row['method']}: {metric} is " in line
            row["values"][metric] = value
