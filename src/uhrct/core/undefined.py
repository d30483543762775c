"""A metric without a value raises an exception that says why. It never returns NaN, which a mean would hide."""

from __future__ import annotations

from typing import NoReturn

from uhrct.core.errors import UhrctError


class Undefined(UhrctError):
    """The images are fine, but this metric has no value on them; the message says why."""


def undefined(reason: str) -> NoReturn:
    """Raise `Undefined`, where an expression is wanted."""
    raise Undefined(reason)
