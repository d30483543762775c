"""Arguments: what counts as a number, and one clean line for everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uhrct.core.arguments import choice, number, scale_factors, whole
from uhrct.core.errors import UhrctError


@pytest.mark.parametrize(
    ("given", "factors"),
    [
        (2, (1, 2, 2)),
        (2.0, (1, 2, 2)),
        ("2", (1, 2, 2)),
        ("x4", (1, 4, 4)),
        (np.int64(4), (1, 4, 4)),
        ("5x1x1", (5, 1, 1)),
        ((5, 2, 2), (5, 2, 2)),
        ([5.0, np.int8(2), 2], (5, 2, 2)),
        (np.array([5, 1, 1]), (5, 1, 1)),
    ],
)
def test_scales(given: Any, factors: tuple[int, int, int]) -> None:
    found = scale_factors("scale", given)
    assert found == factors
    assert all(type(f) is int for f in found)


@pytest.mark.parametrize(
    "given",
    ["two", "", "2x2", 0, -2, 2.5, True, None, (2, 2), (1, 2, 2, 2), 17, float("nan"), {"a": 1}, "1e9x1x1", b"2"],
)
def test_impossible_scales_name_the_argument(given: Any) -> None:
    with pytest.raises(UhrctError, match=r"^`scale` is .*give a whole number") as caught:
        scale_factors("scale", given)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("given", ["3", None, float("inf"), float("nan"), True, 1j, -0.1, 10.1, [1.0]])
def test_impossible_numbers(given: Any) -> None:
    with pytest.raises(UhrctError, match=r"`noise_hu` is .*; give a number from 0 to 10"):
        number("noise_hu", given, 0, 10)


@pytest.mark.parametrize("given", ["a", 2.5, None, True, 0, np.float32(0.5)])
def test_impossible_whole_numbers(given: Any) -> None:
    with pytest.raises(UhrctError, match=r"`steps` is .*; give a whole number from 1"):
        whole("steps", given, 1)


def test_numbers_become_plain() -> None:
    assert type(number("x", np.float32(1.5))) is float
    assert type(whole("x", np.uint8(3))) is int


def test_messages_hold_no_escape_sequences() -> None:
    with pytest.raises(UhrctError) as caught:
        choice("kind", "\x1b[31mred\n" * 50, ("scanner",))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 150
