"""A finished run becomes weights that ship, with a card that says what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uhrct.core.errors import UhrctError
from uhrct.evaluation.score_file import write_scores
from uhrct.models.model import Model
from uhrct.training.publish import _spent, publish


def test_a_run_becomes_a_model_with_a_card(finished: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(finished / "model")
    row = {"case": "p1", "degradation": "scanner"}
    rows = [
        {**row, "method": "interpolation", "slice": 0, "psnr_wide": 30.0, "smse_frangi": 0.001},
        {**row, "method": "ours, mean", "slice": 0, "psnr_wide": 36.12, "smse_frangi": 0.001},
    ]
    write_scores(tmp_path / "scores.jsonl", {"weights_sha256": model.weights_sha256, "slices": 1}, rows)
    folder = publish(finished, "tiny", tmp_path / "scores.jsonl", tmp_path, data="made-up chests")
    files = {"config.json", "model.safetensors", "train.json", "log.jsonl", "curve.png", "card.json", "README.md"}
    assert {p.name for p in folder.iterdir()} == files
    assert Model.from_pretrained(folder).weights_sha256 == model.weights_sha256
    card = json.loads((folder / "card.json").read_text())
    assert (card["gain_db"], card["training_data"]) == ({"p1": 6.12}, "made-up chests")
    text = (folder / "README.md").read_text()
    assert "| p1 | scanner | ours, mean | 36.12 | +6.12 | 1.000 |" in text
    assert "mean 0 minutes (4 steps), denoiser 0 minutes (4 steps), estimator 0 minutes" in text
    [corpus] = card["corpus_sha256"]
    assert f"`{corpus}...`" in text


def test_a_stage_of_several_runs_counts_all_of_them() -> None:
    log = [
        {"stage": stage, "minutes": minutes, "step": step}
        for stage, minutes, step in (
            ("mean", 1, 10),
            ("mean", 2, 20),
            ("denoiser", 1, 5),
            ("mean", 0.5, 3),
            ("mean", 3, 15),
        )
    ]
    assert _spent(log) == [("mean", 5, 35), ("denoiser", 1, 5)]


def test_scores_of_other_weights_are_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text(json.dumps({"meta": {"weights_sha256": "0" * 64, "slices": 1}}) + "\n")
    with pytest.raises(UhrctError, match="scores of other weights"):
        publish(finished, "tiny", tmp_path / "scores.jsonl", tmp_path)
    assert not (tmp_path / "tiny").exists()
