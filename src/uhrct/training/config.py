"""What a training is: every setting with its reason, read from YAML, overridable as key=value."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError

STAGES = ("mean", "denoiser", "estimator", "surrogate", "peer")
TOPOLOGY = ("", "recall", "cldice", "lengths")
OPTIMIZERS = ("adamw", "muon")
AUGMENTATIONS = ("grid", "kernel", "noise")


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. Nested settings of the model are reached with dots: ``model.mean.image_width=64``."""

    #: the model (see `uhrct.models.model.ModelConfig`)
    model: dict[str, Any] = field(default_factory=dict)
    #: "mean": the posterior-mean network; "denoiser": the denoiser around the mean network of `init` (or around
    #: the interpolation if the model has none); "estimator": the network that estimates what scan it is; "surrogate":
    #: a network that imitates the operator `model.structure`; "peer": a published method, by its published loss
    stage: str = "mean"
    #: model folder or shipped name to continue from
    init: str | None = None
    #: folders (or files) of HR CT; every series found below is a patient
    corpus: tuple[str, ...] = ("../shared/ct/train",)
    #: shares of the batch by folder name where they are not equal
    corpus_weights: dict[str, float] = field(default_factory=dict)
    validation: tuple[str, ...] = ("../shared/ct/validation",)
    #: evenly spaced slices of each validation patient
    validation_slices: int = 8
    validate_minutes: float = 10.0
    checkpoint_minutes: float = 3.0

    #: beginnings of the names of the parameters to train (none: all of the stage's network)
    only: tuple[str, ...] = ()

    seed: int = 0
    #: optimisation steps at most; with --max-minutes whichever ends first sets the pace of the cosine
    steps: int = 100_000
    batch: int = 16
    #: LR pixels along a crop's side
    crop: int = 48
    #: share of the batch from rescaled grids with varied kernel and noise: few patients look like more
    augmented: float = 0.5
    #: which of these those items get
    augmentations: tuple[str, ...] = AUGMENTATIONS
    #: share of the items that another scanner made: PSF, kernel, noise, slab width (training/degrade.py)
    degraded: float = 0.0
    #: batches whose gradients make one step: a larger batch in the same memory
    accumulate: int = 1
    #: torch.compile the network: pays on GPUs and in long runs (needs a C++ compiler on CPUs)
    compile: bool = False

    #: "adamw", or "muon": orthogonal steps for the convolutions between features, AdamW for the rest
    optimizer: str = "adamw"
    learning_rate: float = 8e-4
    weight_decay: float = 1e-4
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    #: of the weights that are kept: an average over the last 1 / (1 - ema) steps
    ema: float = 0.999

    #: L_pixel = l2_weight |d|^2 + l1_weight |d| on the normalised residual (eq. 6; published 5 and 1)
    l2_weight: float = 5.0
    l1_weight: float = 1.0
    #: count each crop's pixel loss relative to interpolation's error there (posterior mean only)
    relative: bool = True
    #: lambda_2's two parts: |G_struct - O(y)|_1 of the structure head, |O(G_img) - O(y)|_1 of the image (eq. 7)
    structure_head_weight: float = 0.1
    structure_image_weight: float = 0.0
    #: in place of that weight: the norm of the image's structure gradient, as a share of the pixel loss's
    structure_share: float = 0.0
    #: 1: |O(G_img) - O(y)|, 2: its square
    structure_power: int = 1
    #: O of the image's loss: vc, frangi, jerman, surrogate, or FILE.safetensors ("", 0: the model's own kind, contrast)
    structure_operator: str = ""
    structure_contrast_hu: float = 0.0
    #: where that difference counts: "image", or in the "lungs" alone
    structure_where: str = "image"
    #: share of the training (of its steps or minutes) after which the image's structure and topology terms begin
    structure_from: float = 0.0
    #: share of the batch's items that structure terms look at: they cost in proportion, and pull the same on average.
    #: Up to 1 - augmented they look at items that nothing varied; above, at varied ones too, which costs PSNR
    structure_items: float = 0.25
    #: "recall": skeleton recall of the reference's vessels; "cldice": soft clDice; "lengths": what is broken and what
    #: is invented; with such a share of the gradient
    topology: str = ""
    topology_share: float = 0.05
    #: "lengths": so many times counts what is invented beside what is broken
    invented_cost: float = 1.0
    #: a voxel counts 1 + vessel_weight O(y) in the pixel loss where it lies in the lungs
    vessel_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise UhrctError(f"stage {self.stage!r} is not known; choose from {', '.join(STAGES)}")
        if unknown := sorted(set(self.augmentations) - set(AUGMENTATIONS)):
            raise UhrctError(f"augmentation {unknown[0]!r} is not known; choose from {', '.join(AUGMENTATIONS)}")
        if self.topology not in TOPOLOGY:
            raise UhrctError(f"topology {self.topology!r} is not known; choose from {', '.join(TOPOLOGY[1:])}")
        if self.optimizer not in OPTIMIZERS:
            raise UhrctError(f"optimizer {self.optimizer!r} is not known; choose from {', '.join(OPTIMIZERS)}")
        if self.structure_where not in ("image", "lungs"):
            raise UhrctError(f"structure_where is {self.structure_where!r}; give image or lungs")
        if not 0 < self.structure_items <= 1:
            raise UhrctError(f"structure_items is {self.structure_items}; give a share of the batch, such as 0.25")
        if self.structure_power not in (1, 2):
            raise UhrctError(f"structure_power is {self.structure_power}; give 1 (absolute) or 2 (squared difference)")
        if self.structure_share and self.structure_image_weight:
            raise UhrctError("structure_share and structure_image_weight: one loss has one strength; give one of them")
        for name in ("batch", "crop", "steps", "accumulate"):
            if getattr(self, name) < 1:
                raise UhrctError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def looks_at_lungs(self) -> bool:
        """Whether a term needs to know where the lungs are."""
        return bool(self.topology or self.vessel_weight or self.structure_where == "lungs")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as for YAML or JSON."""
        return asdict(self)


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> TrainingConfig:
    """A training configuration from a YAML file (None: the defaults) with ``key=value`` overrides.

    Raises
    ------
    UhrctError
        For a file that is not there or not YAML, and for keys that do not exist.

    Example
    -------
    >>> load_config(None, ["batch=4", "model.mean.image_width=32"]).model
    {'mean': {'image_width': 32}}
    """
    import yaml

    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = yaml.safe_load(Path(path).read_text()) or {}
        except OSError as e:
            raise UhrctError(f"{path}: configuration not readable ({e.strerror})") from e
        except (yaml.YAMLError, UnicodeDecodeError) as e:
            raise UhrctError(f"{path}: not valid YAML: {' '.join(str(e).split())}") from e
        if not isinstance(raw, dict):
            raise UhrctError(f"{path}: a configuration is a list of key: value")
    for item in overrides or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise UhrctError(f"{item!r}: overrides are written key=value")
        *parents, last = key.split(".")
        level = raw
        for p in parents:
            level = level.setdefault(p, {})
            if not isinstance(level, dict):
                raise UhrctError(f"{item!r}: {p} is a value, not a group of settings")
        try:
            level[last] = yaml.safe_load(value)
        except yaml.YAMLError as e:
            raise UhrctError(f"{item!r}: not a YAML value") from e
    known = {f.name for f in fields(TrainingConfig)}
    if unknown := sorted(set(raw) - known):
        raise UhrctError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}")
    for name in ("corpus", "validation", "only", "augmentations"):
        if name in raw:
            paths = [raw[name]] if isinstance(raw[name], str) else raw[name] or []
            if not isinstance(paths, (list, tuple)):
                raise UhrctError(f"setting {name}={paths!r}: give a word or a path, or a list of paths or words")
            raw[name] = tuple(map(str, paths))
    return replace(TrainingConfig(), **{key: _typed(key, value) for key, value in raw.items()})


def _typed(key: str, value: Any) -> Any:
    """`value` as the type of its field: YAML 1.1 reads 8e-4 as a string."""
    kind = type(getattr(TrainingConfig(), key))
    if kind in (int, float):
        try:
            number = float(value)
        except (TypeError, ValueError) as e:
            raise UhrctError(f"setting {key}={value!r} is not a number") from e
        if not math.isfinite(number) or isinstance(value, bool) or number != kind(number):
            raise UhrctError(f"setting {key}={value!r}: give a {'whole ' if kind is int else ''}number")
        return kind(number)
    if not isinstance(value, kind) and not (key == "init" and isinstance(value, str)):
        what = {bool: "true or false", str: "a word", dict: "a group of settings"}.get(kind, f"not {value!r}")
        raise UhrctError(f"setting {key}={value!r}: give {what}")
    return value
