"""A training from start to finish, cut short and gone on with, alone and in company."""

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
from safetensors.torch import load_file

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig
from uhrct.training import trainer as trainer_module
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import Batch, BatchMaker
from uhrct.training.data.patients import load_patients
from uhrct.training.trainer import Trainer

Tiny = Callable[..., TrainingConfig]
SIZE = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1, "fusion_blocks": 1}


def train(config: TrainingConfig, out: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Run it; the tensors of the model that it leaves."""
    model = Trainer(config, out, quiet=True, device=torch.device("cpu"), **options).run()
    return load_file(model / "model.safetensors")


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Cut(Exception):
    """The power goes off."""


def cut_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Save after `step` steps, as the clock would, then fall over in the middle of the next one."""
    whole = Trainer._track

    def track(self: Trainer, parts: dict[str, torch.Tensor]) -> None:
        if self.step == step:
            self._save(1.0)
        if self.step == step + 1:
            raise Cut
        whole(self, parts)

    monkeypatch.setattr(Trainer, "_track", track)


def test_what_a_run_leaves(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(steps=2)
    train(config, tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "checkpoint.pt",
        "model",
        "train.json",
        "log.jsonl",
        "curve.png",
    }
    assert (tmp_path / "run" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    stored = json.loads((tmp_path / "run" / "train.json").read_text())
    tuples = {k: tuple(v) for k, v in stored.items() if isinstance(v, list)}  # JSON has lists alone
    assert TrainingConfig(**{**stored, **tuples}) == config
    losses, check = records(tmp_path / "run")
    assert losses["step"] == check["step"] == 2
    assert {"pixel", "structure_head", "gradient_norm", "lr", "minutes", "corpus_sha256"} <= losses.keys()
    assert check["validation"].keys() == {"c"}
    assert {"psnr_wide", "gain_db", "smse_ratio"} <= check["validation"]["c"].keys()
    assert Model.from_pretrained(tmp_path / "run" / "model").config.mean == SIZE


def test_the_loss_falls_and_the_model_beats_interpolation(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(steps=40, learning_rate=5e-3, augmented=0.0, ema=0.9)
    seen: list[float] = []

    class Watched(Trainer):
        def _track(self, parts: dict[str, torch.Tensor]) -> None:
            seen.append(float(parts["pixel"].detach()))
            super()._track(parts)

    Watched(config, tmp_path / "run", quiet=True, device=torch.device("cpu")).run()
    assert sum(seen[-10:]) < 0.95 * sum(seen[:10])
    assert records(tmp_path / "run")[-1]["validation"]["c"]["gain_db"] > 0.1


def test_the_saved_model_is_the_average(tiny: Tiny, tmp_path: Path) -> None:
    saved = train(tiny(steps=3), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    averaged = {f"mean.{k}": v for k, v in state["ema"].items()}
    assert equal(saved, averaged)
    assert not equal(saved, {f"mean.{k}": v for k, v in state["network"].items()})


@pytest.mark.parametrize(("stage", "optimizer"), [("mean", "adamw"), ("denoiser", "adamw"), ("mean", "muon")])
def test_cut_and_resumed_is_bit_identical_to_one_go(
    tiny: Tiny, tmp_path: Path, monkeypatch: Any, stage: str, optimizer: str
) -> None:
    size = SIZE if optimizer == "adamw" else {**SIZE, "image_width": 16}
    config = tiny(stage=stage, model={"mean": None, stage: size}, optimizer=optimizer)
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        cut_after(patch, 3)
        with pytest.raises(Cut):
            train(config, tmp_path / "cut")
    torch.rand(7)  # the global generator is somewhere else by now
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == 3
    assert equal(train(config, tmp_path / "cut", resume=True), whole)
    last = [torch.load(tmp_path / d / "checkpoint.pt", weights_only=True)["network"] for d in ("whole", "cut")]
    assert equal(*last)


def test_every_step_has_noise_of_its_own(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    made, seeds = trainer_module.make_loss, []

    def watched(model: Model, config: TrainingConfig) -> Any:
        inner = made(model, config)

        def loss(network: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Any:
            seeds.append(generator.initial_seed())
            return inner(network, batch, generator)

        return loss

    monkeypatch.setattr(trainer_module, "make_loss", watched)
    train(tiny(steps=3), tmp_path / "a")
    train(tiny(steps=3, seed=1), tmp_path / "b")
    assert len(set(seeds)) == 6


def test_validating_and_saving_on_the_way_change_nothing(tiny: Tiny, tmp_path: Path) -> None:
    whole = train(tiny(), tmp_path / "whole")
    often = tiny(validate_minutes=-1.0, checkpoint_minutes=-1.0)
    assert equal(train(often, tmp_path / "often"), whole)
    assert sum("validation" in r for r in records(tmp_path / "often")) > 6


def test_resuming_a_finished_run_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    whole = train(tiny(), tmp_path / "run")
    assert equal(train(tiny(), tmp_path / "run", resume=True), whole)


def test_resume_without_a_checkpoint_starts_anew(tiny: Tiny, tmp_path: Path) -> None:
    assert equal(train(tiny(), tmp_path / "a", resume=True), train(tiny(), tmp_path / "b"))


def test_resume_with_another_validation_set_still_draws(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(steps=2), tmp_path / "run")
    train(tiny(steps=3, validation=(str(tmp_path / "train" / "a.npz"),)), tmp_path / "run", resume=True)
    checks = [r["validation"].keys() for r in records(tmp_path / "run") if "validation" in r]
    assert checks == [{"c"}, {"a"}]


def test_no_validation_is_fine(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(steps=1, validation=()), tmp_path / "run")
    assert [r["step"] for r in records(tmp_path / "run")] == [1]


@pytest.mark.parametrize("budget", ["max_minutes", "max_cpu_minutes"])
def test_budgets_end_a_training(tiny: Tiny, tmp_path: Path, budget: str) -> None:
    train(tiny(steps=10**6), tmp_path / "run", **{budget: 1e-9})
    assert records(tmp_path / "run")[0]["step"] <= 1


def test_processor_time_counts_on_over_resumed_parts(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    passed = iter(range(60, 10**6, 60))  # a minute each time that one looks
    monkeypatch.setattr("time.process_time", lambda: next(passed))
    train(tiny(steps=2), tmp_path / "run")
    train(tiny(steps=10**6), tmp_path / "run", resume=True, max_cpu_minutes=6.0)
    logged = [r["cpu_minutes"] for r in records(tmp_path / "run") if "cpu_minutes" in r]
    assert logged == [3.0, 6.0]


def test_learning_rate_warms_up_and_falls(tiny: Tiny, tmp_path: Path) -> None:
    t = Trainer(tiny(warmup_steps=4), tmp_path / "run", quiet=True, device=torch.device("cpu"))
    pace = []
    for t.step in range(6):
        pace.append(t._pace(t.step / 6))
    assert pace[0] == pytest.approx(0.25)
    assert pace[1] > pace[0]
    assert pace[5] < pace[4]
    t.step = 6
    assert t._pace(1.0) == pytest.approx(0.01)


def test_a_bad_batch_is_left_out(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    """One NaN among the losses: no weight takes it, and the log goes on with numbers."""
    made = trainer_module.make_loss

    def poisoned(model: Model, config: TrainingConfig) -> Any:
        inner = made(model, config)
        calls = []

        def loss(network: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Any:
            calls.append(1)
            value, parts = inner(network, batch, generator)
            return (
                (value * float("nan"), {k: v * float("nan") for k, v in parts.items()})
                if len(calls) == 2
                else (
                    value,
                    parts,
                )
            )

        return loss

    monkeypatch.setattr(trainer_module, "make_loss", poisoned)
    saved = train(tiny(steps=4), tmp_path / "run")
    assert all(torch.isfinite(v).all() for v in saved.values())
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text()


def test_without_matplotlib_only_the_picture_is_missing(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    train(tiny(steps=1), tmp_path / "run")
    assert not (tmp_path / "run" / "curve.png").exists()


# --- what is refused


@pytest.mark.parametrize("budget", ["max_minutes", "max_cpu_minutes"])
@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_senseless_budgets(tiny: Tiny, tmp_path: Path, budget: str, minutes: float) -> None:
    with pytest.raises(UhrctError, match="--" + budget.replace("_", "-")):
        Trainer(tiny(), tmp_path / "run", **{budget: minutes})


def test_a_folder_in_use_is_not_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    Trainer(tiny(), tmp_path / "run", quiet=True)  # empty is fine
    assert (tmp_path / "run" / "train.json").is_file()
    with pytest.raises(UhrctError, match="not empty; go on with --resume"):
        Trainer(tiny(), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("damage", ["cut", "text", "no optimizer", "other size", "a plain list"])
def test_damaged_checkpoints_are_refused_and_kept(tiny: Tiny, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "run" / "checkpoint.pt"
    train(tiny(steps=1), tmp_path / "run")
    state = torch.load(file, weights_only=True)
    config = tiny()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    elif damage == "text":
        file.write_text("no checkpoint")
    elif damage == "no optimizer":
        del state["optimizer"]
        torch.save(state, file)
    elif damage == "other size":
        config = tiny(model={"mean": {**SIZE, "image_width": 12}})
    else:
        torch.save([1, 2], file)
    before = file.read_bytes()
    with pytest.raises(UhrctError, match=r"checkpoint\.pt: can't go on from it") as caught:
        Trainer(config, tmp_path / "run", resume=True, quiet=True)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"mean": {"image_widht": 8}}}, "image_widht"),
        ({"model": {"colour": "red"}}, "colour"),
        ({"stage": "denoiser", "model": {"mean": None, "denoiser": None}}, "mean network, a denoiser or both"),
        ({"stage": "denoiser"}, r"give model\.denoiser"),
        ({"stage": "denoiser", "model": {"mean": SIZE, "denoiser": SIZE}}, "would stay random"),
        ({"init": "nowhere"}, "no such weights"),
        ({"corpus": ("nowhere",)}, "no such corpus"),
    ],
)
def test_senseless_configurations(tiny: Tiny, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UhrctError, match=message):
        train(tiny(**changes), tmp_path / "run")


# --- the second stage


def test_the_denoiser_leaves_its_mean_network_alone(tiny: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = Model(ModelConfig(mean=SIZE, residual_sd_hu=25.0))
    first.save_pretrained(tmp_path / "mean")
    config = tiny(stage="denoiser", init=str(tmp_path / "mean"), model={"denoiser": SIZE}, steps=3)
    saved = train(config, tmp_path / "run")
    for name, value in first.state_dict().items():
        assert torch.equal(saved[name], value)
    start = Trainer(config, tmp_path / "start", quiet=True).model.state_dict()
    moved = [k for k in saved if not torch.equal(saved[k], start[k])]
    assert moved
    assert all(k.startswith("denoiser.") for k in moved)
    back = Model.from_pretrained(tmp_path / "run" / "model").config
    assert (back.mean, back.denoiser, back.residual_sd_hu) == (SIZE, SIZE, 25.0)


def test_a_mean_network_of_another_size_is_not_dropped_in_silence(tiny: Tiny, tmp_path: Path) -> None:
    Model(ModelConfig(mean=SIZE)).save_pretrained(tmp_path / "mean")
    wider = {"mean": {**SIZE, "image_width": 12}, "denoiser": SIZE}
    with pytest.raises(UhrctError, match="of another size"):
        Trainer(tiny(stage="denoiser", init=str(tmp_path / "mean"), model=wider), tmp_path / "run", quiet=True)


def test_training_goes_on_from_init(tiny: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = Model(ModelConfig(mean=SIZE))
    first.save_pretrained(tmp_path / "mean")
    t = Trainer(tiny(init=str(tmp_path / "mean"), model={}), tmp_path / "run", quiet=True)
    assert equal(dict(t.model.state_dict()), dict(first.state_dict()))


# --- several processes

CHILD = """
import json, sys, torch
from pathlib import Path
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import BatchMaker
from uhrct.training.trainer import Trainer
raw = json.loads(Path(sys.argv[1]).read_text())
for name in ("corpus", "validation", "only"):
    raw[name] = tuple(raw[name])
seen, make = [], BatchMaker.__call__
BatchMaker.__call__ = lambda *a: seen.append(make(*a).lr_hu.sum()) or make(*a)
t = Trainer(TrainingConfig(**raw), sys.argv[2], quiet=True, device=torch.device("cpu"))
t.run()
torch.save({"network": t.network.state_dict(), "ema": t.ema, "seen": seen}, f"{sys.argv[2]}-{t.rank}.pt")
"""


def test_two_processes_end_with_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "config.json").write_text(json.dumps(tiny(steps=3, model={"mean": SIZE}).as_dict()))
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
    assert equal(a["ema"], b["ema"])
    # and each saw data of its own
    assert len(a["seen"]) == len(b["seen"]) == 3
    assert not set(map(float, a["seen"])) & set(map(float, b["seen"]))
    # and what the folder says of itself is true
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    blob = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    assert config["weights_sha256"] == hashlib.sha256(blob).hexdigest()


def test_only_the_named_parameters_are_trained(tiny: Tiny, tmp_path: Path) -> None:
    t = Trainer(tiny(steps=2, only=("narrow", "to_structure")), tmp_path / "run", quiet=True)
    before = {k: v.clone() for k, v in t.network.state_dict().items()}
    t.run()
    changed = {k.split(".")[0] for k, v in t.network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"narrow", "to_structure"}
    with pytest.raises(UhrctError, match="no such parameters"):
        Trainer(tiny(only=("nothing",)), tmp_path / "other", quiet=True)


def test_accumulated_gradients_are_those_of_all_the_batches(tiny: Tiny, tmp_path: Path) -> None:
    """Two batches of 2 move the weights as one step: by the mean of the gradients that each gives alone."""

    def gradients(step: int, accumulate: int = 1) -> list[torch.Tensor]:
        config = tiny(batch=2, accumulate=accumulate)
        t = Trainer(config, tmp_path / f"{step}-{accumulate}", resume=True, quiet=True, device=torch.device("cpu"))
        t.step = step
        batches = BatchMaker(load_patients(t.config.corpus, {}, torch.device("cpu")), t.config, t.model)
        t._gradients("", t._trained(""), t.network, batches, 0.0)
        return [p.grad.clone() for p in t._trained("")]

    together = gradients(0, accumulate=2)
    for both, first, second in zip(together, gradients(0), gradients(1), strict=True):
        assert torch.allclose(both, (first + second) / 2, atol=1e-3 * float(first.abs().max()) + 1e-6)
    assert any(not torch.allclose(a, b) for a, b in zip(together, gradients(0), strict=True))


def test_compiling_goes_around_the_network_and_changes_no_file(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    plain = train(tiny(steps=2), tmp_path / "a")
    assert not compiled
    assert equal(train(tiny(steps=2, compile=True), tmp_path / "b"), plain)
    assert len(compiled) == 1
