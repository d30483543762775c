"""Checked arguments: a public function says which argument is impossible, and what to give instead.

Numbers of numpy count as numbers. A message names the argument in backticks; the command line shows its option there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError

#: largest factor per axis that a scale may ask for
LARGEST_FACTOR = 16


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a finite float from `low` to `high`.

    Example
    -------
    >>> number("noise_hu", 3, 0), number("noise_hu", "a", 0)
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: `noise_hu` is 'a'; give a number from 0
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        plain = float(value)
        if math.isfinite(plain) and low <= plain <= high:
            return plain
    raise UhrctError(f"`{name}` is {shown(value)}; give a number{_range(low, high)}")


def whole(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> int:
    """`value` as an int from `low` to `high`; 2.0 is one, 2.5 and True are not.

    Example
    -------
    >>> import numpy as np
    >>> whole("steps", np.int64(4), 1), whole("steps", 4.0, 1)
    (4, 4)
    """
    is_whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if is_whole and not isinstance(value, bool) and low <= value <= high:
        return int(value)
    raise UhrctError(f"`{name}` is {shown(value)}; give a whole number{_range(low, high)}")


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, if it is one of the words `choices`."""
    if isinstance(value, str) and value in choices:
        return str(value)
    raise UhrctError(f"`{name}` is {shown(value)}; choose from {', '.join(choices)}")


def path(name: str, value: Any) -> Path:
    """`value` as a path, if it is text or a path."""
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(value.__fspath__(), str)):
        return Path(value)
    raise UhrctError(f"`{name}` is {shown(value)}; give a path, as text or pathlib.Path")


def scale_factors(name: str, value: Any) -> tuple[int, int, int]:
    """A scale as factors (z, y, x): 2 and "x2" are in plane, (5, 1, 1) and "5x1x1" are per axis.

    Example
    -------
    >>> scale_factors("scale", 2.0), scale_factors("scale", "5x1x1")
    ((1, 2, 2), (5, 1, 1))
    """
    given = value
    if isinstance(value, str):
        try:
            value = [int(word) for word in value.lower().removeprefix("x").split("x")]
        except ValueError:
            value = []
    parts = list(value) if isinstance(value, Sequence) or bool(getattr(value, "shape", None)) else [value]
    if len(parts) in (1, 3):
        try:
            factors = [whole(name, part, 1, LARGEST_FACTOR) for part in parts]
        except UhrctError:
            factors = []
        if factors:
            return (1, factors[0], factors[0]) if len(factors) == 1 else (factors[0], factors[1], factors[2])
    raise UhrctError(
        f"`{name}` is {shown(given)}; give a whole number from 1 to {LARGEST_FACTOR}, such as 2, or factors ZxYxX, "
        "such as 5x1x1"
    )


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    return f" from {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"


def shown(value: Any) -> str:
    """The value as it may be printed: short, in one line, without escape sequences."""
    text = ascii(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else f"{text[:57]}..."
