"""Quality "fast": small networks of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.models.choice import fast_weights, served_scales
from uhrct.models.model import Model
from uhrct.upscaling.upscaler import Upscaler

SCAN = Volume(np.full((3, 16, 16), -1000, np.int16), (2.0, 1.4, 1.4))


@pytest.mark.parametrize("scale", [(1, 2, 2), (1, 4, 4)])
def test_fast_networks_are_a_quarter_and_serve_the_same_scale(scale: tuple[int, int, int]) -> None:
    fast, standard = (Upscaler(scale=scale, quality=q).plan(SCAN).model for q in ("fast", "standard"))
    assert fast.weights_name == fast_weights(scale)
    assert fast.config.scale == standard.config.scale == scale
    sizes = [sum(p.numel() for p in m.mean.parameters()) for m in (fast, standard) if m.mean is not None]
    assert sizes[0] < 0.3 * sizes[1]
    assert Upscaler(scale=scale, quality="fast")(SCAN).volume.shape == (3, 16 * scale[1], 16 * scale[2])


def test_fast_networks_are_chosen_only_when_asked_for() -> None:
    assert not any(folder.name.endswith("-fast") for folder in served_scales())
    assert all(folder.name.endswith("-fast") for folder in served_scales(fast=True))
    assert Upscaler(target_spacing_mm=0.7, quality="fast").plan(SCAN).model.weights_name == "x2-fast"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": "5x1x1"}, "no fast weights serve scale 5x1x1"),
        ({"weights": "x2"}, "chooses the weights itself"),
        ({"steps": 4}, "cannot draw samples"),
        ({"interval": True}, "no interval network"),
    ],
)
def test_what_fast_networks_cannot_do_is_one_line(settings: dict, words: str) -> None:
    with pytest.raises(UhrctError, match=words):
        Upscaler(quality="fast", **settings).plan(SCAN)


def test_a_network_without_structure_stream_needs_no_structure_map() -> None:
    model = Model.from_pretrained(fast_weights((1, 4, 4)))
    features = model.features(torch.full((1, 3, 8, 8), -900.0), (1.4, 1.4))
    assert features.prior is None
