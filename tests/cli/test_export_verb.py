"""`uhrct export`: files, messages and exit codes."""

from __future__ import annotations

from pathlib import Path

from run_cli import Uhrct, done, everything, refused

from uhrct.models.model import Model


def test_weights_become_a_folder_or_a_bundle(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    result = done(uhrct("export", weights, tmp_path / "hub"))
    assert "huggingface. Research use only" in result.err
    assert Model.from_pretrained(tmp_path / "hub").weights_sha256 == Model.from_pretrained(weights).weights_sha256
    done(uhrct("export", weights, tmp_path / "bundle", "--format", "monai", "--quiet"))
    assert (tmp_path / "bundle" / "configs" / "inference.json").is_file()


def test_bad_outputs_are_refused(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    before = everything(tmp_path)
    refused(uhrct("export", weights, tmp_path / "net.pt", "--format", "onnx"), "ends in .onnx")
    refused(uhrct("export", weights, tmp_path / "file"), "is a file")
    refused(uhrct("export", weights, tmp_path / "mine", "--overwrite"), "notes.txt")
    refused(uhrct("export", weights, tmp_path / "no" / "hub"), "does not exist")
    refused(uhrct("export", weights, weights, "--overwrite"), "output equals input")
    refused(uhrct("export", "x3", tmp_path / "hub"), "no such weights")
    assert everything(tmp_path) == before
