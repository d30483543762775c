"""Weights that ship keep their history: what trained them, on what, for how long."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from uhrct.models.model import Model
from uhrct.training.config import TrainingConfig
from uhrct.training.publish import TRAINING_DATA, publish
from uhrct.training.trainer import Trainer

Tiny = Callable[..., TrainingConfig]


def finished(config: TrainingConfig, folder: Path) -> Path:
    Trainer(config, folder, quiet=True, device=torch.device("cpu")).run()
    return folder


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text())


def test_a_continued_model_keeps_what_came_before(tiny: Tiny, corpus: Path, tmp_path: Path) -> None:
    first = finished(tiny(), tmp_path / "first")
    other = tiny(init=str(first / "model"), corpus=(str(corpus / "validation"),), validation=())
    second = finished(other, tmp_path / "second")
    folder = publish([first], "tiny", None, tmp_path)
    assert card(folder)["training_data"] == TRAINING_DATA
    (before,) = card(folder)["corpus_sha256"]
    publish([second], "tiny", None, tmp_path, data="patients and made-up chests")
    assert list(json.loads((folder / "train.json").read_text())) == ["first", "second"]
    assert {json.loads(r)["run"] for r in (folder / "log.jsonl").read_text().splitlines()} == {"first", "second"}
    assert card(folder)["weights_sha256"] == Model.from_pretrained(second / "model").weights_sha256
    one, two = card(folder)["corpus_sha256"]
    assert one == before
    assert two != before
    text = (folder / "README.md").read_text()
    assert f"`{one}...`, `{two}...`" in text
    assert "first 0 minutes (6 steps), second 0 minutes (6 steps)" in text
    assert "patients and made-up chests" in text
    publish([second], "tiny", None, tmp_path)  # scores measured since: the card's words stay
    assert card(folder)["training_data"] == "patients and made-up chests"


def test_scores_of_other_weights_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    only = finished(tiny(), tmp_path / "only")
    scores = tmp_path / "scores.jsonl"
    scores.write_text(json.dumps({"meta": {"weights_sha256": "0" * 64, "slices": 1}}) + "\n")
    with pytest.raises(SystemExit, match="measured other weights"):
        publish([only], "tiny", scores, tmp_path)
    assert not (tmp_path / "tiny").exists()
