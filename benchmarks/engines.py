"""Inference engines side by side on the mean network: seconds, PSNR, and how far each is from torch in float32.

    python benchmarks/engines.py                               # -> results/engines.json (x2 and x4, float32 and int8)
    python benchmarks/engines.py --weights x2-fast --turns 3   # other weights

Needs `pip install onnx onnxscript onnxruntime openvino`. Slices of rider0117 are degraded by the scanner model; the
network runs on the middle 256 x 256 low-resolution pixels of each. The engines take turns on the same slices, so that
other work on the machine slows all of them; the medians of the turns count. int8 is calibrated with slices of the
training corpus. An engine that the machine cannot run is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uhrct import io
from uhrct.core.files import write_json
from uhrct.core.hu import FLOOR_HU
from uhrct.core.memory import keep_freed_memory
from uhrct.models.dssp import DSSP
from uhrct.models.model import Features, Model, stacks
from uhrct.models.precision import inference_dtype
from uhrct.physics.acquisition import Acquisition

Engine = Callable[[Features], np.ndarray]
SIDE = 256
#: training scans whose slices set the ranges of int8
CALIBRATION = ("train/lidc0001", "train/lidc0648", "train/tcga_bc_a10x", "train/lungdx_a0170")
NAMES = ("x", "prior", "properties")


class Image(nn.Module):
    """The image of a network, without its structure map."""

    def __init__(self, network: DSSP) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, prior: Tensor, properties: Tensor) -> Tensor:
        """(B, sub_voxels, y, x), in units of the residual."""
        return self.network(x, prior if self.network.structure is not None else None, properties=properties)[0]


def inputs(f: Features) -> tuple[Tensor, Tensor, Tensor]:
    """What every engine gets. A network without a structure stream does not read the prior."""
    assert f.properties is not None
    prior = torch.zeros(len(f.x), 1, *f.x.shape[-2:]) if f.prior is None else f.prior
    return f.x.contiguous(), prior.contiguous(), f.properties.contiguous()


def cases(model: Model, path: Path, count: int) -> list[tuple[Features, Tensor]]:
    """(features, truth in HU) of the middle of evenly spaced slices."""
    volume = io.read(path)
    _, sy, sx = model.config.scale
    height, width = (n // (4 * s) * 4 * s for n, s in zip(volume.shape[1:], (sy, sx), strict=True))
    hr = torch.from_numpy(volume.hu[:, :height, :width].astype(np.float32)).clamp(min=FLOOR_HU)  # no padding
    chosen = np.linspace(0, len(hr) - 1, count + 2)[1:-1].round().astype(int)
    context = model.config.context
    out = []
    for k in chosen:
        around = hr[(k + np.arange(-context, context + 1)).clip(0, len(hr) - 1)]
        lr = Acquisition(model.config.scale).forward(around[:, None])[:, 0]
        y, x = ((n - min(SIDE, n)) // 2 for n in lr.shape[1:])
        cut = lr[:, y : y + SIDE, x : x + SIDE]
        with torch.inference_mode():
            stack = stacks(cut, [context], context)
            spacing = (volume.spacing_mm[1] * sy, volume.spacing_mm[2] * sx)
            truth = hr[k, y * sy : (y + SIDE) * sy, x * sx : (x + SIDE) * sx]
            out.append((model.features(stack, spacing), truth))
    return out


def eager(network: Image, dtype: torch.dtype) -> Engine:
    """torch as `uhrct upscale` runs it."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(f: Features) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return network(*inputs(f)).numpy()

    return run


def compiled(network: Image, dtype: torch.dtype) -> Engine:
    """torch.compile with frozen weights."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    made = torch.compile(network)

    def run(f: Features) -> np.ndarray:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return made(*inputs(f)).numpy()

    return run


def export(network: Image, example: Features, path: Path) -> Path:
    """The network as an ONNX file for this size of slice."""
    given = inputs(example)
    torch.onnx.export(
        network, given, str(path), input_names=list(NAMES), dynamo=True, external_data=False, verbose=False
    )
    return path


def quantized(source: Path, calibration: list[Features], path: Path) -> Path:
    """The ONNX file with int8 convolutions (QDQ), ranges from the calibration slices."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            f = next(self.left, None)
            return None if f is None else _named(f, source)

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
    """The first and last convolutions: HU need more than eight bits there."""
    import onnx

    graph = onnx.load(str(path)).graph
    made = {name for node in graph.node if node.op_type == "Conv" for name in node.output}
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    fed = {name for name in NAMES}
    last = {o.name for o in graph.output}
    return [n.name for n in convolutions if n.input[0] in fed or n.output[0] in last or not (set(n.output) & made)]


def _named(f: Features, path: Path) -> dict[str, np.ndarray]:
    import onnx

    wanted = {i.name for i in onnx.load(str(path), load_external_data=False).graph.input}
    return {n: t.numpy() for n, t in zip(NAMES, inputs(f), strict=True) if n in wanted}


def onnx_runtime(path: Path) -> Engine:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}

    def run(f: Features) -> np.ndarray:
        given = {n: t.numpy() for n, t in zip(NAMES, inputs(f), strict=True) if n in wanted}
        return np.asarray(session.run(None, given)[0])

    return run


def openvino(path: Path, precision: str) -> Engine:
    """OpenVINO on the CPU."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    made = core.compile_model(core.read_model(str(path)), "CPU", settings)
    wanted = {name for i in made.inputs for name in i.names}

    def run(f: Features) -> np.ndarray:
        given = {n: t.numpy() for n, t in zip(NAMES, inputs(f), strict=True) if n in wanted}
        return np.asarray(made(given)[0])

    return run


def engines(network: Image, example: Features, calibration: list[Features], folder: Path) -> dict[str, Any]:
    """The engines by name, or the reason why one is missing."""
    made: dict[str, Any] = {}

    def add(name: str, build: Callable[[], Engine]) -> None:
        try:
            engine = build()
            engine(example)
        except Exception as error:  # an engine that this machine cannot run is a result
            made[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        else:
            made[name] = engine

    add("torch, float32", lambda: eager(network, torch.float32))
    add("torch, bfloat16", lambda: eager(network, torch.bfloat16))
    add("torch.compile, float32", lambda: compiled(network, torch.float32))
    plain = export(network, example, folder / "float32.onnx")
    int8 = quantized(plain, calibration, folder / "int8.onnx")
    add("ONNX Runtime, float32", lambda: onnx_runtime(plain))
    add("ONNX Runtime, int8", lambda: onnx_runtime(int8))
    add("OpenVINO, float32", lambda: openvino(plain, "f32"))
    add("OpenVINO, bfloat16", lambda: openvino(plain, "bf16"))
    add("OpenVINO, int8", lambda: openvino(int8, "f32"))
    return made


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per slice, PSNR (range 4000 HU) and differences of each engine."""
    model = Model.from_pretrained(name)
    assert model.mean is not None
    network = Image(model.mean).eval()
    measured = cases(model, args.data / "validation/rider0117", args.slices)
    calibration = [f for scan in args.calibrate for f, _ in cases(model, args.data / scan, 4)]
    with tempfile.TemporaryDirectory() as folder:
        made = engines(network, measured[0][0], calibration, Path(folder))
        runs = {n: e for n, e in made.items() if not isinstance(e, str)}
        results: dict[str, list[np.ndarray]] = {n: [e(f) for f, _ in measured] for n, e in runs.items()}
        seconds: dict[str, list[float]] = {n: [] for n in runs}
        for turn in range(args.turns):
            f = measured[turn % len(measured)][0]
            for n, engine in runs.items():
                begin = time.perf_counter()
                engine(f)
                seconds[n].append(time.perf_counter() - begin)
    out: dict[str, Any] = {"weights_sha256": model.weights_sha256}
    sd = model.config.residual_sd_hu
    first = "torch, float32"
    for n, images in results.items():
        hr = [f.up_hu + model._hr(torch.from_numpy(i)) * sd for i, (f, _) in zip(images, measured, strict=True)]
        error = [float((h[0, 0] - t).double().square().mean()) for h, (_, t) in zip(hr, measured, strict=True)]
        away = [np.abs(a - b) * sd for a, b in zip(images, results[first], strict=True)]
        out[n] = {
            "seconds": round(float(np.median(seconds[n])), 3),
            "of_torch_float32": round(float(np.median(np.array(seconds[n]) / seconds[first])), 3),
            "psnr_db": round(float(np.mean([10 * np.log10(4000**2 / e) for e in error])), 3),
            "largest_difference_hu": round(float(max(a.max() for a in away)), 3),
            "mean_difference_hu": round(float(np.mean([a.mean() for a in away])), 4),
        }
    return out | {n: {"missing": e} for n, e in made.items() if isinstance(e, str)}


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/engines.json"))
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--weights", nargs="+", default=["x2", "x4"])
    parser.add_argument(
        "--calibrate",
        nargs="+",
        default=["train/lidc0001", "train/lidc0648", "train/tcga_bc_a10x", "train/lungdx_a0170"],
    )
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "default_dtype": str(inference_dtype(torch.device("cpu"))),
        "scan": f"rider0117, {args.slices} slices, {SIDE} x {SIDE} pixels in the middle",
    }
    for name in args.weights:
        result[name] = measure(name, args)
        print(json.dumps({name: result[name]}, indent=2), flush=True)
    write_json(args.out, result)


if __name__ == "__main__":
    main()
