"""Trains the network that estimates the scan properties: gathers statistics, then fits a perceptron to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.evaluation.protocol import degraded_stack, evenly_spaced
from uhrct.models.estimator import LOG_ERROR, targets
from uhrct.models.model import Model
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training.budget import Budget
from uhrct.training.config import TrainingConfig
from uhrct.training.data.patients import Corpus, Patient
from uhrct.training.data.scanners import acquire, draw_scan
from uhrct.training.run import Run
from uhrct.training.stages import build_model, make_batches, stored
from uhrct.training.validation import volume_of

#: steps of the perceptron and items per step. They take seconds; making the batches takes the time.
FIT_STEPS, FIT_BATCH = 4000, 256
#: noise on the standardised statistics, because other patients differ by more than the few of the training
JITTER = 0.1
#: weight of the items with the PSF of the benchmarks: batches hold many of them, real scans few
USUAL_WEIGHT = 0.2
#: simulated scans of each validation series
VALIDATION_SCANS = 16


class EstimatorTrainer:
    """Stage estimator: fits the estimator of a model to simulated scans; the other networks stay as they are.

    `config.steps` is the largest number of batches that are gathered. This stage takes minutes: a resumed run does it
    again from its start, unless it was finished.

    Parameters
    ----------
    source : the model so far
    """

    def __init__(self, config: TrainingConfig, source: Model | None, run: Run, corpus: Corpus, budget: Budget) -> None:
        self.config, self.folder, self.corpus, self.budget = config, run, corpus, budget
        self.model = build_model(config, source).to(run.device).eval().requires_grad_(False)
        if not self.model.config.properties:
            raise UhrctError("stage estimator: it needs a model that takes scan properties; set model.properties=true")
        self.finished = False

    def resume(self, state: dict[str, Any]) -> None:
        """A checkpoint of this stage means that it is finished."""
        self.finished = True

    def run(self) -> None:
        """Gather statistics until the budget ends, then fit and save. One process does it all."""
        if self.finished or not self.folder.main:
            return
        assert self.model.estimator is not None
        batches = make_batches(self.config, self.model, self.corpus)
        for note in batches.left_out:
            self.folder.say(f"note: {note}")
        self.budget.used()
        seen: list[Tensor] = []
        truth: list[ScanProperties] = []
        for step in range(self.config.steps):
            batch = batches(step)
            hu = batch.lr_hu[:, 0].clamp(min=FLOOR_HU)
            seen.append(self.model.estimator.statistics(hu))
            truth += batch.scans
            if self.budget.used() >= 1:
                break
        x, y = torch.cat(seen), torch.tensor([targets(s) for s in truth]).to(self.folder.device)
        usual = torch.tensor([s.psf_fwhm == self.model.acquisition.psf_fwhm for s in truth]).to(x.device)
        loss = self._fit(x, y, torch.where(usual, USUAL_WEIGHT, 1.0)[:, None])
        errors = {p.name: self._errors(p) for p in self.corpus.validation}
        self.budget.used()
        record = {"pieces": len(x), "loss": round(loss, 5), "validation": errors}
        about = {"stage": self.config.title, "step": len(seen), **self.budget.spent}
        self.folder.log({**about, **record, "corpus_sha256": self.corpus.sha256[:16]})
        self.folder.say(f"{self.config.title}: {len(x)} pieces in {self.budget.minutes:.1f} min; errors {errors}")
        self.folder.save({**about, "config": self.config.as_dict(), "model": stored(self.model)})
        self.model.save_pretrained(self.folder.out / "model")

    def _fit(self, x: Tensor, y: Tensor, weight: Tensor) -> float:
        """Fit values and their expected errors by the likelihood of a Laplace distribution.

        What the voxels do not show is then estimated as the most usual value, with a large error. Returns the running
        mean of the loss over the last steps.
        """
        estimator = self.model.estimator
        assert estimator is not None
        estimator.centre.copy_(x.mean(0))
        estimator.spread.copy_(x.std(0) + 1e-3)
        layers = estimator.layers.requires_grad_(True)
        optimizer = torch.optim.AdamW(layers.parameters(), lr=2e-3, weight_decay=3e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
        g = torch.Generator().manual_seed(self.config.seed)
        running = torch.nan
        for step in range(FIT_STEPS):
            i = torch.randint(len(x), (FIT_BATCH,), generator=g).to(x.device)
            jitter = JITTER * torch.randn((len(i), x.shape[1]), generator=g).to(x.device)
            value, log_error = layers(estimator.standard(x[i]) + jitter).chunk(2, 1)
            log_error = log_error.clamp(*LOG_ERROR)
            loss = (weight[i] * ((value - y[i]).abs() / log_error.exp() + log_error)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            running = float(loss.detach()) if step == 0 else 0.99 * running + 0.01 * float(loss.detach())
        layers.requires_grad_(False)
        return running

    def _errors(self, patient: Patient) -> dict[str, float]:
        """Mean absolute errors of PSF and edge enhancement over simulated scans of a validation series.

        How many of the scans were unlike the training scans is there too. Noise is left out, because the noise of the
        series itself is not known.
        """
        model, volume = self.model, volume_of(patient)
        assert model.estimator is not None
        g = torch.Generator().manual_seed(0)
        slices = evenly_spaced(volume.shape[0] // model.config.scale[0], self.config.data.validation_slices)
        truths = [degraded_stack(volume, model.acquisition, k)[0][None] for k in slices]
        errors, unlike = [], 0
        for _ in range(VALIDATION_SCANS):
            scan = draw_scan(ScanProperties(), 0.0, False, g)
            lr = torch.cat([acquire(hr, model.acquisition, [scan], g)[:, 0] for hr in truths])
            read = model.estimator.read(lr.to(self.folder.device))
            if read is None:
                unlike += 1
            else:
                errors.append([abs(read.psf_fwhm - scan.psf_fwhm), abs(read.sharpening - scan.sharpening)])
        if not errors:
            return {"unlike": unlike}
        psf, sharpening = torch.tensor(errors).mean(0).tolist()
        return {"psf_fwhm_mae": psf, "sharpening_mae": sharpening, "unlike": unlike}
