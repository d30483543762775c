"""Cost of methods: the published denoiser costs what was published, and the script measures every peer."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from uhrct.benchmark.complexity import count_pass
from uhrct.benchmark.peers.dual_red import DualRed

ROOT = Path(__file__).resolve().parents[2]


def test_dual_red_costs_what_was_published() -> None:
    """4.43 M parameters, each used at nearly every pixel (unpadded convolutions lose a rim)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        inputs = {"0": torch.empty(1, 3, 1024, 1024), "1": torch.empty(1, 1, 1024, 1024)}
        macs, parameters = count_pass(DualRed(), inputs)
    assert parameters == 4_431_432
    assert 0.95 < macs / (parameters * 1024**2) < 1


def test_both_streams_of_dual_red_reach_both_outputs() -> None:
    torch.manual_seed(0)
    net = DualRed(width=8).eval()
    image, structure = torch.randn(1, 3, 24, 32), torch.randn(1, 1, 24, 32)
    before = net(image, structure)
    assert [b.shape for b in before] == [(1, 1, 24, 32)] * 2
    for other in (net(image + 1, structure), net(image, structure + 1)):
        assert all(not torch.allclose(a, b) for a, b in zip(before, other, strict=True))


def test_the_script_measures_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "cost.json"
    small = ["--side", "16", "--repeats", "1", "--scales", "2", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["peers_cost.py", *small])
    runpy.run_path(str(ROOT / "benchmarks" / "peers_cost.py"), run_name="__main__")
    rows = json.loads(out.read_text())["protocols"]["x2"]
    steps = {"ours, 4-step sample": 5, "SR3, 100 steps": 100, "ResShift, 15 steps": 15, "ResShift, 4 steps": 4}
    committed = json.loads((ROOT / "results" / "peers_cost.json").read_text())["protocols"]["x2"]
    assert rows.keys() == committed.keys()
    for name, row in rows.items():
        assert row.keys() == committed[name].keys()
        assert row["passes"] == steps.get(name, 100 if name.startswith("dual-RED") else 1)
        if not name.startswith("ours"):  # shipped weights may be newer than the measurement
            assert row["parameters"] == committed[name]["parameters"]
        assert row["restoration_to_ours"] == row["restoration_s"] / rows["ours, mean"]["restoration_s"]
