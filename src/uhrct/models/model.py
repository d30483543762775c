"""A super-resolution model: networks, structure operator, acquisition and diffusion behind one configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from uhrct.core.arguments import LARGEST_FACTOR
from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.models.calibration import CALIBRATION, Calibration, load_calibration
from uhrct.models.diffusion import Diffusion
from uhrct.models.dssp import DSSP, from_channels, to_channels
from uhrct.models.estimator import ScanEstimator
from uhrct.models.folder import CONFIG, load_weights, model_folder, read_settings, save_folder, weights_name
from uhrct.models.folder import available_models as available_models
from uhrct.models.interval import IntervalSize, interval_inputs, interval_network, widths_hu
from uhrct.models.sample_start import SampleStart
from uhrct.models.settings import Settings, checked
from uhrct.models.spread import local_sd_hu
from uhrct.models.tiling import Box, run_tiled
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.physics.scan_properties import N_CONDITIONS, ScanProperties, kept_noise_hu
from uhrct.structure import StructureOperator

#: networks see (HU - CENTRE_HU) / SCALE_HU; HU below FLOOR_HU count as FLOOR_HU
CENTRE_HU, SCALE_HU = -500.0, 500.0


# bounds keep a configuration from a stranger from asking for more memory than there is
Width = Annotated[int, Field(ge=1, le=1024)]
Blocks = Annotated[int, Field(ge=0, le=64)]
Factor = Annotated[int, Field(ge=1, le=LARGEST_FACTOR)]


class NetworkSize(Settings):
    """The size of one DSSP network (`uhrct.models.dssp.DSSP`)."""

    #: features of the image stream, and its residual blocks
    image_width: Width = 96
    image_blocks: Blocks = 5
    #: features of the structure stream (0: the network has none), and its residual blocks
    structure_width: Annotated[int, Field(ge=0, le=1024)] = 16
    structure_blocks: Blocks = 2
    #: residual blocks after the streams are joined
    fusion_blocks: Blocks = 1


class ModelConfig(Settings):
    """The settings of a model, as its `config.json` stores them."""

    #: output voxels per input voxel along (z, y, x)
    scale: tuple[Factor, Factor, Factor] = (1, 2, 2)
    #: the network that gives the posterior mean E[y | x] in one pass; null: none
    mean: NetworkSize | None = NetworkSize()
    #: the network that diffuses the residual around that mean, or around the interpolation if there is no mean network
    #: (the paper's system); null: none
    denoiser: NetworkSize | None = None
    #: the network that predicts how far the truth may lie from the mean (`uhrct.models.interval`); null: none
    interval: IntervalSize | None = None
    #: the structure operator that makes the prior map and the target of the structure heads
    structure: StructureOperator = StructureOperator()
    #: changes to the default `uhrct.physics.acquisition.Acquisition`
    acquisition: dict[str, Any] = Field(default_factory=dict)
    diffusion: Diffusion = Diffusion()
    #: HU by which the residuals of the mean network and of the denoiser are divided
    residual_sd_hu: PositiveFloat = 30.0
    sample_sd_hu: PositiveFloat = 15.0
    #: divide the residual of the denoiser by a local standard deviation instead (`uhrct.models.spread`); null: do not
    sample_spread: tuple[float, float, float, float] | None = None
    #: begin samples with a random residual (`uhrct.models.sample_start`); null: with pure noise
    sample_start: SampleStart | None = None
    #: neighbours on each side of a slice that the mean network sees
    context: Annotated[int, Field(ge=0, le=16)] = 0
    #: whether the networks are given the scan properties as input (`ScanProperties.conditions`)
    properties: bool = False
    #: width of the network that estimates the scan properties; 0: none
    estimator: Annotated[int, Field(ge=0, le=1024)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.mean is None and self.denoiser is None:
            raise ValueError("a model needs a mean network, a denoiser or both")
        if self.interval is not None and self.mean is None:
            raise ValueError("an interval network needs a mean network")
        if self.sample_start is not None and len(self.sample_start.amplitudes) != self.scale[0]:
            raise ValueError(f"sample_start.amplitudes: give {self.scale[0]} rows, one for each fine slice")
        if self.sample_start is not None and self.diffusion.levels == "linear":
            raise ValueError("sample_start needs diffusion.levels cosine")
        if self.scale[0] > 1 and self.context < 2:
            raise ValueError(f"scale {self.scale}: interpolation along z needs context 2 or more, not {self.context}")
        try:
            Acquisition(self.scale, **self.acquisition)
        except TypeError as error:
            raise ValueError(f"acquisition: unknown setting ({error})") from error
        return self

    @property
    def slices(self) -> int:
        """LR slices that the mean network sees for one: the slice and its neighbours."""
        return 2 * self.context + 1


def read_config(folder: Path) -> tuple[ModelConfig, str]:
    """(configuration, sha256 of the weights or "") of a model folder.

    Raises
    ------
    UhrctError
        If the folder holds no readable configuration of a super-resolution model.
    """
    raw, sha256 = read_settings(folder)
    if raw.pop("peer", None) is not None:  # version 0.1.0 wrote this key, as null, into every model
        raise UhrctError(f"{folder}: weights of a peer network; only uhrct benchmark uses them")
    return checked(ModelConfig, raw, str(folder / CONFIG)), sha256


@dataclass(frozen=True)
class Features:
    """Inputs of the networks for a batch of LR slices. They are made from whole slices, so tiles cannot change them."""

    x: Tensor  # (B, 2 context + 1, y, x) normalised LR: slice and neighbours
    up_hu: Tensor  # (B, sz, y sy, x sx) interpolation, HU
    prior: Tensor | None  # (B, sz sy sx, y, x) structure map of up_hu, if a network has a structure stream
    properties: Tensor | None = None  # (B, k) or (1, k) scan properties, if the model takes them
    box: Box | None = None  # the mean network runs there; elsewhere the mean is the interpolation. None: everywhere


class Model(nn.Module):
    """Takes low-resolution slices and gives their posterior mean, or samples around it, at high resolution.

    Tensors of low-resolution slices are (B, n, y, x): each slice lies in the middle of its neighbours. Tensors of the
    result are (B, sz, y sy, x sx): the fine slices inside each slice.

    Example
    -------
    >>> model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    >>> features = model.features(torch.full((1, 1, 8, 8), -1000.0), (1.4, 1.4))
    >>> hr_hu, structure = model.mean_hu(features)
    >>> hr_hu.shape
    torch.Size([1, 1, 16, 16])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.acquisition = Acquisition(config.scale, **config.acquisition)
        self.operator = config.structure
        self.diffusion = config.diffusion
        sz, sy, sx = config.scale
        n = sz * sy * sx
        common: dict[str, Any] = {"sub_voxels": n, "properties": N_CONDITIONS if config.properties else 0}
        self.mean: DSSP | None = None
        self.denoiser: DSSP | None = None
        if config.mean is not None:
            self.mean = DSSP(inputs=config.slices, noisy=False, **common, **config.mean.as_dict())
        if config.denoiser is not None:
            # it sees the slice, and the mean, which knows the neighbours
            inputs = 1 + (n if self.mean is not None else 0)
            self.denoiser = DSSP(inputs=inputs, noisy=True, **common, **config.denoiser.as_dict())
        self.interval: DSSP | None = None
        if config.interval is not None:
            self.interval = interval_network(config.interval, slices=config.slices, sub_voxels=n)
        self.estimator = ScanEstimator(config.estimator) if config.estimator else None
        self.weights_sha256 = ""
        self.weights_name = ""
        #: where the weights came from; None: made in memory
        self.folder: Path | None = None
        #: of the intervals; None: they are not calibrated
        self.calibration: Calibration | None = None

    def features(self, lr_hu: Tensor, spacing_mm: Any, properties: Tensor | ScanProperties | None = None) -> Features:
        """The inputs of the networks for LR slices.

        Parameters
        ----------
        lr_hu : (B, 2 context + 1, y, x), HU
        spacing_mm : (y, x) of the LR pixels, or one such pair per slice
        properties : one for all slices, or (B, k) vectors; None: those of the clean benchmark
        """
        up_hu = _one_by_one(lambda stack, _: upsample_stack(stack.float(), self.config.scale), lr_hu, spacing_mm)
        x = normalised(lr_hu)
        known = None
        if self.config.properties:
            if not isinstance(properties, Tensor):
                properties = torch.tensor([(properties or ScanProperties()).conditions()])
            known = properties.to(lr_hu.device)
        return Features(x, up_hu, self._prior(up_hu, spacing_mm), known)

    def _prior(self, hr_hu: Tensor, lr_spacing_mm: Any) -> Tensor | None:
        """The structure map of fine slices as channels. It takes longer than a small network, so only where used."""
        if not any(network is not None and network.structure is not None for network in (self.mean, self.denoiser)):
            return None
        _, sy, sx = self.config.scale
        if isinstance(lr_spacing_mm[0], Sequence):
            spacing: Any = [(a / sy, b / sx) for a, b in lr_spacing_mm]
        else:
            spacing = (lr_spacing_mm[0] / sy, lr_spacing_mm[1] / sx)
        return to_channels(_one_by_one(self.structure_of, hr_hu, spacing), sy, sx)

    def structure_of(self, hr_hu: Tensor, hr_spacing_mm: Any) -> Tensor:
        """The structure map of fine slices (B, sz, y', x'), slice by slice. The spacing is that of the HR pixels."""
        b, sz = hr_hu.shape[:2]
        if isinstance(hr_spacing_mm[0], Sequence):
            hr_spacing_mm = [s for s in hr_spacing_mm for _ in range(sz)]
        return self.operator(hr_hu.flatten(0, 1), hr_spacing_mm).unflatten(0, (b, sz))

    def mean_hu(self, f: Features, tile: int | None = None) -> tuple[Tensor, Tensor | None]:
        """(posterior mean in HU, structure map in [0, 1] or None), each (B, sz, y sy, x sx)."""
        if self.mean is None:
            raise UhrctError("this model has no posterior-mean network; draw a sample with steps=2 or more")
        image, structure = run_tiled(self.mean, tile, f.x, f.prior, box=f.box, properties=f.properties)
        hr = f.up_hu + self._hr(image) * self.config.residual_sd_hu
        return hr, None if structure is None else self._hr(structure).clamp(0, 1)

    def interval_hu(
        self, f: Features, mean_hu: Tensor, kernel: Tensor, tile: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """(width below, width above) the mean in HU, each (B, sz, y sy, x sx), before calibration.

        Parameters
        ----------
        kernel : (B, 2) or (1, 2), `uhrct.models.interval.kernel_input`
        """
        if self.interval is None:
            raise UhrctError("this model has no interval network; train its stage `interval`")
        kernel = kernel.to(mean_hu.device)
        outputs, _ = run_tiled(self.interval, tile, self.interval_inputs(f, mean_hu), properties=kernel)
        below, above = widths_hu(outputs)
        return self._hr(below), self._hr(above)

    def interval_inputs(self, f: Features, mean_hu: Tensor) -> Tensor:
        """The inputs of the interval network, (B, channels, y, x)."""
        _, sy, sx = self.config.scale
        lr_hu = f.x[:, self.config.context, None] * SCALE_HU + CENTRE_HU
        return interval_inputs(f.x, lr_hu, to_channels(mean_hu - f.up_hu, sy, sx))

    def sample_hu(
        self,
        f: Features,
        mean_hu: Tensor | None,
        spacing_mm: Any,
        noise: Callable[[int], Tensor],
        steps: int | None = None,
        tile: int | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """One posterior sample in HU, (B, sz, y sy, x sx).

        Parameters
        ----------
        mean_hu : the result of `mean_hu`, or None for a model without a mean network
        noise : step -> N(0, 1), (B, sz sy sx, y, x)
        steps : number of denoising steps; None: the model's default
        tile : side of the tiles in LR pixels; None: whole slices
        on_step : is called after each denoising step
        """
        if self.denoiser is None:
            raise UhrctError("this model has no denoiser and cannot draw samples; use steps=1")
        denoiser = self.denoiser
        x, prior, anchor = self.denoiser_inputs(f, mean_hu, spacing_mm)

        def denoise(z: Tensor, sqrt_g: Tensor) -> Tensor:
            prediction = run_tiled(denoiser, tile, x, prior, z, sqrt_g=sqrt_g, properties=f.properties)[0]
            if on_step is not None:
                on_step()
            return prediction

        sd_hu, start = self.residual_sd_hu(f, anchor), self.config.sample_start
        if start is None:
            return anchor + self._hr(self.diffusion.sample(denoise, noise, steps)) * sd_hu
        local_hu = self._local_sd_hu(f, anchor, start.spread)
        # a step that no sampler asks for gives noise that is independent of theirs
        guess = start.residual(self._hr(noise(-1)), local_hu) / sd_hu
        begin = to_channels(guess, *self.config.scale[1:])
        e = self.diffusion.sample(denoise, noise, steps, begin=begin, left_out=start.left_out)
        return anchor + self._hr(e) * sd_hu

    def residual_sd_hu(self, f: Features, anchor_hu: Tensor) -> Tensor:
        """HU per unit of the residual that is diffused around `anchor_hu`, (B, sz, y sy, x sx) or (1, 1, 1, 1)."""
        if self.config.sample_spread is None:
            return torch.full((1, 1, 1, 1), self.config.sample_sd_hu, device=anchor_hu.device)
        return self._local_sd_hu(f, anchor_hu, self.config.sample_spread)

    def _local_sd_hu(self, f: Features, anchor_hu: Tensor, coefficients: tuple[float, ...]) -> Tensor:
        told = f.properties
        kept = torch.zeros(1) if told is None else kept_noise_hu(told)
        return local_sd_hu(anchor_hu, f.up_hu, kept.to(anchor_hu)[:, None, None, None], coefficients)

    def denoiser_inputs(
        self, f: Features, mean_hu: Tensor | None, spacing_mm: Any
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(x, prior, anchor): the two inputs of the denoiser, and the HU image whose residual it diffuses."""
        x = f.x[:, self.config.context, None]
        if mean_hu is None:
            return x, f.prior, f.up_hu
        _, sy, sx = self.config.scale
        residual = to_channels((mean_hu - f.up_hu) / self.config.residual_sd_hu, sy, sx)
        return torch.cat([x, residual], 1), self._prior(mean_hu, spacing_mm), mean_hu

    def _hr(self, channels: Tensor) -> Tensor:
        _, sy, sx = self.config.scale
        return from_channels(channels, sy, sx)

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "x2", device: str | torch.device = "cpu", *, calibrated: bool = True
    ) -> Model:
        """Load a shipped model by its name, or any model folder by its path; ready for inference.

        Parameters
        ----------
        calibrated : False: without the calibration of its intervals, to make a new one

        Raises
        ------
        UhrctError
            If there is no such model, its format is of another version, its weights are damaged, or its calibration
            was made for other weights.
        """
        folder = model_folder(name)
        config, sha256 = read_config(folder)
        model = cls(config)
        model.weights_sha256, model.weights_name = load_weights(model, folder, sha256), weights_name(folder)
        model.folder = folder
        model.calibration = load_calibration(folder, model.weights_sha256) if calibrated else None
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` (float32), each complete or not at all.

        A calibration of the weights that the folder held before is removed.
        """
        self.weights_sha256 = save_folder(self, self.config.as_dict(), Path(folder))
        self.calibration = None
        (Path(folder) / CALIBRATION).unlink(missing_ok=True)


def stacks(slices: Tensor, middle: Sequence[int], context: int) -> Tensor:
    """The slices `middle` of (z, y, x), each with `context` neighbours on both sides: (B, 2 context + 1, y, x).

    Beyond the ends of the volume the last slice is repeated.

    Example
    -------
    >>> stacks(torch.arange(4.0)[:, None, None], [0, 2], 1).flatten(1).tolist()
    [[0.0, 0.0, 1.0], [1.0, 2.0, 3.0]]
    """
    offset = torch.arange(-context, context + 1)
    index = (torch.tensor(list(middle))[:, None] + offset).clamp(0, len(slices) - 1)
    return slices[index.to(slices.device)]


def normalised(hu: Tensor) -> Tensor:
    """HU scaled as the networks see them, float32."""
    return (hu.float().clamp(min=FLOOR_HU) - CENTRE_HU) / SCALE_HU


def _one_by_one(f: Callable[[Tensor, Any], Tensor], images: Tensor, spacing_mm: Any) -> Tensor:
    """f(images, spacing_mm); in inference slice by slice, so that a result does not depend on the rest of the batch.

    A batched matrix product may differ from a single one in the last digit of float32. Later rounding to bfloat16
    would turn that into tenths of HU.
    """
    if not torch.is_inference_mode_enabled() or len(images) == 1:
        return f(images, spacing_mm)
    own = spacing_mm if isinstance(spacing_mm[0], Sequence) else [spacing_mm] * len(images)
    return torch.cat([f(image[None], s) for image, s in zip(images, own, strict=True)])
