"""The scripts beside the package: `--help` explains and changes nothing; a missing file is said in one line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(f for folder in ("benchmarks", "scripts", "scripts/gpu") for f in (ROOT / folder).glob("*.py"))


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, script: Path, *arguments: str) -> object:
    """The exit code of a script in `folder`, or the line that it ends with."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    return stop.value.code


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda f: f.stem)
def test_help_explains_and_changes_nothing(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("<!-- scores -->\n<!-- end -->\n")
    assert run(monkeypatch, tmp_path, script, "--help") in (0, None)
    assert "usage:" in capsys.readouterr().out
    assert [f.name for f in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "<!-- scores -->\n<!-- end -->\n"


def test_a_missing_score_file_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, file in (
        ((), "results/x2.jsonl"),
        (("--only", "validation/rider0117"), "results/x2-rider0117.jsonl"),
    ):
        said = run(monkeypatch, tmp_path, ROOT / "benchmarks" / "fidelity.py", "--table", *arguments)
        assert said == f"{file}: cannot be read (No such file or directory)"
