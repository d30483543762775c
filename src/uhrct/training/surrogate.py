"""Trains the learned enhancement operator O_Fc: L1 to the map of the analytic operator (eq. 8), on HR slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uhrct.evaluation.protocol import evenly_spaced
from uhrct.evaluation.structure_error import SMSE_WINDOW_HU
from uhrct.models.model import Model, ModelConfig
from uhrct.models.settings import checked
from uhrct.models.surrogate import Surrogate
from uhrct.physics.resampling import upsample_stack
from uhrct.structure import StructureOperator
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batch import Batch, Scale, hr_spacing
from uhrct.training.data.patients import Corpus, Patient
from uhrct.training.run import Run
from uhrct.training.stages import make_batches
from uhrct.training.trainer import Trainer

RESULT = "surrogate.safetensors"


class SurrogateTrainer(Trainer):
    """Stage surrogate: trains a surrogate of the operator `config.model["structure"]`.

    The first half of a batch are mixtures of a slice with its interpolation: such images networks in training make.
    """

    #: this stage leaves no model behind
    model = None

    def __init__(self, config: TrainingConfig, source: Model | None, run: Run, corpus: Corpus, budget: Budget) -> None:
        model = Model(checked(ModelConfig, config.model, "model"))
        torch.manual_seed(config.seed)
        self.scale, self.operator = model.config.scale, model.operator
        self.slices = config.data.validation_slices
        batches = make_batches(config, model, corpus)
        network = Surrogate(self.operator).to(run.device)
        super().__init__(network, config, batches, run, corpus, budget, config.title)
        self.loss = self._loss

    def _loss(
        self, network: nn.Module, batch: Batch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image, spacing_mm = mixtures(batch, self.scale, generator), hr_spacing(batch, self.scale)
        error = (network(image, spacing_mm) - self.operator(image, spacing_mm)).abs().mean()
        return error, {"error": error}

    def validate(self, patient: Patient) -> dict[str, float]:
        return {"mean_error": mean_error(self.averaged, self.operator, patient, self.slices)}

    def score_line(self, scores: dict[str, float]) -> str:
        return f"mean absolute difference from the operator's map {scores['mean_error']:.4f}"

    @property
    def explanation(self) -> str:
        return "error: mean absolute difference from the operator's map"

    def save_result(self) -> None:
        self.averaged.save(self.folder.out / RESULT)


def mixtures(batch: Batch, scale: Scale, generator: torch.Generator) -> Tensor:
    """Slices (B, sz, y', x') of a batch in HU, the first half of them mixed with their interpolation."""
    image = batch.hr_hu
    half = len(image) // 2
    if half:
        up = upsample_stack(batch.lr_hu[:half], scale)
        share = torch.rand(half, 1, 1, 1, generator=generator).to(image.device)
        image = torch.cat([image[:half].lerp(up, share), image[half:]])
    return image.clamp(*SMSE_WINDOW_HU)


@torch.no_grad()
def mean_error(surrogate: Surrogate, operator: StructureOperator, patient: Patient, slices: int) -> float:
    """Mean absolute difference of the two maps over evenly spaced slices of a series."""
    errors = []
    for k in evenly_spaced(len(patient.hu), slices):
        image = patient.hu[k].float().clamp(*SMSE_WINDOW_HU)
        made, wanted = surrogate(image, patient.spacing_mm), operator(image, patient.spacing_mm)
        errors.append(float((made - wanted).abs().mean()))
    return round(sum(errors) / len(errors), 5)
