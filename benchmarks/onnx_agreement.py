"""How far ONNX files are from torch, in HU, on whole real slices.

    python benchmarks/onnx_agreement.py --out results/onnx.json

For each shipped model: `uhrct export`, then ONNX Runtime on a slice of each scan, against `uhrct upscale` in float32
with the same scan properties, without consistency, and with the networks on the air too. `all` counts every voxel.
`in_view` leaves out what lies outside the field of view, and 32 pixels at its edge, as far as the networks see: outside
`uhrct upscale` copies the scan, and it continues tissue that the edge cuts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from scipy import ndimage

from uhrct import io
from uhrct.core.files import write_json
from uhrct.models.folder import available_models
from uhrct.models.model import Model, stacks
from uhrct.models.restoration import told
from uhrct.physics.field_of_view import outside_view
from uhrct.upscaling.onnx_file import write_onnx
from uhrct.upscaling.plan import UpscaleSettings, make_plan
from uhrct.upscaling.slabs import compute_part

#: scan -> slice. With padding; without; with a circle filled with -1024 HU or so
SLICES = {"validation/rider0117": 40, "test/lidc0314": 130, "test/tcga_34_2605": 8}

#: pixels at the edge of the field of view that are left out
RIM_PX = 32


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options)


def difference(model: Model, runtime: onnxruntime.InferenceSession, scan: Path, k: int) -> dict[str, Any]:
    volume = io.read(scan)
    settings = UpscaleSettings(consistency="off", skip_air=False, precision=torch.float32)
    plan = make_plan(volume, settings, model)
    [slab] = compute_part(plan, volume, k, k + 1)
    names = {each.name for each in [*runtime.get_inputs(), *runtime.get_overridable_initializers()]}
    given = told(plan.scan) | {"spacing_mm": np.asarray(volume.spacing_mm[1:], np.float32)}
    stack = stacks(torch.from_numpy(volume.hu.astype(np.float32)), [k], model.config.context)
    feed = {"hu": stack.numpy()} | {name: value for name, value in given.items() if name in names}
    apart = np.abs(runtime.run(None, feed)[0][0] - slab.hu)
    outside = ndimage.binary_dilation(outside_view(stack[0]).any(0).numpy(), iterations=RIM_PX)
    _, sy, sx = model.config.scale
    seen = ~outside.repeat(sy, 0).repeat(sx, 1)
    return {"all": summary(apart), "in_view": summary(apart[:, seen]), "in_view_share": round(float(seen.mean()), 3)}


def summary(apart: np.ndarray) -> dict[str, float]:
    return {"max_hu": round(float(apart.max()), 5), "rms_hu": round(float(np.sqrt((apart**2).mean())), 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--out", type=Path, default=Path("results/onnx.json"))
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for folder in sorted(available_models(), key=lambda folder: "fast" not in folder.name):
        model = Model.from_pretrained(folder)
        with tempfile.TemporaryDirectory() as work:
            file = write_onnx(model, Path(work) / "model.onnx")
            runtime, size = session(file), file.stat().st_size
        rows = {name: difference(model, runtime, args.data / name, k) for name, k in SLICES.items()}
        found[folder.name] = {"weights_sha256": model.weights_sha256, "bytes": size, "scans": rows}
        print(folder.name, rows, flush=True)
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    write_json(args.out, {"slices": SLICES, "versions": versions, "models": found})


if __name__ == "__main__":
    main()
