"""The settings of a training: each with its reason, read from YAML, changed on the command line as key=value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from uhrct.core.errors import UhrctError
from uhrct.core.yaml_text import parsed_yaml
from uhrct.models.model import ModelConfig
from uhrct.models.settings import Settings, checked

Share = Annotated[float, Field(ge=0, le=1)]
#: one path or a list of paths
Paths = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v or ())]


class DataSettings(Settings):
    """What the network is trained on, and how it is shown."""

    #: folders, files or packed stores of high-resolution CT; every series in them is used
    corpus: Paths = ("../shared/ct/train",)
    #: how often a series is drawn, by its name; 1 where it is not named
    corpus_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    #: draw each pair of a patient and a kernel about equally often, however many slices it has; off: each series
    balanced: bool = True
    #: series that the network never trains on; they are scored on the way
    validation: Paths = ("../shared/ct/validation",)
    #: evenly spaced slices of each validation series that are scored
    validation_slices: PositiveInt = 8
    #: through plane: series with a larger distance between slices are left out, since they show too little along z
    max_slice_spacing_mm: PositiveFloat = 2.5
    #: crops per step
    batch: PositiveInt = 16
    #: side of a crop in low-resolution pixels
    crop: PositiveInt = 48
    #: share of the batch with a rescaled grid, another kernel and more noise, so that few patients look like more
    augmented: Share = 0.5
    #: share of the batch with another PSF, kernel, noise and slab width (`uhrct.training.data.scanners`)
    degraded: Share = 0.0
    #: folder that keeps the denoised targets (`uhrct.training.data.clean_targets`), made at the first training;
    #: "": targets keep their noise. The model must take scan properties.
    clean: str = ""
    #: share of the batch whose target is the denoised scan; the others keep the noise of the scan
    denoised: Share = 0.0


class OptimizerSettings(Settings):
    """How the weights are moved."""

    #: "adamw", or "muon": orthogonal steps for the inner convolutions, AdamW for the rest
    name: Literal["adamw", "muon"] = "adamw"
    #: size of a step; it falls along a cosine to 1 % at the end
    learning_rate: PositiveFloat = 8e-4
    #: share of a weight that each step takes away, in learning rates
    weight_decay: NonNegativeFloat = 1e-4
    #: steps over which the learning rate rises at the start
    warmup_steps: PositiveInt = 200
    #: largest norm of a gradient
    gradient_clip: PositiveFloat = 1.0
    #: the saved weights are an average over about the last 1 / (1 - ema) steps
    ema: Share = 0.999
    #: batches whose gradients make one step: a larger batch in the same memory
    accumulate: PositiveInt = 1


class LossSettings(Settings):
    """What a step costs (eqs. 6-9 of the paper; the published weights are l2=5, l1=1)."""

    #: L_pixel = l2 |d|^2 + l1 |d| of the normalised residual (eq. 6)
    l2: NonNegativeFloat = 5.0
    l1: NonNegativeFloat = 1.0
    #: stage mean: divide the pixel loss of each crop by the error of interpolation there
    relative: bool = True
    #: stage mean: shipped model or model folder with a better mean network. The target is `teacher_share` of its image
    #: plus the rest of the truth: less of it is beyond prediction, so a small network learns faster
    teacher: str = ""
    teacher_share: Share = 0.8
    #: weights of the two parts of L_struct (eq. 7): |G_struct - O(y)| of the structure head, |O(G_img) - O(y)| of the
    #: image
    structure_head: NonNegativeFloat = 0.1
    structure_image: NonNegativeFloat = 0.0
    #: stage mean, in place of `structure_image`: the gradient of the image's part has this share of the pixel loss's
    structure_share: NonNegativeFloat = 0.0
    #: 1: absolute difference of the maps of the image; 2: its square
    structure_power: Literal[1, 2] = 1
    #: O of the image's part: vc, frangi, jerman, surrogate (O_Fc), or a surrogate's file; "": the model's own
    structure_operator: str = ""
    #: contrast of that operator; 0: the model's own
    structure_contrast_hu: NonNegativeFloat = 0.0
    #: the image's structure and length parts begin after this share of the training
    structure_from: Share = 0.0
    #: share of the crops of a batch that structure parts look at, because operators are slow
    structure_items: Annotated[float, Field(gt=0, le=1)] = 0.25
    #: stage mean: loss of broken and invented vessel length in the lungs, with this share of the pixel loss's gradient
    lengths_share: NonNegativeFloat = 0.0
    #: how much invented length costs beside broken length
    invented_cost: NonNegativeFloat = 1.0

    @model_validator(mode="after")
    def _one_strength(self) -> LossSettings:
        if self.structure_share and self.structure_image:
            raise ValueError("structure_share and structure_image set the same strength; give one of them")
        return self


class LoopSettings(Settings):
    """What the training loop needs (`uhrct.training.trainer`)."""

    optimizer: OptimizerSettings = OptimizerSettings()
    #: everything random depends on this number and the step
    seed: int = 0
    #: largest number of steps; a time budget may end the training earlier
    steps: PositiveInt = 100_000
    #: compile the network with torch.compile: pays on GPUs and in long runs
    compile: bool = False
    #: minutes between two validations, and between two checkpoints
    validate_minutes: float = 10.0
    checkpoint_minutes: float = 3.0


class RunSettings(LoopSettings):
    """What every training of a super-resolution network has, also that of a peer."""

    data: DataSettings = DataSettings()


class TrainingConfig(RunSettings):
    """One stage of a training."""

    #: which network is trained: the posterior mean; the denoiser around it; the interval around the mean; the estimator
    #: of the scan properties; or a surrogate of the structure operator
    stage: Literal["mean", "denoiser", "interval", "estimator", "surrogate"] = "mean"
    #: name of the stage in the log; "": the same as `stage`
    name: str = ""
    #: share of the time budget, relative to the other stages
    share: PositiveFloat = 1.0
    #: shipped model or model folder to start from; null: random weights
    init: str | None = None
    #: settings of the model (`uhrct.models.model.ModelConfig`), or changes to those of `init`
    model: dict[str, Any] = Field(default_factory=dict)
    loss: LossSettings = LossSettings()

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.stage in ("denoiser", "interval") and (self.loss.structure_share or self.loss.lengths_share):
            raise ValueError("loss.structure_share and loss.lengths_share work in stage mean only; set them there")
        return self

    @property
    def title(self) -> str:
        """The name of the stage in the log."""
        return self.name or self.stage


def load_recipe(path: str | Path | None, overrides: list[str] | None = None) -> list[TrainingConfig]:
    """The stages of a training, from a YAML file (None: the defaults) with ``key=value`` changes.

    A list `stages` holds the settings that differ from stage to stage; all other settings are common to the stages.
    ``stages.NAME.key=value`` changes one stage, ``stages=[NAME]`` keeps only some of them.

    Raises
    ------
    UhrctError
        If the file cannot be read, or for a key that is unknown or has an impossible value.

    Example
    -------
    >>> [stage] = load_recipe(None, ["data.batch=4", "model.mean.image_width=32"])
    >>> stage.data.batch, stage.model
    (4, {'mean': {'image_width': 32}})
    """
    where = str(path or "configuration")
    raw = read_settings(path, overrides)
    listed = raw.pop("stages", None) or [{}]
    if not isinstance(listed, list) or not all(isinstance(stage, dict) for stage in listed):
        raise UhrctError(f"{where}: setting stages={listed!r}: give a list of groups of settings")
    stages = [checked(TrainingConfig, merged(raw, stage), where) for stage in listed]
    titles = [stage.title for stage in stages]
    if len({*titles}) < len(titles):
        raise UhrctError(f"{where}: two stages are called {max(titles, key=titles.count)}; give them different names")
    if any(stage.init != stages[0].init for stage in stages):
        raise UhrctError(f"{where}: setting init belongs to the whole training; set it at the top, not in a stage")
    for stage in stages:
        if stage.init is None:  # else `model` holds changes only
            checked(ModelConfig, stage.model, f"{where}: model")
    return stages


def read_settings(path: str | Path | None, overrides: list[str] | None = None) -> dict[str, Any]:
    """The settings in a YAML file (None: none) with ``key=value`` changes, unchecked."""
    raw: Any = {}
    if path is not None:
        try:
            raw = parsed_yaml(Path(path).read_text()) or {}
        except OSError as error:
            raise UhrctError(f"{path}: configuration not readable ({error.strerror})") from error
        except UhrctError as error:
            raise UhrctError(f"{path}: {error}") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise UhrctError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(raw, dict):
            raise UhrctError(f"{path}: a configuration is a list of key: value")
    stages = raw.get("stages")
    for item in overrides or []:
        _change(raw, item)
        if isinstance(stages, list) and isinstance(raw["stages"], list) and raw["stages"] is not stages:
            # names in a new list stand for stages of the file
            raw["stages"] = [_find(stages, name, item) if isinstance(name, str) else name for name in raw["stages"]]
    return raw


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, group by group: model.mean.image_width=64 leaves the rest of model.mean as it is."""
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def _change(raw: dict[str, Any], item: str) -> None:
    """Set one ``key=value`` in nested settings."""
    key, equals, value = item.partition("=")
    if not equals:
        raise UhrctError(f"{item!r}: write changes as key=value")
    *parents, last = key.split(".")
    level: Any = raw
    for part in parents:
        level = _find(level, part, item) if isinstance(level, list) else level.setdefault(part, {})
        if not isinstance(level, (dict, list)):
            raise UhrctError(f"{item!r}: {part} is a value, not a group of settings")
    if isinstance(level, list):
        raise UhrctError(f"{item!r}: name a setting of the stage, such as {key}.steps")
    try:
        level[last] = parsed_yaml(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise UhrctError(f"{item!r}: not a YAML value") from error


def _find(stages: list[Any], name: str, item: str) -> dict[str, Any]:
    """The stage of that name."""
    named = {s.get("name") or s.get("stage", "mean"): s for s in stages if isinstance(s, dict)}
    if name not in named:
        raise UhrctError(f"{item!r}: no stage {name}; there are {', '.join(named)}")
    return named[name]
