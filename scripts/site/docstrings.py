"""How mkdocstrings reads our docstrings: the section "Example" is what numpydoc calls "Examples"."""

from __future__ import annotations

from typing import Any

import griffe


class OneExample(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("Example\n-------\n", "Examples\n--------\n")
