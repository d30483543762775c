"""When a metric has no value: said in words, never a NaN that a mean swallows."""

from __future__ import annotations

from uhrct.errors import UhrctError


class Undefined(UhrctError):
    """The images are fine, but this metric has no value on them; the message says why."""
