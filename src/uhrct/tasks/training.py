"""Trains a mask network on scans with masks, with the trainer and the budget of our other networks."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from uhrct.core.errors import InputRefused
from uhrct.core.undefined import Undefined
from uhrct.core.volume import Volume
from uhrct.evaluation.trees import dice
from uhrct.models.settings import Settings, checked
from uhrct.structure.vessels import cldice
from uhrct.tasks.cases import Case, Segmenter, load_cases
from uhrct.tasks.learned_masks import MARKED_FROM
from uhrct.tasks.mask_network import MaskNetwork, MaskNetworkConfig
from uhrct.tasks.network import monai
from uhrct.tasks.patches import PatchBatch, PatchMaker
from uhrct.tasks.segment import segment
from uhrct.training.budget import Budget
from uhrct.training.config import LoopSettings, Paths, read_settings
from uhrct.training.run import Run
from uhrct.training.trainer import Trainer

Side = Annotated[int, Field(ge=8, le=512)]


class TaskData(Settings):
    """What the network is trained on."""

    #: folders of scans, with or without masks (`uhrct.tasks.cases`)
    corpus: Paths = ("../shared/ct/train",)
    #: cases that the network never trains on; they are scored on the way
    validation: Paths = ()
    #: folder that keeps the masks of scans that have none
    masks: str = "runs/masks"
    #: scans with a larger distance between slices are left out, since thin vessels are broken there
    max_slice_spacing_mm: PositiveFloat = 1.5
    #: branches of phantoms that are narrower are not marked, since their image does not show them
    least_diameter_mm: NonNegativeFloat = 0.0
    #: side of a patch (z, y, x) in voxels, multiples of 8
    patch: tuple[Side, Side, Side] = (32, 96, 96)
    #: patches per step
    batch: PositiveInt = 2
    #: slices in the middle of each validation case that are scored
    validation_slices: PositiveInt = 48


class TaskTraining(LoopSettings):
    """The training of a mask network."""

    task: MaskNetworkConfig
    data: TaskData = TaskData()


@dataclass(frozen=True)
class Cases:
    """The cases of a training, those of its validation, and the sha256 of what it trains on."""

    train: list[Case]
    validation: list[Case]
    sha256: str


class MaskTrainer(Trainer):
    """Trains a mask network by the sum of Dice loss and cross-entropy.

    References
    ----------
    Isensee et al., "nnU-Net", Nature Methods 2021, doi 10.1038/s41592-020-01008-z: this loss, and deep U-Nets as the
    baseline of segmentation.
    """

    def __init__(self, config: TaskTraining, run: Run, cases: Cases, budget: Budget) -> None:
        monai()
        from monai.losses.dice import DiceCELoss

        torch.manual_seed(config.seed)
        self.model = MaskNetwork(config.task).to(run.device)
        patches = PatchMaker(cases.train, config.data.patch, config.data.batch, seed=config.seed, device=run.device)
        super().__init__(self.model, config, patches, run, cases, budget, config.task.task)
        self.slices = config.data.validation_slices
        self._dice = DiceCELoss(sigmoid=True, batch=True)

    def loss(
        self, network: nn.Module, batch: PatchBatch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value = self._dice(network(batch.hu).float(), batch.mask)
        return value, {"loss": value}

    def validate(self, patient: Case) -> dict[str, float]:
        first = max(0, (len(patient.hu) - self.slices) // 2)
        middle = slice(first, first + self.slices)
        self.averaged.eval()
        found = self.averaged.probability(patient.hu[middle]) >= MARKED_FROM
        wanted = patient.mask[middle]
        scores = {"dice": dice(wanted, found)}
        with suppress(Undefined):
            scores["cldice"] = cldice(wanted, found)
        return {name: round(value, 4) for name, value in scores.items()}

    def score_line(self, scores: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())

    @property
    def explanation(self) -> str:
        return "loss: Dice loss plus cross-entropy"

    def save_result(self) -> None:
        self.averaged.save_pretrained(self.folder.out / "model")


def train_task(
    config: str | Path,
    overrides: list[str] | None = None,
    *,
    segmenter: Segmenter | None = None,
    out: str | Path,
    max_minutes: float | None = None,
    max_cpu_minutes: float | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    quiet: bool = False,
) -> Path:
    """Train a mask network from a configuration file.

    Parameters
    ----------
    config, overrides : a file such as `configs/vessels.yaml`, and ``key=value`` changes
    segmenter : makes the mask of a scan that has none; None: `uhrct.tasks.segment`
    out : folder of the run (`uhrct.training.run.Run`)
    max_minutes, max_cpu_minutes : budget, resumed parts included; None: until `steps`
    resume : go on from the checkpoint in `out`

    Returns
    -------
    The folder of the trained network.

    Raises
    ------
    UhrctError
        If the configuration, the cases or the folder cannot be used.
    """
    settings = checked(TaskTraining, read_settings(config, overrides), str(config))
    run = Run(out, resume=resume, device=device, quiet=quiet)
    data, task = settings.data, settings.task.task

    def classical(volume: Volume) -> np.ndarray:
        try:
            return segment(volume, task).labels > 0
        except InputRefused:  # no chest
            return np.zeros(volume.shape, bool)

    def cases(roots: tuple[str, ...]) -> list[Case]:
        return load_cases(
            roots,
            task,
            segmenter or classical,
            Path(data.masks),
            largest_mm=data.max_slice_spacing_mm,
            least_diameter_mm=data.least_diameter_mm,
            quiet=quiet,
        )

    train = cases(data.corpus)
    exact = sum(case.exact for case in train)
    run.say(f"{len(train)} cases; {exact} have exact masks, {len(train) - exact} pseudo-references")
    found = Cases(train, cases(data.validation) if data.validation else [], _sha256(train))
    return MaskTrainer(settings, run, found, Budget(max_minutes, max_cpu_minutes)).run_alone()


def _sha256(cases: list[Case]) -> str:
    digest = hashlib.sha256()
    for case in cases:
        digest.update(f"{case.name} {case.spacing_mm}".encode())
        digest.update(case.hu.tobytes())
        digest.update(np.packbits(case.mask).tobytes())
    return digest.hexdigest()
