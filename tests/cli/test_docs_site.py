"""The web site of the documentation: complete, the same links as on GitHub, nothing from other hosts."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hooks
import pytest
import typer
from commands_page import commands_page, parameters
from docs_commands import PAGES, ROOT
from python_page import FURTHER, PUBLIC
from typer.core import TyperGroup

import uhrct
from uhrct.cli.main import COMMANDS, app

#: a build from a folder of pages into another, without torch: docstrings are read from the source
BUILD = """
import logging, sys
sys.modules["torch"] = None
from mkdocs.commands.build import build
from mkdocs.config import load_config
logging.basicConfig(level=logging.WARNING)
config = load_config("mkdocs.yml", docs_dir=sys.argv[1], site_dir=sys.argv[2], strict=True)
config.plugins.on_startup(command="build", dirty=False)
build(config)
"""
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s#]*)(?:#([^)\s]*))?\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs", folder)
    assert built.returncode == 0, built.stderr
    return folder


def build(pages: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BUILD, str(pages), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "limits.md").open("a") as page:
        page.write("[a](nowhere.md) [b](upscale.md#nothing)")
    built = build(tmp_path / "docs", tmp_path / "site")
    assert built.returncode != 0
    assert "nowhere.md" in built.stderr
    assert "#nothing" in built.stderr


def test_every_page_says_that_it_is_for_research(site: Path) -> None:
    pages = [p for p in site.rglob("*.html") if p.name != "404.html"]
    assert {p.stem for p in pages} >= {"index", "commands", "python", *(p.stem for p in PAGES[1:])}
    for page in pages:
        footer = page.read_text().split("<footer", 1)[1]
        assert "Research use only; not a medical device." in footer, page


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for tag in re.findall(r"<(?:script|link|img|iframe|source|object)\b[^>]*>", text):
            assert not re.search(r"""(?:src|href|srcset|data)=["']?(?:https?:)?//""", tag), f"{page.name}: {tag}"
        assert 'class="mermaid"' not in text  # the theme would fetch its library
    for style in site.rglob("*.css"):
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", style.read_text()), style


def test_the_search_works_from_disk(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.js").read_text().removeprefix("var __index = "))
    found = {entry["location"].split("#")[0] for entry in index["docs"] if "gantry" in entry["text"].lower()}
    assert {"pacs.html", "formats.html", "commands.html"} <= found
    assert "assets/iframe-worker.js" in (site / "index.html").read_text()
    assert (site / "assets" / "iframe-worker.js").is_file()


def test_docstrings_are_on_the_site(site: Path) -> None:
    text = (site / "python.html").read_text()
    for name in (*(f"uhrct.{name}" for name in PUBLIC), *(name for names in FURTHER.values() for name in names)):
        assert f'id="{name}"' in text, name
    assert {name for name in uhrct.__all__ if not name.startswith("_")} == {*PUBLIC}


def test_the_reference_has_all_options_of_the_parser() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    functions = [f for panel in COMMANDS.values() for f in panel]
    assert len(functions) == len(group.commands)
    page = commands_page()
    for function in functions:
        name = function.__name__.replace("_", "-")
        of_parser = {p.name: set(p.opts) for p in group.commands[name].params if p.param_type_name == "option"}
        assert {p.name: set(p.options) for p in parameters(function) if p.options} == of_parser
        assert f"### `uhrct {name}`" in page
    assert "| `--scale TEXT` | In-plane factor (2 or 4), or factors ZxYxX (5x1x1 or 5x2x2). Default: 2. |" in page
    assert "| `--quiet`, `-q` | Hide progress and summaries." in page


def test_links_of_the_site_are_made_from_links_of_the_repository() -> None:
    assert doctest.testmod(hooks) == (0, 3)


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_work_on_github(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+?)\s*$", file.read_text(), re.M)
            assert anchor in {slug(title) for title in titles}, f"{page.name}: {target}#{anchor}"
