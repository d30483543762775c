"""Weights that ship keep their history: what trained them, on what, for how long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uhrct.model import Model, ModelConfig
from uhrct.training.publish import TRAINING_DATA, publish

SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


def run(folder: Path, corpus: str, minutes: float) -> tuple[Path, str]:
    """A finished run as the trainer leaves it, and its weights' hash."""
    model = Model(ModelConfig(mean=SIZE))
    model.save_pretrained(folder / "model")
    (folder / "train.json").write_text(json.dumps({"corpus": [corpus], "stage": "mean"}))
    record = {"step": 10, "minutes": minutes, "corpus_sha256": corpus}
    (folder / "log.jsonl").write_text(json.dumps(record) + "\n")
    return folder, model.weights_sha256


def card(folder: Path) -> dict[str, object]:
    return json.loads((folder / "card.json").read_text())


def test_a_continued_model_keeps_what_came_before(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "first", "aaaa", 3)
    second, sha256 = run(tmp_path / "second", "bbbb", 4)
    folder = publish([first], "tiny", None, tmp_path)
    assert card(folder)["training_data"] == TRAINING_DATA
    publish([second], "tiny", None, tmp_path, data="patients and made-up chests")
    assert list(json.loads((folder / "train.json").read_text())) == ["first", "second"]
    assert [json.loads(r)["run"] for r in (folder / "log.jsonl").read_text().splitlines()] == ["first", "second"]
    assert card(folder)["corpus_sha256"] == ["aaaa", "bbbb"]
    assert card(folder)["weights_sha256"] == sha256
    text = (folder / "README.md").read_text()
    assert "`aaaa...`, `bbbb...`" in text
    assert "first 3 minutes" in text
    assert "patients and made-up chests" in text
    publish([second], "tiny", None, tmp_path)  # scores measured since: the card's words stay
    assert card(folder)["training_data"] == "patients and made-up chests"


def test_scores_of_other_weights_are_refused(tmp_path: Path) -> None:
    only, _ = run(tmp_path / "only", "aaaa", 3)
    scores = tmp_path / "scores.jsonl"
    scores.write_text(json.dumps({"meta": {"weights_sha256": "0" * 64, "slices": 1}}) + "\n")
    with pytest.raises(SystemExit, match="measured other weights"):
        publish([only], "tiny", scores, tmp_path)
    assert not (tmp_path / "tiny").exists()
