"""Trains a peer by its published loss, with the trainer, the corpus and the budget of our own networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from uhrct.benchmark.peers.gan_circle import GanCircle
from uhrct.benchmark.peers.losses import critics_loss, generators_loss, paired_loss
from uhrct.benchmark.peers.model import PeerConfig, PeerModel
from uhrct.core.errors import UhrctError
from uhrct.evaluation.protocol import CONTEXT
from uhrct.models.settings import checked
from uhrct.training.budget import Budget
from uhrct.training.config import RunSettings, read_settings
from uhrct.training.data.batch import Batch
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import Corpus, Patient
from uhrct.training.optimizers import make_optimizers
from uhrct.training.run import Run
from uhrct.training.trainer import Trainer
from uhrct.training.validation import score_line, scores, white_noise


class PeerTrainingConfig(RunSettings):
    """The training of one peer."""

    #: the name of the method as `architecture`, and its sizes
    peer: dict[str, Any]
    scale: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)


class PeerTrainer(Trainer):
    """Trains a peer on pairs."""

    def __init__(self, config: PeerTrainingConfig, run: Run, corpus: Corpus, budget: Budget) -> None:
        torch.manual_seed(config.seed)
        self.model = PeerModel(PeerConfig(peer=config.peer, scale=config.scale)).to(run.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        peer = self.model.peer
        self.betas = peer.betas
        batches = BatchMaker(corpus.patients, config.data, self.model.acquisition, seed=config.seed)
        super().__init__(peer, config, batches, run, corpus, budget, config.peer["architecture"])
        # from here on the model holds the averaged weights
        self.model.peer = self.averaged.eval()
        self.slices = config.data.validation_slices
        self.peer = peer

    def loss(
        self, network: nn.Module, batch: Batch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return paired_loss(self.peer, network, batch, self.model.config.scale, generator)

    def validate(self, patient: Patient) -> dict[str, float]:
        _, sy, sx = self.model.config.scale

        def restore(lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
            lr = lr_hu[None, CONTEXT, None].to(self.folder.device)
            fine = (1, 1, lr.shape[-2] * sy, lr.shape[-1] * sx)
            return self.model.restore_hu(lr, white_noise(fine, lr.device))[0]

        return scores(restore, patient, self.model.acquisition, self.slices)

    def score_line(self, scores: dict[str, float]) -> str:
        return score_line(scores)

    @property
    def explanation(self) -> str:
        return "The parts are those of the published loss"

    def save_result(self) -> None:
        self.model.save_pretrained(self.folder.out / "model")


class GanCircleTrainer(PeerTrainer):
    """Trains GAN-CIRCLE: in each step first the critics take a step, then the generators."""

    peer: GanCircle

    def __init__(self, config: PeerTrainingConfig, run: Run, corpus: Corpus, budget: Budget) -> None:
        if run.world > 1:
            raise UhrctError("GAN-CIRCLE trains in one process only; start it without torchrun")
        super().__init__(config, run, corpus, budget)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        self.sides: dict[str, list[torch.optim.Optimizer]] = {
            name: make_optimizers(getattr(self.network, name), self.config.optimizer, self.betas)
            for name in ("critics", "generators")
        }
        return [optimizer for optimizers in self.sides.values() for optimizer in optimizers]

    def make_step(self, done: float) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        for name, loss in (("critics", critics_loss), ("generators", generators_loss)):
            for side in self.sides:  # the other side stays as it is, and takes no gradient
                getattr(self.network, side).requires_grad_(side == name)
            parts |= self.descend(self._one_side(loss), self.sides[name], done, f"{name}_")
        return parts

    def _one_side(self, loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]) -> Any:
        scale = self.model.config.scale
        return lambda network, batch, generator, done: loss(network, batch, scale, generator)


def train_peer(
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
    """Train a peer from a configuration file.

    Parameters
    ----------
    config, overrides : a file of `configs/peers`, and ``key=value`` changes
    out : folder of the run (`uhrct.training.run.Run`)
    max_minutes, max_cpu_minutes : budget, resumed parts included; None: until `steps`
    resume : go on from the checkpoint in `out`

    Returns
    -------
    The folder of the trained model.

    Raises
    ------
    UhrctError
        If the configuration, the corpus or the folder cannot be used.
    """
    settings = checked(PeerTrainingConfig, read_settings(config, overrides), str(config))
    run = Run(out, resume=resume, device=device, quiet=quiet)
    budget = Budget(max_minutes, max_cpu_minutes)
    corpus = Corpus.load(settings.data, run.device, main=run.main)
    kind = GanCircleTrainer if settings.peer.get("architecture") == "gan-circle" else PeerTrainer
    return kind(settings, run, corpus, budget).run_alone()
