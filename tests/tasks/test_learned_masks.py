"""Masks by a network: inside the lungs, one tree of air, and a description that names the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from chest_case import chest
from scipy import ndimage
from torch import Tensor, nn

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Volume
from uhrct.tasks.learned_masks import learned_mask
from uhrct.tasks.mask_network import MaskNetwork, MaskNetworkConfig
from uhrct.tasks.segment import load_network, report, segment

pytest.importorskip("monai")


class Brighter(nn.Module):
    """Marks what is brighter, or darker, than a value of the network's input, which is -1 to 1 for -1000 to 400 HU."""

    def __init__(self, value: float, sign: int) -> None:
        super().__init__()
        self.sign = sign
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return 50 * self.sign * (x - self.value)


def marker(task: str, hu: float, sign: int) -> MaskNetwork:
    network = MaskNetwork(MaskNetworkConfig(task=task, width=1))
    network.network = Brighter((hu + 1000) / 700 - 1, sign)
    network.name, network.weights_sha256 = "threshold", "0123456789abcdef"
    return network


def test_vessels_lie_inside_the_lungs() -> None:
    case = chest()
    mask = learned_mask(case.volume, marker("vessels", -400, 1))
    assert mask.any()
    lungs = segment(case.volume, "lungs").labels > 0
    assert not (mask & ~lungs).any()  # although the body is as bright
    assert (mask & case.vessels).sum() > 0.7 * case.vessels.sum()


def test_the_network_sees_axial_slices_whatever_the_order_of_the_axes_is() -> None:
    case = chest()
    network, seen = marker("vessels", -400, 1), []
    network.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    axial = learned_mask(case.volume, network)
    first, seen = seen, []
    z, y, x = case.volume.spacing_mm
    hu, direction = np.ascontiguousarray(case.volume.hu.transpose(2, 0, 1)), case.volume.direction[:, [2, 0, 1]]
    turned = learned_mask(Volume(hu, (x, z, y), direction=direction), network)
    assert np.array_equal(turned, axial.transpose(2, 0, 1))
    assert len(first) > 0
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))


def test_airways_are_one_tree() -> None:
    case = chest()
    hu = case.volume.hu.copy()
    hu[2:6, 50:54, 30:34] = -1000  # a bubble of air in a lung
    assert (case.lungs & ~case.airways)[2:6, 50:54, 30:34].any()
    mask = learned_mask(Volume(hu, case.volume.spacing_mm), marker("airways", -930, -1))
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
    assert not mask[2:6, 50:54, 30:34].any()


def test_the_result_says_which_weights_were_used() -> None:
    case = chest()
    found = segment(case.volume, "vessels", network=marker("vessels", -400, 1))
    written = report(found, case.volume, 1.0)
    assert (written["weights"], written["weights_sha256"]) == ("threshold", "0123456789abcdef")
    assert "threshold" in found.method
    assert "threshold 0123456789ab" in found.segments[0].algorithm
    classical = segment(case.volume, "lungs")
    assert report(classical, case.volume, 1.0)["weights"] is None
    assert classical.method == "without a network"


def test_a_scan_in_which_the_network_marks_nothing_is_refused() -> None:
    with pytest.raises(InputRefused, match="no vessels found by the network threshold"):
        segment(chest().volume, "vessels", network=marker("vessels", 900, 1))


def test_wrong_weights_give_one_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    MaskNetwork(MaskNetworkConfig(task="airways", width=1)).save_pretrained(tmp_path / "air")
    assert load_network(tmp_path / "air", "airways").name == "air"
    with pytest.raises(UhrctError, match="air: this network marks airways; give one that marks vessels"):
        load_network(tmp_path / "air", "vessels")
    with pytest.raises(UhrctError, match="x2: holds no mask network"):
        load_network("x2", "vessels")
    with pytest.raises(UhrctError, match="no such weights"):
        load_network(tmp_path / "none", "vessels")
