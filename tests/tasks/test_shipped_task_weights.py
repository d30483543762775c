"""The networks that ship for `uhrct segment` do what their name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.models.folder import TASKS_DIR
from uhrct.tasks.mask_network import MaskNetwork
from uhrct.tasks.nodule_network import NoduleNetwork

pytest.importorskip("monai")


@pytest.mark.parametrize("name", [folder.name for folder in sorted(TASKS_DIR.iterdir())])
def test_every_network_has_what_it_was_made_from(name: str) -> None:
    if name.startswith("nodules"):
        NoduleNetwork.from_pretrained(name)  # checks the sha256 of the weights
    else:
        assert MaskNetwork.from_pretrained(name).config.task in name
    for file in ("train.json", "log.jsonl", "README.md"):
        text = (TASKS_DIR / name / file).read_text()
        assert text
        assert "/tmp" not in text


def test_a_tube_in_the_lung_is_a_vessel_and_the_lung_beside_it_is_none() -> None:
    y, x = np.mgrid[:64, :64]
    lung = -860 + 20 * np.random.default_rng(0).standard_normal((32, 64, 64))
    tube = np.broadcast_to(np.hypot(y - 32, x - 32) < 3, lung.shape)
    probability = MaskNetwork.from_pretrained("vessels").probability(np.where(tube, 40.0, lung))[8:24]
    assert probability[tube[8:24]].mean() > 0.8
    assert (probability[~np.broadcast_to(np.hypot(y - 32, x - 32) < 6, (16, 64, 64))] > 0.5).mean() < 0.01


@pytest.mark.parametrize("name", ["nodules-small", "nodules-large"])
def test_a_ball_in_the_lung_is_more_like_a_nodule_than_a_tube(name: str) -> None:
    z, y, x = np.mgrid[-16:16, -16:16, -16:16] * 0.8
    noise = 20 * np.random.default_rng(0).standard_normal((2, *z.shape))
    inside = np.stack([np.sqrt(z**2 + y**2 + x**2) < 3, np.hypot(y, x) < 3])
    hu = torch.from_numpy(np.where(inside, 40, -860) + noise).float()[:, None]
    with torch.inference_mode():
        ball, tube = NoduleNetwork.from_pretrained(name)(hu).sigmoid().tolist()
    assert ball > 0.5 > tube


def test_an_unknown_name_lists_what_ships() -> None:
    with pytest.raises(UhrctError, match=r"shipped: .*x2.*vessels"):
        MaskNetwork.from_pretrained("bones")
