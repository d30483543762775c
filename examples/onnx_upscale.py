"""python onnx_upscale.py x2.onnx ct.nii.gz fine.nii.gz [report.json of uhrct upscale --json, with blur and noise]

It needs neither torch nor uhrct. Research use only; not a medical device. See docs/model-formats.md.
"""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # no warnings about inputs with defaults
session = onnxruntime.InferenceSession(sys.argv[1], options)
scale = np.array(session.get_modelmeta().custom_metadata_map["scale"].split(","), int)[::-1]  # (x, y, z)
image = nibabel.load(sys.argv[2])
x_mm, y_mm, z_mm = nibabel.affines.voxel_sizes(image.affine)
scan = {"increment_mm": z_mm, "spacing_mm": (y_mm, x_mm)}
scan |= json.loads(Path(sys.argv[4]).read_text())["scan_properties"] if len(sys.argv) > 4 else {}
names = [each.name for each in [*session.get_inputs(), *session.get_overridable_initializers()]]
told = {name: np.array(value, np.float32) for name, value in scan.items() if name in names and value is not None}
hu = image.get_fdata(dtype=np.float32).T  # (z, y, x)
slices = session.get_inputs()[0].shape[1]  # a slice and its neighbours
stack = np.pad(hu, ((slices // 2, slices // 2), (0, 0), (0, 0)), mode="edge")
fine = [session.run(None, {"hu": stack[None, k : k + slices], **told})[0][0] for k in range(len(hu))]
finer = np.diag([*1 / scale, 1.0])
finer[:3, 3] = (1 / scale - 1) / 2  # both grids begin at the same edge
nibabel.save(nibabel.Nifti1Image(np.concatenate(fine).T, image.affine @ finer), sys.argv[3])
