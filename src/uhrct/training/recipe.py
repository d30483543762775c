"""Trains a whole model from one configuration file: all of its stages, one after the other, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch

from uhrct.models.model import Model, ModelConfig
from uhrct.models.settings import checked
from uhrct.physics.acquisition import Acquisition
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig, load_recipe, merged
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Corpus, remarks
from uhrct.training.estimator import EstimatorTrainer
from uhrct.training.run import Run
from uhrct.training.stages import ModelTrainer, restored
from uhrct.training.surrogate import RESULT, SurrogateTrainer

StageTrainer: TypeAlias = ModelTrainer | EstimatorTrainer | SurrogateTrainer
TRAINERS: dict[str, type[StageTrainer]] = {
    "mean": ModelTrainer,
    "denoiser": ModelTrainer,
    "interval": ModelTrainer,
    "estimator": EstimatorTrainer,
    "surrogate": SurrogateTrainer,
}


def train(
    config: str | Path,
    overrides: list[str] | None = None,
    *,
    out: str | Path,
    max_minutes: float | None = None,
    max_cpu_minutes: float | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    quiet: bool = False,
) -> Path:
    """Train all stages of a configuration file.

    Parameters
    ----------
    config, overrides : the file and its ``key=value`` changes (`uhrct.training.config.load_recipe`)
    out : folder of the run (`uhrct.training.run.Run`)
    max_minutes, max_cpu_minutes : budget of the whole run, resumed parts included; every stage gets its `share`.
        None: every stage takes its `steps`
    resume : go on in the stage and at the step of the checkpoint, with the batches that would have come

    Returns
    -------
    The result: the folder `out`/model, or the file `out`/surrogate.safetensors.

    Raises
    ------
    UhrctError
        If the configuration, the corpus or the folder cannot be used.

    Example
    -------
    ``uhrct train configs/x4.yaml --out runs/x4 --max-minutes 240``
    """
    stages = load_recipe(config, overrides)
    run = Run(out, resume=resume, device=device, quiet=quiet)
    return run_stages(stages, run, Budget(max_minutes, max_cpu_minutes))


def run_stages(stages: list[TrainingConfig], run: Run, budget: Budget) -> Path:
    """Train stages that are read already; see `train`."""
    titles = [stage.title for stage in stages]
    state = run.checkpoint
    first, model = 0, None if stages[0].init is None else Model.from_pretrained(stages[0].init)
    settings = {stage.title: stage.as_dict() for stage in stages}
    if model is not None:
        settings[titles[0]]["init_sha256"] = model.weights_sha256
        how = f"continues the weights {stages[0].init} (sha256 {model.weights_sha256[:12]})"
        run.say(f"note: this training {how}; it does not start from random weights")
    if state is not None:
        if state["stage"] not in titles:
            raise run.bad_checkpoint(ValueError(f"no stage {state['stage']} in this configuration"))
        first = titles.index(state["stage"])
        if "model" in state:
            model = _restored(state, run)
    total = sum(stage.share for stage in stages)
    corpora: dict[str, Corpus] = {}
    for config in stages[first:]:  # a stage that cannot work must be known before the first one takes hours
        _check(config, model, _corpus(config, run, corpora))
    started = False
    for config in stages[first:]:
        corpus = _corpus(config, run, corpora)
        trainer = TRAINERS[config.stage](config, model, run, corpus, budget.part(config.share / total))
        if state is not None:
            trainer.resume(state)
            state = None
        if not started:  # nothing is written before the first stage is known to work
            run.start(settings)
            started = True
        trainer.run()
        model = trainer.model or model
    run.finish()
    return run.out / (RESULT if model is None else "model")


def _check(config: TrainingConfig, model: Model | None, corpus: Corpus) -> None:
    """Whether the series fit the crops and the scale of a stage. Raises `UhrctError` if not."""
    settings = merged({} if model is None else model.config.as_dict(), config.model)
    wanted = checked(ModelConfig, settings, "model")
    acquisition = Acquisition(wanted.scale, **wanted.acquisition)
    BatchMaker(corpus.patients, config.data, acquisition, context=wanted.context)


def _restored(state: dict[str, Any], run: Run) -> Model:
    try:
        return restored(state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise run.bad_checkpoint(error) from error


def _corpus(config: TrainingConfig, run: Run, corpora: dict[str, Corpus]) -> Corpus:
    """The corpus of a stage; stages with the same one share it."""
    data = config.data
    key = f"{data.corpus} {data.corpus_weights} {data.balanced} {data.validation} {data.clean}"
    if key not in corpora:
        run.say(f"reading {', '.join(data.corpus)}")
        corpora[key] = Corpus.load(data, run.device, main=run.main)
        for remark in remarks(corpora[key].patients):  # such as clipping, which must not be learned unnoticed
            run.say(f"note: {remark}")
    return corpora[key]
