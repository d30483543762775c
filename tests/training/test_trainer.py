"""The training loop: what it learns, how it ends, what it refuses, alone and in company."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import CPU, equal, records, train

from uhrct.core.errors import UhrctError
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.patients import Corpus
from uhrct.training.losses import MeanLoss
from uhrct.training.recipe import run_stages
from uhrct.training.run import Run
from uhrct.training.stages import ModelTrainer

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


def test_a_short_training_beats_interpolation(tiny: Tiny, tmp_path: Path) -> None:
    changes = {"data": {"augmented": 0.0}, "optimizer": {"learning_rate": 5e-3, "ema": 0.9}}
    train(tiny(steps=40, **changes), out=tmp_path / "run")
    assert records(tmp_path / "run")[-1]["validation"]["c"]["gain_db"] > 0.1


def test_the_saved_weights_are_an_average(tiny: Tiny, tmp_path: Path) -> None:
    """Each step moves it by 1 - min(ema, (1 + step) / (10 + step)) towards the weights of that step."""
    seen = []

    class Watched(ModelTrainer):
        def _track(self, parts: dict[str, torch.Tensor]) -> None:
            seen.append(self.network.to_image.bias.detach().clone())
            super()._track(parts)

    config = tiny(steps=4, optimizer={"ema": 0.2, "learning_rate": 0.01}, data={"validation": []})
    run = Run(tmp_path, device=CPU, quiet=True)
    trainer = Watched(config, None, run, Corpus.load(config.data, CPU), Budget())
    trainer.run()
    wanted = seen[0]
    for step, now in enumerate(seen[1:], start=1):
        wanted = wanted.lerp(now, 1 - min(0.2, (1 + step) / (10 + step)))
    assert torch.allclose(trainer.model.mean.to_image.bias, wanted, atol=1e-7)
    assert not torch.equal(wanted, seen[-1])


@pytest.mark.parametrize("budget", ["max_minutes", "max_cpu_minutes"])
def test_budgets_end_a_training(tiny: Tiny, tmp_path: Path, budget: str) -> None:
    train(tiny(steps=10**6, data={"validation": []}), out=tmp_path / "run", **{budget: 1e-9})
    assert [r["step"] <= 1 for r in records(tmp_path / "run")] in ([], [True])
    for minutes in (0.0, -1.0, float("nan")):
        with pytest.raises(UhrctError, match=f"{budget}=.*give a number above 0"):
            Budget(**{budget: minutes})


def test_validation_counts_in_the_budget(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock where a step takes 1 minute and a validation 5, 29 minutes hold 14 steps and 3 validations.

    A validation that takes longer than the time between two of them does not follow after every step. The last step
    is not scored twice.
    """
    now_s = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])

    class Timed(ModelTrainer):
        def make_step(self, done: float) -> dict[str, torch.Tensor]:
            now_s[0] += 60
            return {}

        def validate(self, patient: Any) -> dict[str, float]:
            now_s[0] += 300
            return {"psnr_wide": 0.0, "gain_db": 0.0, "smse_frangi": 0.0, "smse_ratio": 0.0}

    config = tiny(steps=10**6, validate_minutes=3.5)
    corpus = Corpus.load(config.data, CPU)
    assert len(corpus.validation) == 1
    trainer = Timed(config, None, Run(tmp_path, device=CPU, quiet=True), corpus, Budget(max_minutes=29))
    trainer.run()
    validated = [(r["step"], r["minutes"]) for r in records(tmp_path) if "validation" in r]
    assert validated == [(5, 10.0), (10, 20.0), (14, 29.0)]


def test_a_validation_that_was_interrupted_is_made_up(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: Any, patient: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ModelTrainer, "validate", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(steps=2), out=tmp_path)
    assert not any("validation" in r for r in records(tmp_path))
    for _ in range(2):  # the second time there is nothing left to do
        train(tiny(steps=2), out=tmp_path, resume=True)
        assert [r["step"] for r in records(tmp_path) if "validation" in r] == [2]


def test_the_printed_losses_are_explained(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(steps=1, data={"validation": []})
    run_stages([config], Run(tmp_path / "mean", device=CPU), Budget())
    said = capsys.readouterr().err.splitlines()
    [explained] = [k for k, line in enumerate(said) if "in brackets, in the same unit: error of interpolation" in line]
    assert "pixel (interpolation " in said[explained + 1]
    surrogate = config.model_copy(update={"stage": "surrogate"})
    run_stages([surrogate], Run(tmp_path / "surrogate", device=CPU), Budget())
    assert "error: mean absolute difference from the operator's map" in capsys.readouterr().err


def test_a_bad_batch_is_left_out(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One loss that is not a number: the weights stay finite, and so does the log."""
    whole, calls = MeanLoss.__call__, []

    def poisoned(self: MeanLoss, *args: Any) -> Any:
        value, parts = whole(self, *args)
        calls.append(1)
        bad = float("nan") if len(calls) == 2 else 1.0
        return value * bad, {k: v * bad for k, v in parts.items()}

    monkeypatch.setattr(MeanLoss, "__call__", poisoned)
    saved = train(tiny(steps=3, data={"validation": []}), out=tmp_path / "run")
    assert len(calls) == 3
    assert all(torch.isfinite(v).all() for v in saved.values())
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()


def test_accumulated_batches_make_one_larger_batch(tiny: Tiny, tmp_path: Path) -> None:
    """Two batches of 2 give the mean of the gradients that each of them gives alone."""
    corpus = Corpus.load(tiny().data, CPU)

    def gradients(step: int, accumulate: int = 1) -> list[torch.Tensor]:
        config = tiny(data={"batch": 2}, optimizer={"accumulate": accumulate})
        trainer = ModelTrainer(config, None, Run(tmp_path, device=CPU), corpus, Budget())
        trainer.step = step
        trainer._gradients(trainer.loss, 0.0)
        return [p.grad.clone() for p in trainer.network.parameters()]

    for both, first, second in zip(gradients(0, accumulate=2), gradients(0), gradients(1), strict=True):
        assert torch.allclose(both, (first + second) / 2, atol=1e-3 * float(first.abs().max()) + 1e-6)
        assert first.abs().max() == 0 or not torch.allclose(both, first)


def test_compiling_changes_no_weights_and_no_file(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # without it only the picture is missing
    plain, fast = (
        train(tiny(steps=2, compile=c, data={"validation": []}), out=tmp_path / str(c)) for c in (False, True)
    )
    assert len(compiled) == 1
    assert equal(plain, fast)
    assert not (tmp_path / "True" / "curve.png").exists()


def test_a_folder_in_use_is_not_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = train(tiny(steps=1), out=tmp_path / "run", resume=True)  # empty, and nothing to go on from
    with pytest.raises(UhrctError, match="not empty; set `resume=True`"):
        train(tiny(steps=1), out=tmp_path / "run")
    assert equal(train(tiny(steps=1), out=tmp_path / "new"), first)


@pytest.fixture(scope="module")
def begun(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun") / "run"
    train(tiny(steps=1, data={"validation": []}), out=out)
    return out / "checkpoint.pt"


@pytest.mark.parametrize("damage", ["cut", "text", "no optimizer", "other size", "other stage", "a plain list"])
def test_damaged_checkpoints_are_refused_and_kept(tiny: Tiny, begun: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(begun.read_bytes())
    state, config = torch.load(file, weights_only=True), tiny()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    elif damage == "text":
        file.write_text("no checkpoint")
    elif damage == "no optimizer":
        del state["optimizers"]
        torch.save(state, file)
    elif damage == "other size":
        state["network"]["to_image.bias"] = torch.zeros(3)
        torch.save(state, file)
    elif damage == "other stage":
        config = tiny(name="later")
    else:
        torch.save([1, 2], file)
    before = file.read_bytes()
    with pytest.raises(UhrctError, match=r"checkpoint\.pt: cannot go on from it") as caught:
        train(config, out=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_changed_settings_are_said(tiny: Tiny, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(steps=2, data={"batch": 3})
    run = Run(begun.parent, resume=True, device=CPU)
    trainer = ModelTrainer(config, None, run, Corpus.load(config.data, CPU), Budget())
    trainer.resume(run.checkpoint)
    assert "note: data.batch was 4 until step 1; now it is 3" in capsys.readouterr().err


# --- several processes

CHILD = """
import json, sys, torch
from pathlib import Path
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import BatchMaker
from uhrct.training.recipe import run_stages
from uhrct.training.run import Run
from uhrct.training.trainer import Trainer
seen, make = [], BatchMaker.__call__
BatchMaker.__call__ = lambda *a: seen.append(make(*a).lr_hu.sum()) or make(*a)
ended, whole = [], Trainer.run
Trainer.run = lambda self: ended.append(self) or whole(self)
run = Run(sys.argv[2], device=torch.device("cpu"), quiet=True)
run_stages([TrainingConfig.model_validate_json(Path(sys.argv[1]).read_text())], run, Budget())
[t] = ended
torch.save({"network": t.network.state_dict(), "average": t.average.state_dict(), "seen": seen},
           f"{sys.argv[2]}-{run.rank}.pt")
"""


def test_two_processes_end_with_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "config.json").write_text(json.dumps(tiny(steps=3).as_dict()))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "child.py"), str(tmp_path / "config.json"), str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    a, b = (torch.load(tmp_path / f"run-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert equal(a["network"], b["network"])
    assert equal(a["average"], b["average"])
    # each process saw its own data
    assert len(a["seen"]) == len(b["seen"]) == 3
    assert not set(map(float, a["seen"])) & set(map(float, b["seen"]))
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    blob = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert config["weights_sha256"] == hashlib.sha256(blob).hexdigest()
