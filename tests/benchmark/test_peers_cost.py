"""The table of costs: every peer is in it, ratios and multiples are what they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from uhrct.benchmark.complexity import count_pass
from uhrct.benchmark.peers.dual_red import DualRed

ROOT = Path(__file__).resolve().parents[2]


def test_dual_red_costs_what_was_published() -> None:
    """4.43 M parameters; at full size each is used at nearly every pixel (unpadded convolutions lose a rim)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        macs, parameters = count_pass(
            DualRed(), {"0": torch.empty(1, 3, 1024, 1024), "1": torch.empty(1, 1, 1024, 1024)}
        )
    assert parameters == 4_431_432
    assert 0.95 < macs / (parameters * 1024**2) < 1


def test_both_streams_of_dual_red_reach_both_answers() -> None:
    torch.manual_seed(0)
    net = DualRed(width=8).eval()
    image, structure = torch.randn(1, 3, 24, 32), torch.randn(1, 1, 24, 32)
    before = net(image, structure)
    assert [b.shape for b in before] == [(1, 1, 24, 32)] * 2
    for other in (net(image + 1, structure), net(image, structure + 1)):
        assert all(not torch.allclose(a, b) for a, b in zip(before, other, strict=True))


@pytest.fixture(scope="module")
def cost(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("cost") / "cost.json"
    small = ["--side", "16", "--repeats", "1", "--scales", "2", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "benchmarks/peers_cost.py", *small], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())["protocols"]["x2"]


def test_every_peer_is_in_the_table(cost: dict[str, dict[str, Any]]) -> None:
    passes = {name: row["passes"] for name, row in cost.items()}
    assert passes == {
        "ours, mean": 1,
        "ours, 4-step sample": 5,
        "SRCNN": 1,
        "SRResNet": 1,
        "RCAN, light": 1,
        "CycleGAN (GAN-CIRCLE)": 1,
        "SR3, 100 steps": 100,
        "ResShift, 15 steps": 15,
        "ResShift, 4 steps": 4,
        "dual-RED, 100 steps": 100,
    }


def test_ratios_and_multiples(cost: dict[str, dict[str, Any]]) -> None:
    ours = cost["ours, mean"]
    for name, row in cost.items():
        assert row["pass_to_ours"] == pytest.approx(row["pass_s"] / ours["pass_s"])
        assert row["restoration_to_ours"] == pytest.approx(row["restoration_s"] / ours["restoration_s"])
        if row["restoration_is"] == "measured":
            assert row["all_restoration_s"] == [row["restoration_s"]]
        else:
            assert row["restoration_is"] == f"{row['passes']} passes", name
            assert row["restoration_s"] == pytest.approx(row["passes"] * row["pass_s"])
