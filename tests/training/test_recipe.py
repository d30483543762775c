"""A model from one file: all stages in order, one folder, and an interruption anywhere that changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import CPU, equal, network, records, train
from safetensors.torch import load_file

from uhrct.core.errors import UhrctError
from uhrct.models.model import Model
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig, load_recipe
from uhrct.training.data.patients import Corpus
from uhrct.training.estimator import EstimatorTrainer
from uhrct.training.publish import publish
from uhrct.training.recipe import run_stages
from uhrct.training.recipe import train as train_file
from uhrct.training.run import Run
from uhrct.training.stages import build_model, make_batches
from uhrct.training.trainer import Trainer

Tiny = Callable[..., TrainingConfig]


class Cut(Exception):
    """The power goes off."""


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def test_the_folder_of_a_run(finished: Path, stages: list[TrainingConfig]) -> None:
    files = {"checkpoint.pt", "model", "train.json", "log.jsonl", "curve.png"}
    assert {p.name for p in finished.iterdir()} == files
    assert (finished / "curve.png").read_bytes()[:4] == b"\x89PNG"
    stored = json.loads((finished / "train.json").read_text())
    assert [TrainingConfig.model_validate(s) for s in stored.values()] == stages
    log = records(finished)
    assert [r["stage"] for r in log] == ["mean", "mean", "denoiser", "denoiser", "estimator"]
    assert {"pixel", "structure_head", "lengths", "gradient_norm", "lr", "minutes", "corpus_sha256"} <= log[0].keys()
    assert {"psnr_wide", "gain_db", "smse_ratio"} <= log[1]["validation"]["c"].keys()
    assert {"pixel", "structure_head"} <= log[2].keys()
    assert log[4]["validation"]["c"].keys() & {"psf_fwhm_mae", "unlike"}


def test_the_result_is_a_whole_model_with_a_measured_spread(finished: Path, stages: list[TrainingConfig]) -> None:
    """The residual that the denoiser diffuses has about unit variance in the body."""
    model = Model.from_pretrained(finished / "model")
    assert None not in (model.mean, model.denoiser, model.estimator)
    batch = make_batches(stages[1], model, Corpus.load(stages[1].data, CPU))(1000)
    with torch.inference_mode():
        mean = model.mean_hu(model.features(batch.lr_hu, batch.spacing_mm, batch.properties))[0]
    error = (batch.hr_hu - mean)[batch.hr_hu > -970]
    assert model.config.sample_sd_hu == pytest.approx(float(error.square().mean().sqrt()), rel=0.5)
    assert model.config.sample_sd_hu != 15.0


def test_a_denoiser_leaves_the_mean_network_alone_and_saving_often_changes_nothing(
    stages: list[TrainingConfig], finished: Path, tmp_path: Path
) -> None:
    often = stages[0].model_copy(update={"validate_minutes": -1.0, "checkpoint_minutes": -1.0})
    mean = train(often, out=tmp_path / "run")
    assert equal(mean, network(weights(finished), "mean"))
    assert sum("validation" in r for r in records(tmp_path / "run")) == 4


@pytest.mark.parametrize("stage", ["mean", "denoiser", "estimator"])
def test_a_cut_run_goes_on_as_if_nothing_had_happened(
    stages: list[TrainingConfig], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    track = Trainer._track

    def cut(self: Trainer, parts: dict[str, torch.Tensor]) -> None:
        if self.stage == stage and self.step == 2:
            self.save()
        if self.stage == stage and self.step == 3:
            raise Cut
        track(self, parts)

    def cut_fit(*_: Any) -> float:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_track", cut)
        patch.setattr(EstimatorTrainer, "_fit", cut_fit)
        with pytest.raises(Cut):
            train(*stages, out=tmp_path / "run")
    # meanwhile the folder holds a model of the networks so far
    with pytest.warns(UserWarning, match="run: the training of these weights has not finished"):
        model = Model.from_pretrained(tmp_path / "run")
    assert (model.denoiser is None) == (stage == "mean")
    assert model.estimator is None
    torch.rand(7)  # the global generator is in another state
    assert equal(train(*stages, out=tmp_path / "run", resume=True), weights(finished))


def test_a_finished_run_stays_as_it_is(stages: list[TrainingConfig], finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    assert equal(train(*stages, out=tmp_path / "run", resume=True), weights(finished))
    assert records(tmp_path / "run") == records(finished)


def test_one_command_trains_all_stages_within_their_shares(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = iter(range(60, 10**6, 60))  # each look at the clock takes a minute
    monkeypatch.setattr("time.process_time", lambda: next(passed))
    common = tiny(data={"validation": []}, steps=10**6).as_dict()
    del common["stage"], common["share"]
    denoiser = {"stage": "denoiser", "share": 1, "model": {"denoiser": common["model"]["mean"]}}
    recipe = {**common, "stages": [{"stage": "mean", "share": 3}, denoiser]}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    result = train_file(
        tmp_path / "r.yaml", ["seed=3"], out=tmp_path / "run", max_cpu_minutes=8, device=CPU, quiet=True
    )
    assert result == tmp_path / "run" / "model"
    last = {r["stage"]: r["cpu_minutes"] for r in records(tmp_path / "run")}
    assert last == {"mean": 6.0, "denoiser": 2.0}
    # a resumed run counts what was spent before
    train_file(tmp_path / "r.yaml", ["seed=3"], out=tmp_path / "run", max_cpu_minutes=16, resume=True, device=CPU)
    last = {r["stage"]: r["cpu_minutes"] for r in records(tmp_path / "run")}
    assert last == {"mean": 6.0, "denoiser": 4.0}


def test_a_stage_alone_goes_on_from_init(tiny: Tiny, stages: list[TrainingConfig], finished: Path) -> None:
    init = str(finished / "model")
    source = Model.from_pretrained(init)
    changes = {"init": init, "model": {"mean": {}}}
    same = build_model(tiny(**changes | {"model": {"mean": stages[0].model["mean"]}}), source)
    assert equal(dict(same.state_dict()), dict(source.state_dict()))
    assert same.config == source.config
    known = {name: value for name, value in source.mean.state_dict().items() if "told" not in name}
    new = {"mean": stages[0].model["mean"], "properties": True}
    other = build_model(tiny(**changes | {"model": new}), source)
    assert equal({name: other.mean.state_dict()[name] for name in known}, known)
    with pytest.raises(UhrctError, match="the mean network to start from has another size"):
        build_model(tiny(**changes | {"model": {"mean": {"image_width": 12}}}), source)
    with pytest.raises(UhrctError, match="init: the weights have scale x2, the configuration x4"):
        build_model(tiny(**changes | {"model": {"scale": [1, 4, 4]}}), source)


def test_weights_that_are_continued_are_named_on_screen_and_in_the_result(
    tiny: Tiny, stages: list[TrainingConfig], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = Model.from_pretrained(finished).weights_sha256
    changes = {"init": str(finished), "model": {}, "steps": 1, "data": {"validation": []}}
    config = stages[0].model_copy(update=changes | {"data": tiny(**changes).data})
    for resume in (False, True):
        run_stages([config], Run(tmp_path / "run", device=CPU, resume=resume), Budget())
        said = capsys.readouterr().err
        assert f"note: this training continues the weights {finished} (sha256 {sha256[:12]})" in said
        [stored] = json.loads((tmp_path / "run" / "train.json").read_text()).values()
        assert (stored["init"], stored["init_sha256"]) == (str(finished), sha256)
    text = (publish(tmp_path / "run", "more", weights_dir=tmp_path) / "README.md").read_text()
    assert f"(1 steps), continued from weights with sha256 `{sha256}`" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "denoiser"}, "no trained mean network"),
        ({"stage": "denoiser", "model": {"mean": None}}, "mean network, a denoiser or both"),
        ({"stage": "estimator"}, "train a mean network first"),
        ({"init": "nowhere"}, "no such weights"),
        ({"data": {"corpus": "nowhere"}}, "no such file or folder"),
        ({"data": {"crop": 40}}, "smaller than a crop of 104 pixels"),
        ({"stage": "surrogate", "model": {"colour": "red"}}, "unknown setting colour"),
    ],
)
def test_what_cannot_be_trained_is_said_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UhrctError, match=message):
        train(tiny(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_late_stage_that_cannot_work_is_said_before_the_first_one(
    stages: list[TrainingConfig], tmp_path: Path
) -> None:
    data = stages[2].data.model_copy(update={"crop": 40})
    late = stages[2].model_copy(update={"data": data})
    with pytest.raises(UhrctError, match="smaller than a crop of 104 pixels"):
        train(*stages[:2], late, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_recipes_that_ship_are_complete() -> None:
    folder = Path(__file__).parents[2] / "configs"
    for name, sample in (("x2", True), ("x4", True), ("5x1x1", True), ("5x2x2", True), ("paper", False)):
        stages = load_recipe(folder / f"{name}.yaml")
        expected = ["mean", "denoiser"] if sample else ["denoiser"]
        if name in ("x2", "x4"):
            expected.append("interval")
        if sample:
            expected.append("estimator")
        assert [s.stage for s in stages] == expected
        model = None
        for stage in stages:
            model = build_model(stage, model)
        assert model is not None
        assert model.denoiser is not None
    [paper] = stages
    assert (model.diffusion.prediction, model.diffusion.levels, model.diffusion.sampler) == (
        "epsilon",
        "linear",
        "ancestral",
    )
    assert (paper.loss.l2, paper.loss.l1, paper.loss.structure_operator) == (5.0, 1.0, "surrogate")
    assert paper.loss.structure_head == paper.loss.structure_image > 0
    assert load_recipe(folder / "surrogate.yaml")[0].stage == "surrogate"
