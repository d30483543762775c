"""Reads YAML as people mean it: 8e-4 is a number, and a key that is given twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from uhrct.core.errors import UhrctError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 wants a point in 8e-4 and makes a word of it, and of two equal keys the last one wins silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise UhrctError(f"{key.value} is given twice (line {key.start_mark.line + 1})")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parsed_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises
    ------
    UhrctError
        If a key is given twice.
    yaml.YAMLError, RecursionError
        If it is no YAML.

    Example
    -------
    >>> parsed_yaml("rate: 8e-4")
    {'rate': 0.0008}
    >>> parsed_yaml("rate: 1\\nrate: 2")
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: rate is given twice (line 2)
    """
    return yaml.load(text, _Loader)
