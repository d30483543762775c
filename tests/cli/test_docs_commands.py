"""Every command that README and docs/ show is right: parsed by the program itself, and run where that is cheap."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from ct_files import make_series
from docs_commands import PAGES, ROOT, Command, blocks, commands, spans
from pydicom.data import get_testdata_file
from run_cli import Uhrct, done
from typer.core import TyperGroup

from uhrct import io
from uhrct.cli.app import numbers
from uhrct.cli.main import UsageError, app
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
#: words that stand for a value of the reader
STANDS_FOR = {"LOW,HIGH": "-1024,3071"}
#: options that other programs have
FOREIGN = {"--lifetime", "--array"}
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def of_program(page: Path, program: str = "uhrct") -> list[Command]:
    return [c for c in commands(page.read_text()) if c.words[0] == program]


def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """The values of a call of uhrct, checked as the program checks them before it reads a scan."""
    name, *arguments = (STANDS_FOR.get(word, word) for word in words)
    if name not in GROUP.commands:
        raise UhrctError(f"no command {name}")
    values = GROUP.commands[name].make_context(name, arguments).params
    CHECKS.get(name, lambda values: None)(values)
    for key in ("spacing_mm", "shape", "centre_mm", "input_spacing", "target_spacing_mm", "unit_hu"):
        if values.get(key) is not None:
            numbers(values[key], key)
    return values


def check_recipe(values: dict[str, Any]) -> None:
    from uhrct.benchmark.peers.training import PeerTrainingConfig
    from uhrct.models.settings import checked
    from uhrct.tasks.nodule_training import NoduleTraining
    from uhrct.tasks.training import TaskTraining
    from uhrct.training.config import load_recipe, read_settings

    config, overrides = values["config"], values["overrides"]
    settings = read_settings(config, overrides)
    for key, kind in (("peer", PeerTrainingConfig), ("task", TaskTraining), ("nodules", NoduleTraining)):
        if key in settings:
            checked(kind, settings, str(config))
            return
    load_recipe(config, overrides)


def check_benchmark(values: dict[str, Any]) -> None:
    from uhrct.benchmark.config import load_benchmark
    from uhrct.benchmark.tasks.config import load_tasks
    from uhrct.training.config import read_settings

    tasks = "tasks" in read_settings(values["config"])
    (load_tasks if tasks else load_benchmark)(values["config"])


CHECKS = {"train": check_recipe, "train-peer": check_recipe, "benchmark": check_benchmark}


def test_the_collector_finds_what_it_should() -> None:
    text = (
        "Text\n\n    uhrct info a \\\n        --json b   # no\n\n```bash\nuhrct models\n```\n```python\nread()\n```\n"
    )
    assert [c.words for c in commands(text)] == [("uhrct", "info", "a", "--json", "b"), ("uhrct", "models")]
    assert sum(len(of_program(page)) for page in PAGES) > 90


@pytest.mark.parametrize(
    "wrong",
    [
        "uhrct upscal a b",
        "uhrct upscale a",
        "uhrct upscale a b --denois 1",
        "uhrct upscale a b --quality good",
        "uhrct upscale a b --spacing fine",
        "uhrct train configs/x2.yaml data.bach=8",
        "uhrct train configs/x2.yaml 'stages=[meen]'",
        "uhrct train configs/x3.yaml",
        "uhrct benchmark configs/bench.yaml",
    ],
)
def test_a_wrong_command_would_be_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    [command] = commands(f"    {wrong}")
    with pytest.raises((UsageError, UhrctError)):
        parsed(command.words[1:])


@PAGE
def test_every_command_has_options_and_settings_that_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wrong = []
    for command in of_program(page):
        try:
            parsed(command.words[1:])
        except (UsageError, UhrctError) as error:
            wrong.append(f"{command}: {getattr(error, 'message', None) or error}")
    assert wrong == []


@PAGE
def test_targets_of_make_and_scripts_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in of_program(page, "make"):
        assert {w for w in command.words[1:] if "=" not in w} <= targets, command
    for words in [c.words for c in of_program(page, "python")] + [tuple(s.split()) for s in spans(page.read_text())]:
        if words[:1] == ("python",) and words[1].endswith(".py"):
            source = (ROOT / words[1]).read_text()
            for option in (w for w in words if w.startswith("--")):
                assert f'"{option}"' in source, words


@PAGE
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    """`uhrct upscale --steps` names an option of that command; `--steps` alone one of any command or script."""
    everywhere = {o for c in GROUP.commands.values() for p in c.params for o in p.opts} | {"--help", "--version"}
    scripts = [f for folder in ("benchmarks", "scripts", "tests") for f in (ROOT / folder).rglob("*.py")]
    everywhere |= {o for f in scripts for o in re.findall(r'"(--[a-z-]+)"', f.read_text())}
    for span in spans(page.read_text()):
        words = span.split()
        options = {w for w in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)} - FOREIGN
        if words[:1] == ["uhrct"] and len(words) > 1 and words[1] != "COMMAND" and not words[1].startswith("-"):
            assert words[1] in GROUP.commands, span
            options -= {"--help"}
            assert options <= {o for p in GROUP.commands[words[1]].params for o in p.opts}, span
        else:
            assert options <= everywhere, span


def resolved(name: str) -> object:
    """The module, class or function of a dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, last = name.rpartition(".")
        return getattr(resolved(parent), last)


@PAGE
def test_names_of_python_exist(page: Path) -> None:
    """Names such as `uhrct.io.read` in the text, and what the examples import and call."""
    text = page.read_text()
    found = {m[1] for span in spans(text) if (m := re.fullmatch(r"(uhrct(?:\.[A-Za-z_]\w*)+)(?:\(.*)?", span))}
    for _, language, lines in blocks(text):
        if language == "python":
            for node in ast.walk(ast.parse("\n".join(lines))):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("uhrct"):
                    found |= {f"{node.module}.{each.name}" for each in node.names}
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "uhrct":
                    found.add(f"uhrct.{node.attr}")
    for name in found:
        assert resolved(name) is not None, name


@pytest.fixture
def scans(tmp_path: Path, slice_hu: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small scans by the names that the pages use."""
    fine = Volume(np.stack([np.roll(slice_hu, k, 1)[:80, :64] for k in range(3)]), (2.5, 0.8, 0.8))
    coarse = Volume(np.ascontiguousarray(fine.hu[:, ::2, ::2]), (2.5, 1.6, 1.6), origin_mm=(0.4, 0.4, 0.0))
    for name in ("truth", "fine"):
        io.write(fine, tmp_path / f"{name}.nii.gz")
    for name in ("ct", "thick", "low"):
        io.write(coarse, tmp_path / f"{name}.nii.gz")
    for folder in ("scans/ct", "ct", "study", "path/to/scans/ct"):
        make_series(tmp_path / folder, shape=(3, 40, 32))
    shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: commands that take seconds on small scans; the others have tests of their own
CHEAP = {"upscale", "info", "models", "evaluate", "audit", "degrade"}


def is_cheap(words: tuple[str, ...]) -> bool:
    """Whether a call runs here. Words in capitals stand for files of the reader, ../shared holds whole scans."""
    verb, *rest = words
    if any(re.fullmatch(r"[A-Z]+", w) or w.startswith("../shared") for w in rest):
        return False
    return verb in CHEAP or (verb == "batch" and "--dry-run" in rest)


#: run in full below, in test_docs_pacs.py and in test_docs_node.py
IN_FULL = {"quickstart", "pacs", "node"}
RUN_PAGES = [p for p in PAGES if p.stem not in IN_FULL and any(is_cheap(c.words[1:]) for c in of_program(p))]


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.stem)
def test_cheap_commands_run(page: Path, scans: Path, uhrct: Uhrct) -> None:
    for command in of_program(page):
        verb, *rest = words = command.words[1:]
        if is_cheap(words):
            again = ["--overwrite"] if any("--overwrite" in p.opts for p in GROUP.commands[verb].params) else []
            assert uhrct(verb, *rest, *again).code == 0, f"{page.name}, {command}"


@pytest.mark.slow
def test_the_quick_start_runs_in_full(scans: Path, uhrct: Uhrct) -> None:
    page = ROOT / "docs" / "quickstart.md"
    for name in ("fine.nii.gz", "low.nii.gz"):
        (scans / name).unlink()
    for command in of_program(page):
        done(uhrct(*command.words[1:]))
    for _, language, lines in blocks(page.read_text()):
        if language == "python":
            exec("\n".join(lines), {})
    for name in ("chest/ct.nii.gz", "fine.png", "report.html", "audit.html", "again.nii.gz", "path/to/scans/ct-x2"):
        assert (scans / name).exists(), name
    assert np.array_equal(io.read("again.nii.gz").hu, io.read("fine.nii.gz").hu)
