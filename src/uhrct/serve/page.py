"""The page: its parts are a fixed list of files of this package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from uhrct.core.purpose import NOTE

#: Parts of the page: name in a request -> media type.
PARTS = {"serve.css": "text/css", "serve.js": "text/javascript", "upload.js": "text/javascript"}


@cache
def part(name: str) -> bytes:
    """The bytes of a part of the page, by its name in `PARTS`. Files are read once."""
    return files("uhrct.serve").joinpath("static", name).read_bytes()


@cache
def page() -> str:
    """The page itself."""
    return part("serve.html").decode().replace("[[note]]", NOTE)
