"""What mkdocs does besides: pages that are generated, files from outside of docs/, links that work on both sides.

The Markdown files are written for GitHub, and their links are those between files of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from commands_page import commands_page
from mkdocs.structure.files import File, Files
from python_page import python_page

ROOT = Path(__file__).parents[2]

LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")
#: pages outside of docs/
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def linked_files() -> list[str]:
    """The files outside of docs/ to which pages link."""
    found: list[str] = []
    for page in (*(ROOT / name for name in PAGES), *sorted((ROOT / "docs").glob("*.md"))):
        folder = page.parent.relative_to(ROOT).as_posix()
        targets = [posixpath.normpath(posixpath.join(folder, m[2])) for m in LINK.finditer(page.read_text("utf-8"))]
        found += [t for t in targets if not t.startswith("docs/") and (ROOT / t).is_file()]
    return sorted({*found} - {*PAGES})


LINKED = linked_files()
#: files of the repository outside of docs/ -> where they are on the site
OUTSIDE = {**{path: path for path in (*PAGES, *LINKED)}, "README.md": "index.md"}
#: reached by links of a page, not by the menu
NOT_IN_MENU = tuple(path for path in LINKED if path.startswith(("results/", "deploy/")))
GENERATED = {"commands.md": commands_page, "python.md": python_page}
ASSETS = ("iframe-worker.js", "site.css")

FENCE = re.compile(r"^\s*(```|~~~)")
ITEM = re.compile(r"^([-*]|\d+\.) ")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the files from outside of docs/."""
    for path, page in GENERATED.items():
        files.append(File.generated(config, path, content=page()))
    for path, place in OUTSIDE.items():
        inclusion = {"inclusion": _not_in_menu()} if path in NOT_IN_MENU else {}
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path), **inclusion))
    for asset in ASSETS:
        files.append(File.generated(config, f"assets/{asset}", abs_src_path=str(Path(__file__).with_name(asset))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    place = page.file.src_uri
    return space_before_lists(site_links(markdown, repository_path(place), place))


def _not_in_menu() -> Any:
    from mkdocs.structure.files import InclusionLevel

    return InclusionLevel.NOT_IN_NAV


def repository_path(place: str) -> str:
    """Where a page of the site is in the repository."""
    return {there: path for path, there in OUTSIDE.items()}.get(place, f"docs/{place}")


def site_links(markdown: str, path: str, place: str) -> str:
    """The text of the file `path` with links between files of the repository changed into those of the site.

    Example
    -------
    >>> site_links("[a](../CONTRIBUTING.md) [b](upscale.md#scale)", "docs/data.md", "data.md")
    '[a](CONTRIBUTING.md) [b](upscale.md#scale)'
    >>> site_links("![p](docs/images/x4.png)", "README.md", "index.md")
    '![p](images/x4.png)'
    """

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[2]))
        there = target.removeprefix("docs/") if target.startswith("docs/") else OUTSIDE.get(target)
        return match[0] if there is None else match[1] + posixpath.relpath(there, posixpath.dirname(place) or ".")

    return LINK.sub(link, markdown)


def space_before_lists(markdown: str) -> str:
    """GitHub needs no empty line between a paragraph and a list; mkdocs does.

    Example
    -------
    >>> space_before_lists("Limits:\\n- one\\n- two")
    'Limits:\\n\\n- one\\n- two'
    """
    lines: list[str] = []
    inside = fenced = False
    for line in markdown.split("\n"):
        if FENCE.match(line):
            fenced = not fenced
        starts = bool(ITEM.match(line)) and not fenced
        if starts and not inside and lines and lines[-1].strip():
            lines.append("")
        inside = starts or (inside and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines)
