"""The page: served in parts, or as one file that opens from disk without a network."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from importlib.resources import files

from uhrct.core.errors import UhrctError
from uhrct.core.purpose import NOTE
from uhrct.viewer.mesh import mz3_bytes
from uhrct.viewer.study import Study, View

#: Larger files make browsers slow, or are not opened at all.
MOST_BYTES = 250_000_000
#: What a page in one file may do: run its own scripts, and reach nothing outside of it.
FILE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src data: blob:; base-uri 'none'; form-action 'none'"
)
#: What a served page may do: load its own parts.
SERVED_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Parts of the page: name in a request -> (file of this package, media type).
PARTS = {
    "view.css": ("view.css", "text/css"),
    "view.js": ("view.js", "text/javascript"),
    "panes.js": ("panes.js", "text/javascript"),
    "niivue.js": ("niivue.umd.js", "text/javascript"),
    "licences.txt": ("licences.txt", "text/plain"),
}
SCRIPTS = ("niivue.js", "panes.js", "view.js")


@cache
def part(name: str) -> bytes:
    """The bytes of a part of the page, by its name in `PARTS`. Files are read once."""
    return files("uhrct.viewer").joinpath("static", PARTS[name][0]).read_bytes()


def served_page() -> str:
    """The page that loads its parts and volumes from the server."""
    scripts = "".join(f'<script src="{name}"></script>\n' for name in SCRIPTS)
    return _filled("", '<link rel="stylesheet" href="view.css">', scripts)


def page_in_one_file(study: Study, view: View) -> str:
    """The page with scripts, voxels and surface inside.

    Raises
    ------
    UhrctError
        If the file would be larger than a browser opens.
    """
    data = {f"image-{k}": study.image(k, view) for k in range(len(study.panes))}
    data |= {f"overlay-{k}": study.overlay(k, view) for k in range(len(study.overlays))}
    if study.mesh is not None:
        data["mesh"] = mz3_bytes(study.mesh)
    packed = {name: base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode() for name, raw in data.items()}
    size = sum(map(len, packed.values()))
    if size > MOST_BYTES:
        raise UhrctError(
            f"the page would have {size / 1e6:.0f} MB, of at most {MOST_BYTES / 1e6:.0f} MB; give a smaller `box`"
        )
    inside = [_data("view", "application/json", json.dumps(study.describe(view)).replace("<", "\\u003c"))]
    inside += [_data(name, "application/octet-stream", text) for name, text in packed.items()]
    licences = part("licences.txt").decode().replace("--", "- -")  # two hyphens end a comment in old browsers
    scripts = [f"<!--\n{licences}\n-->"] + [f"<script>{_script(name)}</script>" for name in SCRIPTS]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{FILE_POLICY}">'
    return _filled(policy, f"<style>{part('view.css').decode()}</style>", "\n".join(inside + scripts))


def _data(name: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _script(name: str) -> str:
    """A script that cannot end the element that it stands in."""
    text = part(name).decode()
    if "</script" in text.lower() or "<!--" in text:
        raise AssertionError(f"{name} would end its own element")
    return text


def _filled(policy: str, style: str, scripts: str) -> str:
    text = files("uhrct.viewer").joinpath("static", "view.html").read_text("utf-8")
    for name, value in (("policy", policy), ("style", style), ("note", NOTE), ("scripts", scripts)):
        text = text.replace(f"[[{name}]]", value, 1)
    return text
