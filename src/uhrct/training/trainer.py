"""The training loop: batches, gradients, averaged weights, checkpoints, validation. It knows no particular network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from uhrct.models.precision import inference_dtype
from uhrct.training.budget import Budget
from uhrct.training.config import LoopSettings
from uhrct.training.optimizers import average_of, make_optimizers, pace
from uhrct.training.run import Run

#: loss(network, batch, generator, share of the training that is over) -> (value, its parts for the log)
Loss = Callable[[nn.Module, Any, torch.Generator, float], tuple[Tensor, dict[str, Tensor]]]


class Batches(Protocol):
    """Makes the batch of any step, such as `uhrct.training.data.batches.BatchMaker`."""

    @property
    def patients(self) -> Sequence[Any]:
        """The series that are used."""

    @property
    def left_out(self) -> list[str]:
        """One line for each series that cannot be used."""

    def __call__(self, step: int, rank: int = 0) -> Any:
        """The batch of a step."""


class Series(Protocol):
    """The series of a training, such as `uhrct.training.data.patients.Corpus`."""

    @property
    def validation(self) -> Sequence[Any]:
        """What is scored on the way; each has a `name`."""

    @property
    def sha256(self) -> str:
        """Of what is trained on; empty if it is not known."""


class Trainer(ABC):
    """Trains one network until its budget ends.

    A subclass gives the loss, the validation and the way to save the result. It may also replace `make_step`, where a
    step is more than one loss.

    Parameters
    ----------
    network : the part that is trained
    config : settings
    batches : makes the batch of a step
    run : folder, device and processes
    corpus : training and validation series
    budget : how long
    stage : name of this training in the log
    """

    #: momentum of AdamW
    betas = (0.9, 0.999)
    loss: Loss

    def __init__(
        self,
        network: nn.Module,
        config: LoopSettings,
        batches: Batches,
        run: Run,
        corpus: Series,
        budget: Budget,
        stage: str,
    ) -> None:
        self.network, self.config, self.batches = network.train().requires_grad_(True), config, batches
        self.folder, self.corpus, self.budget, self.stage = run, corpus, budget, stage
        self.average = average_of(network, config.optimizer.ema)
        self.optimizers = self.make_optimizers()
        self.step = 0
        #: the step that was scored last
        self.scored = 0
        self.running: dict[str, float] = {}
        # the compiled and the distributed network share the parameters of `network`
        wrapped: Any = torch.compile(network) if config.compile else network
        self.wrapped: nn.Module = nn.parallel.DistributedDataParallel(wrapped) if run.world > 1 else wrapped

    @property
    def averaged(self) -> Any:
        """The network with averaged weights, which is what is validated and saved."""
        return self.average.module

    # --- what a subclass gives

    @abstractmethod
    def validate(self, patient: Any) -> dict[str, float]:
        """Scores of the averaged network on a validation series."""

    @abstractmethod
    def score_line(self, scores: dict[str, float]) -> str:
        """The most important scores in words."""

    @property
    @abstractmethod
    def explanation(self) -> str:
        """What the most important printed losses are."""

    @abstractmethod
    def save_result(self) -> None:
        """Write the averaged network into the folder of the run."""

    def more_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the network and its optimizers."""
        return {}

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of the network."""
        return make_optimizers(self.network, self.config.optimizer, self.betas)

    def make_step(self, done: float) -> dict[str, Tensor]:
        """One training step; the parts of the loss, for the log."""
        return self.descend(self.loss, self.optimizers, done)

    # --- the loop

    def run_alone(self) -> Path:
        """A training of this single stage: go on from the checkpoint of the run, train, and give the folder `model`."""
        run = self.folder
        if run.checkpoint is not None:
            self.resume(run.checkpoint)
        run.start(self.config.as_dict())
        self.run()
        run.finish()
        return run.out / "model"

    def run(self) -> None:
        """Train until the budget or the number of steps ends, then validate and save."""
        run, config = self.folder, self.config
        size = sum(p.numel() for p in self.network.parameters()) / 1e6
        processes = f", {run.world} processes" if run.world > 1 else ""
        begun = f", going on at step {self.step}" if self.step else ""
        run.say(
            f"stage {self.stage}: {len(self.batches.patients)} series, {size:.2f} M parameters, {run.device}{processes}"
            + begun
        )
        for note in self.batches.left_out:
            run.say(f"note: {note}")
        run.say(f"losses are means over about 100 steps; lower is better. {self.explanation}")
        first = self.step
        said = saved = validated = self.budget.minutes
        while (done := self._progress()) < 1:
            parts = self.make_step(done)
            self.step += 1
            self.average.update_parameters(self.network)
            self._track(parts)
            now = self.budget.minutes
            if run.main:
                if now - said > 0.5:
                    said = now
                    self._log(done)
                if now - saved > config.checkpoint_minutes:
                    saved = now
                    self.save()
                if now - validated > config.validate_minutes:
                    self._validate()
                    validated = self.budget.minutes
        if not run.main:
            return
        if self.step > first:
            self._log(1.0)
            self.save()
        # a training that was interrupted may have only this left to do
        if self.corpus.validation and self.scored < self.step:
            self._validate()
            self.save()

    def descend(
        self, loss: Loss, optimizers: list[torch.optim.Optimizer], done: float, name: str = ""
    ) -> dict[str, Tensor]:
        """One step of some optimizers down a loss; the parts of the loss and the norm of its gradient."""
        settings = self.config.optimizer
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group in groups:
            group["lr"] = settings.learning_rate * pace(self.step, done, settings.warmup_steps)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts = self._gradients(loss, done)
        norm = nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], settings.gradient_clip)
        if torch.isfinite(norm):  # one bad batch must not end a training of hours
            for optimizer in optimizers:
                optimizer.step()
        return {**parts, f"{name}gradient_norm": norm}

    def _gradients(self, loss: Loss, done: float) -> dict[str, Tensor]:
        """Add up the gradients of `accumulate` batches; the parts of the last one's loss."""
        run, n = self.folder, self.config.optimizer.accumulate
        for k in range(n):
            micro_step = self.step * n + k
            generator = torch.Generator().manual_seed((self.config.seed * 7_919 + micro_step) * 1013 + run.rank)
            # processes exchange their gradients once per step
            wait = self.wrapped.no_sync() if run.world > 1 and k < n - 1 else nullcontext()  # type: ignore[operator]
            with wait:
                with self._autocast():
                    value, parts = loss(self.wrapped, self.batches(micro_step, run.rank), generator, done)
                (value / n).backward()
        return parts

    def _progress(self) -> float:
        """Share of the steps or of the budget that is used, the same in every process."""
        done = max(self.step / self.config.steps, self.budget.used())
        if self.folder.world > 1:
            shared = torch.tensor([done], dtype=torch.float64, device=self.folder.device)
            torch.distributed.broadcast(shared, 0)
            done = float(shared)
        return done

    def _autocast(self) -> AbstractContextManager[Any]:
        device = self.folder.device
        dtype = inference_dtype(device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)

    # --- what is written

    def _track(self, parts: dict[str, Tensor]) -> None:
        """Running means over about 100 steps. One value that is not finite is left out, since it would stay forever."""
        for name, part in parts.items():
            value = float(part.detach())
            if math.isfinite(value):
                self.running[name] = 0.99 * self.running.get(name, value) + 0.01 * value

    def _log(self, done: float) -> None:
        rate = self.optimizers[0].param_groups[0]["lr"]
        self._record({"lr": rate, **{name: round(value, 6) for name, value in self.running.items()}})
        left = (1 - done) / done * self.budget.minutes if done > 0 else math.nan
        parts = "  ".join(f"{name} {value:.4f}" for name, value in self.running.items() if name != "interpolation")
        if "interpolation" in self.running:
            parts = parts.replace("pixel ", f"pixel (interpolation {self.running['interpolation']:.2f}) ", 1)
        self.folder.say(f"{self.stage}, step {self.step}, {self.budget.minutes:.1f} min ({left:.0f} left)  {parts}")

    def _record(self, values: dict[str, Any]) -> None:
        sha256 = {"corpus_sha256": self.corpus.sha256[:16]} if self.corpus.sha256 else {}
        self.folder.log({"stage": self.stage, "step": self.step, **self.budget.spent, **values, **sha256})

    @torch.no_grad()
    def _validate(self) -> None:
        if not self.corpus.validation:
            return
        self.budget.used()
        begun = self.budget.minutes, self.budget.cpu_minutes
        with self._autocast():
            scores = {patient.name: self.validate(patient) for patient in self.corpus.validation}
        self.budget.used()  # else the next validation would follow at once, where one takes long
        self.budget.keep_for_the_end(self.budget.minutes - begun[0], self.budget.cpu_minutes - begun[1])
        self._record({"validation": scores})
        self.scored = self.step
        for name, values in scores.items():
            self.folder.say(f"  validation {name}: {self.score_line(values)}")

    def save(self) -> None:
        """Write the checkpoint and the result."""
        self.folder.save(
            {
                "stage": self.stage,
                "step": self.step,
                "scored": self.scored,
                "minutes": self.budget.minutes,
                "cpu_minutes": self.budget.cpu_minutes,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "config": self.config.as_dict(),
                **self.more_state(),
            }
        )
        self.save_result()

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of this stage.

        Raises
        ------
        UhrctError
            If the checkpoint does not fit.
        """
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
            self.step, self.budget.minutes = state["step"], state["minutes"]
            self.scored = state.get("scored", self.step)  # older checkpoints do not say it
            self.budget.cpu_minutes = state["cpu_minutes"]
            before, now = _flat(state["config"]), _flat(self.config.as_dict())
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise self.folder.bad_checkpoint(error) from error
        for key in sorted(key for key in now if now[key] != before.get(key)):
            self.folder.say(f"note: {key} was {before.get(key)!r} until step {self.step}; now it is {now[key]!r}")


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their names with dots."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return out
