"""The stages that train the networks of a model: the posterior mean, then the denoiser and the interval around it."""

from __future__ import annotations

from typing import Any

import torch

from uhrct.core.errors import UhrctError
from uhrct.models.choice import scale_word
from uhrct.models.model import Model, ModelConfig
from uhrct.models.settings import checked
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig, merged
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Corpus, Patient
from uhrct.training.losses import DenoiserLoss, IntervalLoss, MeanLoss
from uhrct.training.residuals import measured_residual
from uhrct.training.run import Run
from uhrct.training.trainer import Trainer
from uhrct.training.validation import interval_line, interval_scores, restorer, score_line, scores

#: what stands in a model's configuration for a network that it does not have
ABSENT = {"mean": None, "denoiser": None, "interval": None, "estimator": 0}
#: the loss of each stage
LOSSES: dict[str, type[MeanLoss | DenoiserLoss | IntervalLoss]] = {
    "mean": MeanLoss,
    "denoiser": DenoiserLoss,
    "interval": IntervalLoss,
}


class ModelTrainer(Trainer):
    """Stage mean, denoiser or interval: trains one network of a model; its other networks stay as they are.

    Parameters
    ----------
    source : the model so far, from the stages before or from `config.init`; None: there is none
    """

    def __init__(self, config: TrainingConfig, source: Model | None, run: Run, corpus: Corpus, budget: Budget) -> None:
        self.settings = config
        self.model = build_model(config, source).to(run.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = make_batches(config, self.model, corpus)
        # a denoiser without a local spread gets one, and must be trained on
        known = source is not None and source.denoiser is not None and (not source.mean or source.config.sample_spread)
        new = config.stage == "denoiser" and not known
        if new and not {"sample_sd_hu", "sample_spread"} & config.model.keys():
            found = measured_residual(self.model, batches)
            self.model.config = self.model.config.model_copy(update=found)
            sd_hu = found["sample_sd_hu"]
            run.say(f"sample_sd_hu is {sd_hu} HU: the error, on training batches, of the image to sample around")
        network = getattr(self.model, config.stage)
        super().__init__(network, config, batches, run, corpus, budget, config.title)
        # from here on the model holds the averaged weights, and the trained ones are in `network` alone
        setattr(self.model, config.stage, self.averaged)
        self.model.eval().requires_grad_(False)
        self.loss = LOSSES[config.stage](self.model, config.loss, 1 - config.data.augmented)

    def validate(self, patient: Patient) -> dict[str, float]:
        if self.settings.stage == "interval":
            return interval_scores(self.model, patient, self.settings.data.validation_slices)
        restore = restorer(self.model, sample=self.settings.stage == "denoiser")
        return scores(restore, patient, self.model.acquisition, self.settings.data.validation_slices)

    def score_line(self, scores: dict[str, float]) -> str:
        return interval_line(scores) if self.settings.stage == "interval" else score_line(scores)

    @property
    def explanation(self) -> str:
        if self.settings.stage == "mean":
            return "pixel: error of the network's image; in brackets, in the same unit: error of interpolation"
        return "pixel: error of the denoiser's prediction at random noise levels"

    def save_result(self) -> None:
        self.model.save_pretrained(self.folder.out / "model")

    def more_state(self) -> dict[str, Any]:
        return {"model": stored(self.model)}


def stored(model: Model) -> dict[str, Any]:
    """A model as a checkpoint holds it."""
    return {"config": model.config.as_dict(), "weights": model.state_dict()}


def restored(state: dict[str, Any]) -> Model:
    """The inverse of `stored`."""
    model = Model(checked(ModelConfig, state["config"], "checkpoint"))
    model.load_state_dict(state["weights"])
    return model


def make_batches(config: TrainingConfig, model: Model, corpus: Corpus) -> BatchMaker:
    """The batches of a stage."""
    return BatchMaker(
        corpus.patients,
        config.data,
        model.acquisition,
        context=0 if config.stage == "estimator" else model.config.context,  # it sees single slices
        seed=config.seed,
        lungs=bool(config.loss.lengths_share),
        as_scanned=config.stage == "interval",
    )


def build_model(config: TrainingConfig, source: Model | None) -> Model:
    """The model of a stage: the networks of `source`, and that of the stage, new or from `source`.

    Networks of later stages are left out, so that every saved model is complete.

    Raises
    ------
    UhrctError
        If the stage needs a network that is not there, or one of `source` has another size than the settings say.
    """
    stage = config.stage
    wanted = config.model if source is None else merged(source.config.as_dict(), config.model)
    if stage == "estimator" and source is None:
        raise UhrctError("stage estimator: there is no model yet; train a mean network first, or give init=MODEL")
    around = stage == "interval" or (stage == "denoiser" and wanted.get("mean", {}) is not None)
    if around and (source is None or source.mean is None):
        raise UhrctError(f"stage {stage}: no trained mean network; train stage mean first, or give init=MODEL")
    if wanted.get(stage, {} if stage == "mean" else None) in (None, 0):
        raise UhrctError(f"stage {stage}: the model has no such network; give model.{stage}")
    absent = {n: none for n, none in ABSENT.items() if n != stage and (source is None or getattr(source, n) is None)}
    torch.manual_seed(config.seed)
    model = Model(checked(ModelConfig, {**wanted, **absent}, "model"))
    given = {} if source is None else source.state_dict()
    given = {name: value for name, value in given.items() if getattr(model, name.split(".")[0]) is not None}
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    unfit = sorted({name.split(".")[0] for name, value in given.items() if shapes.get(name) != value.shape})
    if unfit and source is not None and source.config.scale != model.config.scale:
        have, want = scale_word(source.config.scale), scale_word(model.config.scale)
        raise UhrctError(f"init: the weights have scale {have}, the configuration {want}; take both of one scale")
    if unfit:
        raise UhrctError(f"the {' and '.join(unfit)} network to start from has another size; leave model.* as it is")
    model.load_state_dict(given, strict=False)
    return model
