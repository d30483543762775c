"""Run the mean network with OpenVINO instead of torch, on a CPU: in float32, or in 8-bit integers."""

from __future__ import annotations

import copy
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

ENGINES = ("torch", "openvino", "openvino-int8")
#: the mean network in 8-bit integers, and what it was made from (`uhrct.upscaling.quantize`)
INT8, INT8_FACTS = "int8.onnx", "int8.json"
#: inputs of an exported network; one without a structure stream has no prior
INPUTS = ("x", "properties", "prior")

_made: WeakKeyDictionary[Model, dict[str, Model]] = WeakKeyDictionary()


def with_engine(model: Model, engine: str) -> Model:
    """The model, with its mean network run by one of `ENGINES`. All else stays in torch.

    "openvino" computes in float32 and agrees with torch to a hundredth of a HU. "openvino-int8" computes the inner
    layers in 8-bit integers; `docs/scale.md` says what that costs.

    Raises
    ------
    UhrctError
        If OpenVINO is missing, the model is not on a CPU or has no mean network, or has no network in integers.

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
        source = int8_file(model) if engine == "openvino-int8" else None
        other.mean = _OpenVINO(model.mean, source)  # type: ignore[assignment]
        made[engine] = other
    return made[engine]


def int8_file(model: Model) -> Path:
    """The mean network of a model in 8-bit integers.

    Raises
    ------
    UhrctError
        If there is none, or it was made from other weights.
    """
    folder = model.folder
    if folder is None or not (folder / INT8).is_file():
        raise UhrctError(f"weights {model.weights_name or 'in memory'} have no {INT8}; use engine openvino")
    try:
        facts = json.loads((folder / INT8_FACTS).read_text())
    except (OSError, ValueError) as error:
        raise UhrctError(f"{folder / INT8_FACTS}: not readable; fetch the model again") from error
    if facts.get("weights_sha256") != model.weights_sha256:
        raise UhrctError(f"{folder / INT8}: made from other weights; use engine openvino")
    return folder / INT8


def engine_version(engine: str) -> str:
    """Name and version of an engine, as reports state them; "" for torch, which they state anyway."""
    return "" if engine == "torch" else f"{engine} {_openvino().__version__.split('-')[0]}"


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


class _OpenVINO(nn.Module):
    """Stands in the place of a `DSSP` without noisy input: the same inputs, no structure map."""

    def __init__(self, network: DSSP, source: Path | None) -> None:
        super().__init__()
        self.structure, self.halo = network.structure, network.halo
        self.told = network.told
        openvino = _openvino()
        if source is None:
            graph = openvino.convert_model(
                Image(network), example_input=blanks(network), input=list(shapes(network).values())
            )
            for port, name in zip(graph.inputs, shapes(network), strict=True):
                port.get_tensor().set_names({name})
        else:
            graph = openvino.Core().read_model(str(source))
        self.run = openvino.Core().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 differs by .35 HU on average, torch's by .06 HU
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            },
        )

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
        raise UhrctError("this engine needs OpenVINO: pip install 'uhrct[openvino]'") from error
    return openvino
