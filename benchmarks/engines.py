"""Inference engines side by side on the mean network: seconds, PSNR, and how far each is from torch in float32.

    python benchmarks/engines.py                               # -> results/engines.json (x2 and x4)
    python benchmarks/engines.py --weights x2-fast --turns 3   # other weights

Needs `pip install 'uhrct[int8,onnx]'`. Slices of validation scans are degraded by the scanner model, and the
network is told to keep the noise; it runs on the middle 256 x 256 low-resolution pixels of each. The engines take turns
on the same slices, so that other work on the machine slows all of them; the medians of the turns count. An engine that
the machine cannot run is listed with the reason.
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

from uhrct import io
from uhrct.core.files import write_json
from uhrct.core.hu import FLOOR_HU
from uhrct.core.memory import keep_freed_memory
from uhrct.models.engines import Image, int8_file, with_engine
from uhrct.models.model import Features, Model, stacks
from uhrct.models.precision import inference_dtype
from uhrct.physics.acquisition import Acquisition
from uhrct.upscaling.quantize import export, inputs

Engine = Callable[[Features], np.ndarray]
SIDE = 256
SCANS = ("validation/rider0117", "validation/tcga_ay_4070")
#: HU of soft tissue
SOFT = (-150.0, 150.0)


def cases(model: Model, path: Path, count: int) -> list[tuple[Features, np.ndarray]]:
    """(features, truth in HU) of the middle of evenly spaced slices."""
    volume = io.read(path)
    _, sy, sx = model.config.scale
    height, width = (n // s * s for n, s in zip(volume.shape[1:], (sy, sx), strict=True))
    hr = torch.from_numpy(volume.hu[:, :height, :width].astype(np.float32)).clamp(min=FLOOR_HU)  # no padding
    chosen = np.linspace(0, len(hr) - 1, count + 2)[1:-1].round().astype(int)
    context = model.config.context
    out = []
    for k in chosen:
        around = hr[(k + np.arange(-context, context + 1)).clip(0, len(hr) - 1)]
        lr = Acquisition(model.config.scale).forward(around[:, None])[:, 0]
        y, x = ((n - min(SIDE, n)) // 2 for n in lr.shape[1:])
        with torch.inference_mode():
            stack = stacks(lr[:, y : y + SIDE, x : x + SIDE], [context], context)
            made = model.features(stack, (volume.spacing_mm[1] * sy, volume.spacing_mm[2] * sx))
            out.append((made, hr[k, y * sy : (y + SIDE) * sy, x * sx : (x + SIDE) * sx].numpy()))
    return out


def by_model(model: Model, dtype: torch.dtype = torch.float32) -> Engine:
    """The network of a model, as `uhrct upscale` runs it."""

    def run(f: Features) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return model.mean_hu(f)[0][0, 0].numpy()

    return run


def compiled(model: Model) -> Engine:
    """torch.compile with frozen weights."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    network = torch.compile(Image(model.mean).eval())

    def run(f: Features) -> np.ndarray:
        with torch.no_grad():
            given = (f.x, f.properties) if f.prior is None else (f.x, f.properties, f.prior)
            return in_hu(model, f, network(*given))

    return run


def in_hu(model: Model, f: Features, image: torch.Tensor) -> np.ndarray:
    """The result in HU, from the output of the network alone."""
    return (f.up_hu + model._hr(image) * model.config.residual_sd_hu)[0, 0].numpy()


def onnx_runtime(model: Model, path: Path) -> Engine:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda f: in_hu(model, f, torch.from_numpy(session.run(None, inputs(f))[0]))


def openvino(model: Model, path: Path, precision: str) -> Engine:
    """OpenVINO on the CPU."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    core = openvino.Core()
    network = core.compile_model(core.read_model(str(path)), "CPU", settings)
    return lambda f: in_hu(model, f, torch.from_numpy(np.array(network(inputs(f))[0])))


def engines(model: Model, example: Features, folder: Path) -> dict[str, Engine | str]:
    """The engines by name, or the reason why one is missing."""
    plain = export(model, folder / "float32.onnx")
    build: dict[str, Callable[[], Engine]] = {
        "torch, float32": lambda: by_model(model),
        "torch, bfloat16": lambda: by_model(model, torch.bfloat16),
        "torch.compile, float32": lambda: compiled(model),
        "ONNX Runtime, float32": lambda: onnx_runtime(model, plain),
        "ONNX Runtime, int8": lambda: onnx_runtime(model, int8_file(model)),
        "OpenVINO, float32": lambda: openvino(model, plain, "f32"),
        "OpenVINO, bfloat16": lambda: openvino(model, plain, "bf16"),
        "OpenVINO, int8": lambda: by_model(with_engine(model, "int8")),
    }
    made: dict[str, Engine | str] = {}
    for name, engine in build.items():
        try:
            made[name] = engine()
            made[name](example)
        except Exception as error:  # an engine that this machine cannot run is a result
            made[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return made


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per slice, PSNR (range 4000 HU) and differences of each engine."""
    model = Model.from_pretrained(name)
    measured = [case for scan in args.scans for case in cases(model, args.data / scan, args.slices)]
    with tempfile.TemporaryDirectory() as folder:
        made = engines(model, measured[0][0], Path(folder))
        runs = {n: e for n, e in made.items() if not isinstance(e, str)}
        results = {n: [e(f) for f, _ in measured] for n, e in runs.items()}
        seconds: dict[str, list[float]] = {n: [] for n in runs}
        for turn in range(args.turns):
            for n, engine in runs.items():
                begin = time.perf_counter()
                engine(measured[turn % len(measured)][0])
                seconds[n].append(time.perf_counter() - begin)
    out: dict[str, Any] = {"weights_sha256": model.weights_sha256}
    first = results["torch, float32"]
    for n, images in results.items():
        away = [a - b for a, b in zip(images, first, strict=True)]
        soft = np.concatenate([a[(b > SOFT[0]) & (b < SOFT[1])] for a, b in zip(away, first, strict=True)])
        psnr = [10 * np.log10(4000**2 / np.mean((a - t) ** 2)) for a, (_, t) in zip(images, measured, strict=True)]
        out[n] = {
            "seconds": round(float(np.median(seconds[n])), 3),
            "of_torch_float32": round(float(np.median(np.array(seconds[n]) / seconds["torch, float32"])), 3),
            "psnr_db": round(float(np.mean(psnr)), 3),
            "largest_difference_hu": round(float(max(np.abs(a).max() for a in away)), 3),
            "soft_tissue_mean_hu": round(float(soft.mean()), 3),
            "soft_tissue_sd_hu": round(float(soft.std()), 3),
        }
    return out | {n: {"missing": e} for n, e in made.items() if isinstance(e, str)}


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/engines.json"))
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--scans", nargs="+", default=SCANS)
    parser.add_argument("--weights", nargs="+", default=["x2", "x4"])
    parser.add_argument("--slices", type=int, default=3, help="of each scan")
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "default_dtype": str(inference_dtype(torch.device("cpu"))),
        "slices": f"{args.slices} each of {', '.join(args.scans)}, {SIDE} x {SIDE} pixels in the middle",
    }
    for name in args.weights:
        result[name] = measure(name, args)
        print(json.dumps({name: result[name]}, indent=2), flush=True)
    write_json(args.out, result)


if __name__ == "__main__":
    main()
