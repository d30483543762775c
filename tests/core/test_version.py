"""The version is defined once."""

from pathlib import Path

import yaml

import uhrct

ROOT = Path(__file__).parents[2]


def test_a_release_has_the_version_of_citation_and_changelog_and_work_on_the_next_is_unreleased() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{cited}]" in changes
    if ".dev" in uhrct.__version__:
        assert "## [Unreleased]" in changes
        assert uhrct.__version__ > cited
    else:
        assert uhrct.__version__ == cited


def test_the_public_names_are_those_of_the_readme() -> None:
    assert sorted(n for n in dir(uhrct) if not n.startswith("_")) == [
        "InputRefused",
        "NothingToDo",
        "UhrctError",
        "Upscaler",
        "Volume",
        "read",
        "upscale",
        "write",
    ]
    for name in dir(uhrct):
        assert getattr(uhrct, name) is not None


def test_help_shows_the_functions():
    import pydoc

    text = pydoc.render_doc(uhrct, renderer=pydoc.plaintext)
    for name in ("class Volume", "class Upscaler", "read(path", "upscale(image", "write("):
        assert name in text
