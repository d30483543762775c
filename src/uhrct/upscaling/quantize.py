"""Makes the 8-bit form of a mean network, which `--engine int8` runs.

    python -m uhrct.upscaling.quantize x2 x4              # writes int8.onnx and int8.json beside the weights

It needs `pip install 'uhrct[onnx]'`. The ranges of the layers come from slices of training scans, each as it is (as
users give scans), and simulated at low resolution (as the networks were trained). First and last layers stay float32,
because HU need more than eight bits. The file belongs to these weights: after new weights, make it again.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct import io
from uhrct.core.files import write_atomic, write_json
from uhrct.core.volume import Volume
from uhrct.models.engines import INT8, INT8_FACTS, Image, blanks, shapes
from uhrct.models.folder import model_folder
from uhrct.models.model import Features, Model, stacks
from uhrct.physics.acquisition import Acquisition
from uhrct.upscaling.onnx_file import without_places
from uhrct.upscaling.plan import UpscaleSettings, make_plan

#: training scans that set the ranges: several vendors, kernels and body parts
SCANS = ("lidc0001", "lidc0648", "tcga_bc_a10x", "lungdx_a0170", "ctlymph_abd001", "colonography0001")
#: side of the pieces in pixels, and pieces of each scan
SIDE, PIECES = 192, 3


def export(model: Model, path: Path) -> Path:
    """Write the mean network as ONNX, for any size of slice: x, prior, properties -> image (`Image`)."""
    assert model.mean is not None
    sides = {2: torch.export.Dim("y"), 3: torch.export.Dim("x")}
    named = shapes(model.mean)
    torch.onnx.export(
        Image(model.mean).eval(),
        blanks(model.mean),
        str(path),
        input_names=list(named),
        output_names=["image"],
        dynamo=True,
        external_data=False,
        dynamic_shapes=tuple(sides if -1 in shape else None for shape in named.values()),
        verbose=False,
    )
    return path


def inputs(f: Features) -> dict[str, np.ndarray]:
    """The inputs of an exported network by name."""
    given = {"x": f.x, "properties": torch.zeros(1, 1) if f.properties is None else f.properties}
    if f.prior is not None:
        given["prior"] = f.prior
    return {name: value.contiguous().numpy() for name, value in given.items()}


def examples(model: Model, data: Path, scans: Iterable[str] = SCANS) -> Iterator[Features]:
    """Inputs of the network on pieces of training scans."""
    for name in scans:
        volume = io.read(data / name)
        z, y, x = model.config.scale
        fine = volume.hu[:, : volume.shape[1] // y * y, : volume.shape[2] // x * x].astype(np.float32)
        fine = fine[: len(fine) // z * z]
        if len(fine):
            hr = torch.from_numpy(fine)
            lr = Acquisition(model.config.scale).forward(hr if z > 1 else hr[:, None]).reshape(-1, *_sides(hr, y, x))
            yield from _pieces(model, Volume(lr.numpy(), tuple(np.multiply(volume.spacing_mm, (z, y, x)))))
        yield from _pieces(model, volume)


def _sides(hr: Tensor, y: int, x: int) -> tuple[int, int]:
    return hr.shape[1] // y, hr.shape[2] // x


def _pieces(model: Model, volume: Volume) -> Iterator[Features]:
    plan = make_plan(volume, UpscaleSettings(), model)
    hu = torch.from_numpy(volume.hu.astype(np.float32))
    top, left = (max(0, (n - SIDE) // 2) for n in hu.shape[1:])
    chosen = np.unique(np.linspace(0, len(hu) - 1, PIECES + 2)[1:-1].round().astype(int))
    for k in chosen:
        stack = stacks(hu[:, top : top + SIDE, left : left + SIDE], [int(k)], model.config.context)
        with torch.inference_mode():
            yield model.features(stack, volume.spacing_mm[1:], plan.scan)


def quantize(source: Path, calibration: Iterable[Features], path: Path) -> Path:
    """Write the ONNX file `source` with 8-bit convolutions (quantize and dequantize nodes) as `path`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            f = next(self.left, None)
            return None if f is None else inputs(f)

    quantize_static(
        str(source),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=_ends(source),
    )
    return path


def _ends(path: Path) -> list[str]:
    """Names of the convolutions that read an input or give the output."""
    import onnx

    graph = onnx.load(str(path)).graph
    given, result = {i.name for i in graph.input}, {o.name for o in graph.output}
    return [n.name for n in graph.node if n.op_type == "Conv" and (n.input[0] in given or n.output[0] in result)]


def make(name: str, data: Path) -> Path:
    """Write `int8.onnx` and `int8.json` into the folder of a model."""
    model, folder = Model.from_pretrained(name), model_folder(name)
    with tempfile.TemporaryDirectory() as work:
        plain = export(model, Path(work) / "float32.onnx")
        made = without_places(quantize(plain, examples(model, data), Path(work) / INT8))
    facts: dict[str, Any] = {
        "weights_sha256": model.weights_sha256,
        "sha256": hashlib.sha256(made).hexdigest(),
        "scans": [f"train/{scan}" for scan in SCANS],
    }
    write_atomic(folder / INT8, made)
    write_json(folder / INT8_FACTS, facts)
    return folder / INT8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="shipped weights, or model folders")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct/train"))
    args = parser.parse_args()
    for name in args.names:
        path = make(name, args.data)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
