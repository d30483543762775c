"""Notebooks: their code runs as a plain program, and they hold their results but no place of a machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMED = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_all_are_listed_on_their_page() -> None:
    assert len(FILES) == 3
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert [file.name for file in FILES if f"(../notebooks/{file.name})" not in page] == []


@NAMED
def test_they_hold_results_and_no_place_of_a_machine(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="notebooks need uhrct[notebooks]")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from notebooks import problems

    assert problems(file) == []


def test_problems_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks need uhrct[notebooks]")
    pytest.importorskip("nbclient", reason="notebooks need uhrct[notebooks]")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from notebooks import problems

    place = "/" + "home/me/scans/ct.nii.gz"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"open('{place}')")])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert problems(tmp_path / "a.ipynb") == [f"a.ipynb: names {place}", "a.ipynb: not executed"]


@NAMED
def test_their_code_runs(file: Path, shared_ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks need uhrct[notebooks]")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    cells = [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    pyplot.switch_backend("Agg")
    monkeypatch.chdir(file.parent)  # they find the scans from there
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(file.parent.iterdir())
    assert any("import uhrct" in cell for cell in cells)
    try:
        exec(compile("\n".join(cells), file.name, "exec"), {"__name__": "__main__"})
    finally:
        pyplot.close("all")
    assert set(file.parent.iterdir()) == before
    assert sys.modules["uhrct"]
