"""One published model: networks, structure operator, acquisition and diffusion behind one configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uhrct.benchmark.peers import Noise, make_peer
from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.models.diffusion import Diffusion
from uhrct.models.dssp import DSSP, from_channels, to_channels
from uhrct.models.estimator import ScanEstimator, pieces
from uhrct.models.tiling import run_tiled
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.physics.scan_properties import ESTIMATED, N_PROPERTIES, ScanProperties, cautious, from_vector
from uhrct.structure import StructureOperator

FORMAT_VERSION = 1
WEIGHTS_DIR = Path(__file__).parent / "weights"

#: what a network sees: (HU - CENTRE_HU) / SCALE_HU of HU that are not below FLOOR_HU
CENTRE_HU, SCALE_HU = -500.0, 500.0


@dataclass(frozen=True)
class ModelConfig:
    """What makes a model, as stored in its `config.json`.

    `mean` and `denoiser` hold the sizes of the two DSSP networks (or None): the mean network gives E[y | x] in one
    pass; the denoiser diffuses the residual around it (or around the interpolation, if there is no mean network: the
    paper's system). `context` neighbours on each side of a slice are shown to the mean network; `properties`: the
    networks are told what scan it is, which `estimator` (a width, 0: none) estimates. `peer` names a published method
    in the place of both (see `uhrct.benchmark.peers`), for the benchmark.
    """

    scale: tuple[int, int, int] = (1, 2, 2)
    mean: dict[str, int] | None = field(default_factory=dict)
    denoiser: dict[str, int] | None = None
    structure: dict[str, Any] = field(default_factory=dict)
    acquisition: dict[str, Any] = field(default_factory=dict)
    diffusion: dict[str, Any] = field(default_factory=dict)
    residual_sd_hu: float = 30.0
    sample_sd_hu: float = 15.0
    context: int = 0
    properties: bool = False
    estimator: int = 0
    peer: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        if self.peer is not None and (self.mean is not None or self.denoiser is not None or self.context):
            raise UhrctError("a peer is a model of its own, of single slices; give mean: null and no denoiser")
        if self.mean is None and self.denoiser is None and self.peer is None:
            raise UhrctError("a model needs a mean network, a denoiser or both")
        if self.scale[0] > 1 and self.context < 2:
            raise UhrctError(f"scale {self.scale}: interpolation along z needs context 2 or more, not {self.context}")

    @property
    def slices(self) -> int:
        """LR slices that a network is given for one: the slice and its neighbours."""
        return 2 * self.context + 1


@dataclass(frozen=True)
class Features:
    """What the networks see of a batch of LR slices, on whole slices so that tiles can't differ."""

    x: Tensor  # (B, 2 context + 1, y, x) normalised LR: slice and neighbours
    up_hu: Tensor  # (B, sz, y sy, x sx) interpolation, HU
    prior: Tensor  # (B, sz sy sx, y, x) structure map of up_hu
    properties: Tensor | None = None  # (B, k) or (1, k): what scan it is, if the model is told


class Model(nn.Module):
    """Low-resolution slices in, posterior mean and samples out.

    Tensors of low-resolution slices are (B, n, y, x): a slice in the middle of its neighbours; those of the result
    are (B, sz, y sy, x sx): the fine slices inside it.

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
        self.operator = StructureOperator(**_tuples(config.structure))
        self.diffusion = Diffusion(**_tuples(config.diffusion))
        sz, sy, sx = config.scale
        n = sz * sy * sx
        told = N_PROPERTIES if config.properties else 0
        self.mean = (
            None
            if config.mean is None
            else DSSP(inputs=config.slices, sub_voxels=n, noisy=False, properties=told, **config.mean)
        )
        # the denoiser sees x and the mean that it varies around, which knows the neighbours
        seen = 1 + (n if self.mean is not None else 0)
        self.denoiser = (
            None
            if config.denoiser is None
            else DSSP(inputs=seen, sub_voxels=n, noisy=True, properties=told, **config.denoiser)
        )
        self.estimator = ScanEstimator(len(ESTIMATED), config.estimator) if config.estimator else None
        self.peer = None if config.peer is None else make_peer(config.peer, config.scale)
        self.weights_sha256 = ""

    def features(self, lr_hu: Tensor, spacing_mm: Any, properties: Tensor | ScanProperties | None = None) -> Features:
        """What the networks see of LR slices.

        Parameters
        ----------
        lr_hu : (B, 2 context + 1, y, x), HU
        spacing_mm : of the LR pixels, (y, x) or one such pair a slice
        properties : what scan it is, one for all or (B, k) vectors (None: the clean benchmark)
        """
        up_hu = _one_by_one(lambda stack, _: upsample_stack(stack.float(), self.config.scale), lr_hu, spacing_mm)
        x = normalised(lr_hu)
        told = None
        if self.config.properties:
            if not isinstance(properties, Tensor):
                properties = torch.tensor([(properties or ScanProperties()).vector()])
            told = properties.to(lr_hu.device)
        return Features(x, up_hu, self._prior(up_hu, spacing_mm), told)

    def estimate(self, lr_hu: Tensor, *, slice_thickness: float = 1.0, increment_mm: float = 2.5) -> ScanProperties:
        """What scan LR slices (B, y, x) in HU are of, by the median over pieces (no estimator: the clean benchmark)."""
        if self.estimator is None:
            return ScanProperties(slice_thickness=slice_thickness, increment_mm=increment_mm)
        # one by one: whatever else is in the batch, the same digits
        cut = [piece[None] for piece in pieces(lr_hu.float().clamp(min=FLOOR_HU))]
        known = [piece for piece in cut if self.estimator.knows(piece)]
        if 2 * len(known) < len(cut):  # unlike anything that trained it: a wrong PSF does more harm than none
            return ScanProperties(slice_thickness=slice_thickness, increment_mm=increment_mm)
        values = torch.cat([self.estimator(piece) for piece in known]).median(0).values
        seen = from_vector(values.tolist(), slice_thickness=slice_thickness, increment_mm=increment_mm)
        return cautious(seen)

    def _prior(self, hr_hu: Tensor, lr_spacing_mm: Any) -> Tensor:
        _, sy, sx = self.config.scale
        if isinstance(lr_spacing_mm[0], Sequence):
            spacing: Any = [(a / sy, b / sx) for a, b in lr_spacing_mm]
        else:
            spacing = (lr_spacing_mm[0] / sy, lr_spacing_mm[1] / sx)
        return to_channels(_one_by_one(self.structure_of, hr_hu, spacing), sy, sx)

    def structure_of(self, hr_hu: Tensor, hr_spacing_mm: Any) -> Tensor:
        """The structure map of fine slices (B, sz, y', x'), slice by slice; spacing as in `features`, of HR pixels."""
        b, sz = hr_hu.shape[:2]
        if isinstance(hr_spacing_mm[0], Sequence):
            hr_spacing_mm = [s for s in hr_spacing_mm for _ in range(sz)]
        return self.operator(hr_hu.flatten(0, 1), hr_spacing_mm).unflatten(0, (b, sz))

    def mean_hu(self, f: Features, tile: int | None = None) -> tuple[Tensor, Tensor | None]:
        """(posterior mean in HU, structure map in [0, 1] or None), each (B, sz, y sy, x sx)."""
        if self.mean is None:
            raise UhrctError("this model has no posterior-mean network; ask for a sample with --steps 2 or more")
        image, structure = run_tiled(self.mean, tile, f.x, f.prior, properties=f.properties)
        hr = f.up_hu + self._hr(image) * self.config.residual_sd_hu
        return hr, None if structure is None else self._hr(structure).clamp(0, 1)

    def sample_hu(
        self,
        f: Features,
        mean_hu: Tensor | None,
        spacing_mm: Any,
        noise: Callable[[int], Tensor],
        steps: int | None = None,
        tile: int | None = None,
    ) -> Tensor:
        """One posterior sample in HU, (B, sz, y sy, x sx).

        Parameters
        ----------
        mean_hu : what `mean_hu` gave (None for a model without a mean network)
        noise : step -> N(0, 1), (B, sz sy sx, y, x)
        """
        if self.denoiser is None:
            raise UhrctError("this model has no denoiser, so it can't sample; use --steps 1")
        denoiser = self.denoiser
        x, prior, anchor = self.denoiser_inputs(f, mean_hu, spacing_mm)

        def denoise(z: Tensor, sqrt_g: Tensor) -> Tensor:
            return run_tiled(denoiser, tile, x, prior, z, sqrt_g=sqrt_g, properties=f.properties)[0]

        e = self.diffusion.sample(denoise, noise, steps)
        return anchor + self._hr(e) * self.config.sample_sd_hu

    def peer_hu(self, lr_hu: Tensor, noise: Noise | None = None, steps: int | None = None) -> Tensor:
        """What a peer makes of LR slices (B, 1, y, x) in HU: (B, 1, y sy, x sx) in HU.

        Parameters
        ----------
        noise, steps : for peers that sample: step -> N(0, 1), (B, 1, y sy, x sx), and in how many steps
        """
        if self.peer is None:
            raise UhrctError("this model is no peer of the benchmark")
        up_hu = upsample_stack(lr_hu.float(), self.config.scale)
        return self.peer.restore(normalised(lr_hu), normalised(up_hu), noise, steps) * SCALE_HU + CENTRE_HU

    def denoiser_inputs(self, f: Features, mean_hu: Tensor | None, spacing_mm: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(x, prior, anchor): the denoiser's view, and the HU image around which it works."""
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
    def from_pretrained(cls, name: str | Path = "x2", device: str | torch.device = "cpu") -> Model:
        """A shipped model by name, or any model folder (`config.json`, `model.safetensors`).

        Raises
        ------
        UhrctError
            If there is no such model, its format is of another version, or its weights are damaged.
        """
        folder = model_folder(name)
        config, sha256 = read_config(folder)
        try:
            model = cls(config)
        except (TypeError, ValueError) as e:
            raise UhrctError(f"{folder / 'config.json'}: unknown or missing settings ({e})") from e
        file = folder / "model.safetensors"
        if not file.is_file():
            raise UhrctError(f"{file}: no such file; a model folder holds config.json and model.safetensors")
        blob = file.read_bytes()
        if sha256 and hashlib.sha256(blob).hexdigest() != sha256:
            raise UhrctError(f"{file}: damaged (sha256 differs from config.json); fetch the model again")
        import safetensors
        import safetensors.torch

        try:
            model.load_state_dict(safetensors.torch.load(blob))
        except safetensors.SafetensorError as e:
            raise UhrctError(f"{file}: not a readable safetensors file; fetch the model again") from e
        except RuntimeError as e:
            raise UhrctError(f"{file}: its tensors do not fit config.json; fetch the model again") from e
        model.weights_sha256 = hashlib.sha256(blob).hexdigest()
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` (float32), each whole or not at all."""
        import safetensors.torch

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().float().cpu().contiguous() for k, v in self.state_dict().items()}
        blob = safetensors.torch.save(tensors)
        self.weights_sha256 = hashlib.sha256(blob).hexdigest()
        config = {
            "format_version": FORMAT_VERSION,
            "weights_sha256": self.weights_sha256,
            **asdict(self.config),
        }
        for name, data in (
            ("model.safetensors", blob),
            ("config.json", (json.dumps(config, indent=2) + "\n").encode()),
        ):
            unfinished = folder / (name + ".tmp")
            unfinished.write_bytes(data)
            unfinished.replace(folder / name)


def read_config(folder: Path) -> tuple[ModelConfig, str]:
    """(configuration, sha256 of the weights) out of a model folder."""
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text())
    except FileNotFoundError as e:
        raise UhrctError(f"{folder}: not a model folder (no config.json)") from e
    except (ValueError, OSError) as e:
        raise UhrctError(f"{file}: not readable as JSON; fetch the model again") from e
    version = raw.pop("format_version", None) if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise UhrctError(f"{file}: model format {version}, this uhrct reads {FORMAT_VERSION}; update one of them")
    sha256 = raw.pop("weights_sha256", "")
    try:
        return ModelConfig(**raw), sha256
    except TypeError as e:
        raise UhrctError(f"{file}: unknown or missing settings ({e})") from e


def available_models() -> list[Path]:
    """Folders of the models that ship with this package."""
    return sorted(p.parent for p in WEIGHTS_DIR.glob("*/config.json"))


def model_folder(name: str | Path) -> Path:
    """The folder of a shipped model's name, or of a path."""
    for folder in (WEIGHTS_DIR / str(name), Path(name)):
        if folder.is_dir():
            return folder
    known = ", ".join(p.name for p in available_models()) or "none"
    raise UhrctError(f"{name}: no such weights; shipped: {known}; or give a model folder")


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, else float32 (equal to 0.01 dB, bfloat16 several times faster)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # x86 without these instructions emulates bfloat16, slower than float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def stacks(slices: Tensor, middle: Sequence[int], context: int) -> Tensor:
    """The slices numbered `middle` of (z, y, x), each between `context` neighbours a side: (B, 2 context + 1, y, x).

    Beyond an end the last slice goes on.

    Example
    -------
    >>> stacks(torch.arange(4.0)[:, None, None], [0, 2], 1).flatten(1).tolist()
    [[0.0, 0.0, 1.0], [1.0, 2.0, 3.0]]
    """
    offset = torch.arange(-context, context + 1)
    index = (torch.tensor(list(middle))[:, None] + offset).clamp(0, len(slices) - 1)
    return slices[index.to(slices.device)]


def normalised(hu: Tensor) -> Tensor:
    """HU as networks see them, float32."""
    return (hu.float().clamp(min=FLOOR_HU) - CENTRE_HU) / SCALE_HU


def _one_by_one(f: Callable[[Tensor, Any], Tensor], images: Tensor, spacing_mm: Any) -> Tensor:
    """f(images, spacing_mm), in inference slice by slice.

    A batched matrix product may differ from a single one in float32's last digit, and rounding to bfloat16 further on
    would make tenths of HU of that: a slice's result must not depend on its neighbours in the batch.
    """
    if not torch.is_inference_mode_enabled() or len(images) == 1:
        return f(images, spacing_mm)
    own = spacing_mm if isinstance(spacing_mm[0], Sequence) else [spacing_mm] * len(images)
    return torch.cat([f(image[None], s) for image, s in zip(images, own, strict=True)])


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON and YAML know only lists; frozen dataclasses want tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
