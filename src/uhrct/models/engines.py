"""Run the mean network in 8-bit integers with OpenVINO, on a CPU.

In float32 and bfloat16 other programs were no faster than torch (`benchmarks/engines.py`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.models.dssp import DSSP
from uhrct.models.model import Model

ENGINES = ("torch", "int8")
#: the mean network in 8-bit integers, and what it was made from (`uhrct.upscaling.quantize`)
INT8, INT8_FACTS = "int8.onnx", "int8.json"
#: inputs of an exported network; one without a structure stream has no prior
INPUTS = ("x", "properties", "prior")

_made: WeakKeyDictionary[Model, dict[str, Model]] = WeakKeyDictionary()


def with_engine(model: Model, engine: str) -> Model:
    """The model, with its mean network run by one of `ENGINES`. All else stays in torch.

    "int8" computes the inner layers in 8-bit integers; `docs/scale.md` says what that costs and saves.

    Raises
    ------
    UhrctError
        If OpenVINO is missing, the model is not on a CPU, or has no mean network in integers.

    Example
    -------
    >>> from uhrct.models.model import ModelConfig
    >>> model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1}))
    >>> with_engine(model, "torch") is model
    True
    """
    if engine == "torch":
        return model
    made = _made.setdefault(model, {})
    if engine not in made:
        if model.mean is None:
            raise UhrctError(f"engine {engine} runs the mean network, and these weights have none; use engine torch")
        device = next(model.parameters()).device
        if device.type != "cpu":
            raise UhrctError(f"engine {engine} runs on a CPU, not on {device.type}; give device cpu, or engine torch")
        other = copy.copy(model)
        other._modules = dict(model._modules)  # a copy shares its networks, but not the place of the mean network
        other.mean = _Integers(model.mean, int8_file(model))  # type: ignore[assignment]
        made[engine] = other
    return made[engine]


def int8_file(model: Model) -> Path:
    """The mean network of a model in 8-bit integers.

    Raises
    ------
    UhrctError
        If there is none, it is damaged, or it was made from other weights.
    """
    folder = model.folder
    if folder is None or not (folder / INT8).is_file():
        raise UhrctError(f"weights {model.weights_name or 'in memory'} have no {INT8}; use engine torch")
    try:
        facts = json.loads((folder / INT8_FACTS).read_text())
        made_from, sha256 = facts["weights_sha256"], facts["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UhrctError(f"{folder / INT8_FACTS}: not readable; fetch the model again") from error
    if made_from != model.weights_sha256:
        raise UhrctError(f"{folder / INT8}: made from other weights; use engine torch")
    if hashlib.sha256((folder / INT8).read_bytes()).hexdigest() != sha256:
        raise UhrctError(f"{folder / INT8}: damaged (its sha256 differs from {INT8_FACTS}); fetch the model again")
    return folder / INT8


def engine_version(engine: str) -> str:
    """Name and version of an engine, as reports state them; "" for torch, which they state anyway."""
    return "" if engine == "torch" else f"{engine}, OpenVINO {_openvino().__version__.split('-')[0]}"


class Image(nn.Module):
    """The image of a network without its structure map, as an exported file holds it."""

    def __init__(self, network: DSSP) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, properties: Tensor, prior: Tensor | None = None) -> Tensor:
        """(1, sub_voxels, y, x)."""
        return self.network(x, prior, properties=properties)[0]


def shapes(network: DSSP) -> dict[str, list[int]]:
    """The shape of each input of an exported network. -1 stands for any height or width."""
    told = 1 if network.told is None else int(network.told[0].in_features)  # type: ignore[arg-type]
    made = {"x": [1, network.image.head.in_channels, -1, -1], "properties": [1, told]}
    if network.structure is not None:
        made["prior"] = [1, network.to_image.out_channels, -1, -1]
    return made


def blanks(network: DSSP, height: int = 24, width: int = 32) -> tuple[Tensor, ...]:
    """Inputs of zeros, from which a program learns the layers."""
    sides = {2: height, 3: width}
    return tuple(
        torch.zeros([sides.get(i, n) if n < 0 else n for i, n in enumerate(s)]) for s in shapes(network).values()
    )


class _Integers(nn.Module):
    """Stands in the place of a `DSSP` without noisy input: the same inputs, no structure map."""

    def __init__(self, network: DSSP, file: Path) -> None:
        super().__init__()
        self.replaced = network  # its parameters say on which device the model is
        self.structure, self.halo = network.structure, network.halo
        core = _openvino().Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not in integers
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.run = core.compile_model(core.read_model(str(file)), "CPU", settings)

    def forward(
        self, x: Tensor, prior: Tensor | None = None, *, properties: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """(image, None). Slices run one by one."""
        images = [self._one(x, prior, properties, k) for k in range(len(x))]
        return torch.from_numpy(np.concatenate(images)), None

    def _one(self, x: Tensor, prior: Tensor | None, properties: Tensor | None, k: int) -> np.ndarray:
        given = dict(zip(INPUTS, (x, properties, prior), strict=True))
        arrays = {
            name: value[k if len(value) > 1 else 0][None].contiguous().float().numpy()
            for name, value in given.items()
            if value is not None
        }
        return np.array(self.run(arrays)[0])


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UhrctError("engine int8 needs OpenVINO: pip install 'uhrct[int8]'") from error
    return openvino
