"""Families of chests for training and test do not overlap."""

import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.phantom.families import RANGES, Draw


def test_ranges_do_not_touch() -> None:
    for name, (low, high) in RANGES["train"].items():
        other_low, other_high = RANGES["test"][name]
        assert high < other_low or other_high < low, name


def test_draws_lie_in_their_range_and_streams_differ() -> None:
    seen = set()
    for family in RANGES:
        for seed in range(5):
            draw = Draw(family, seed)
            for name, (low, high) in RANGES[family].items():
                assert low <= draw[name] <= high
            for stream in ("anatomy", "nodules"):
                seen.add(draw.stream(stream).integers(2**62))
    assert len(seen) == 2 * 5 * 2
    assert np.array_equal(Draw("train", 3).stream("a").random(4), Draw("train", 3).stream("a").random(4))


def test_unknown_family_and_seed_are_refused() -> None:
    with pytest.raises(UhrctError, match="choose from train, test"):
        Draw("validation", 0)
    with pytest.raises(UhrctError, match="`seed` -1"):
        Draw("train", -1)
