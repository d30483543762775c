"""The summary of a benchmark, and documents that show the committed results."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from uhrct.benchmark.results import read_results
from uhrct.benchmark.summary import summary

ROOT = Path(__file__).parents[2]


def row(method: str, case: str, z: int, **values: Any) -> dict[str, Any]:
    place = {"protocol": "x2", "degradation": "scanner", "case": f"test/{case}", "slice": z, "seconds": 1.0}
    return {"method": method, "identity": method, **place, "values": values}


def test_means_by_hand(tmp_path: Path) -> None:
    methods = [{"name": m, "identity": m, "protocol": "x2"} for m in ("plain", "good", "slow")]
    rows = [
        row("plain", "a", 0, psnr_wide=30.0, broken_mm=4.0, invented_mm=1.0, smse_frangi=2e-4),
        row("plain", "a", 1, psnr_wide=31.0, broken_mm=None, invented_mm=None, smse_frangi=4e-4),
        row("good", "a", 0, psnr_wide=33.0, broken_mm=1.0, invented_mm=1.0, smse_frangi=1e-4),
        row("good", "a", 1, psnr_wide=34.0, broken_mm=3.0, invented_mm=1.0, smse_frangi=1e-4),
        row("slow", "a", 0, psnr_wide=50.0),
        row("gone", "a", 0, psnr_wide=60.0),  # of an earlier run
        row("good", "b", 0, psnr_wide=20.0),
    ]
    lines = [{"run": {"methods": methods, "constants": {}}}, *rows]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = summary(read_results(tmp_path / "r.jsonl"))
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if " | " in line}
    assert cells["plain"][1:7] == ["30.50", "-", "-", "0.300", "-", "5.0"]
    assert cells["good"][1:8] == ["**33.50**", "-", "-", "**0.100**", "-", "**3.0**", "**20.00**"]
    assert cells["slow (1 slice)"][1] == "50.00"  # the best of fewer slices is not bold
    assert "gone" not in text


@pytest.mark.parametrize("name", ["benchmark", "benchmark-through-plane"])
def test_the_committed_summary_is_that_of_the_committed_rows(name: str) -> None:
    """After a new benchmark: uhrct benchmark configs/NAME.yaml --report results/NAME."""
    text = summary(read_results(ROOT / "results" / f"{name}.jsonl"))
    assert (ROOT / "results" / name / "summary.md").read_text() == text


def test_the_document_shows_the_committed_results() -> None:
    """After a new benchmark: python benchmarks/docs_tables.py docs/benchmark.md."""
    text = (ROOT / "docs" / "benchmark.md").read_text()
    assert text.count("<!-- from ") == 2
    assert runpy.run_path(str(ROOT / "benchmarks" / "docs_tables.py"))["filled"](text, ROOT) == text
