"""Write the restoration of one slice (`uhrct.models.restoration`) as one ONNX file."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.purpose import NOTE
from uhrct.core.version import __version__
from uhrct.models.model import Model
from uhrct.models.restoration import UNKNOWN, USUAL_SPACING_MM, Restoration, told
from uhrct.structure.vesselness import is_blind_to_shape


def write_onnx(model: Model, path: Path) -> Path:
    """Write an ONNX file that holds interpolation, structure map, network and pixel shuffle.

    Inputs are `hu` (n, slices, y, x) float32, for networks with a structure map `spacing_mm` (2,), and the scan
    properties (`ScanProperties`), one number each with a default that stands for "unknown". The output is `fine_hu`
    (n, sz, y sy, x sx). The entries `scale`, `weights` and `weights_sha256` of its metadata name what it is.

    Raises
    ------
    UhrctError
        If the model has no mean network, the packages of `uhrct[onnx]` are missing, or the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UhrctError(f"an ONNX file needs {error.name}: pip install 'uhrct[onnx]'") from error
    restoration = Restoration(model.cpu()).eval()
    with tempfile.TemporaryDirectory() as work:
        raw = Path(work) / "raw.onnx"
        _export(restoration, raw)
        made = _finished(raw, model)
    write_atomic(path, made)
    return path


def without_places(path: Path) -> bytes:
    """An ONNX file without the notes of torch on each node, which name folders of this machine."""
    import onnx

    model = onnx.load(str(path))
    for item in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
    for item in (*model.graph.node, *model.graph.value_info):
        item.ClearField("doc_string")
    return bytes(model.SerializeToString())


def _export(restoration: Restoration, path: Path) -> None:
    n, y, x = (torch.export.Dim(name) for name in ("n", "y", "x"))
    slices = 2 * restoration.context + 1
    known = told(UNKNOWN) | {"spacing_mm": np.asarray(USUAL_SPACING_MM, np.float32)}
    given = {name: torch.from_numpy(value) for name, value in known.items() if name in restoration.inputs}
    is_blind_to_shape(restoration.operator.k1, restoration.operator.k2)  # cached: no part of the graph
    with warnings.catch_warnings():  # they concern the insides of torch
        warnings.simplefilter("ignore")
        torch.onnx.export(
            restoration,
            (torch.zeros(2, slices, 24, 32),),
            str(path),
            kwargs=given,
            input_names=["hu", *given],
            output_names=["fine_hu"],
            dynamo=True,
            external_data=False,
            dynamic_shapes={"hu": {0: n, 2: y, 3: x}, **dict.fromkeys(given)},
            verbose=False,
        )


def _finished(path: Path, model: Model) -> bytes:
    """The exported file without places, with names, and with defaults for the scan properties."""
    import onnx

    made = onnx.load_model_from_string(without_places(path))
    defaults = told(UNKNOWN)
    for each in made.graph.input:
        if each.name in defaults:  # an initializer of the same name makes an input optional
            made.graph.initializer.append(onnx.numpy_helper.from_array(defaults[each.name], each.name))
    made.producer_name, made.producer_version = "uhrct", __version__
    made.doc_string = f"Super-resolution of CT. {NOTE}"
    onnx.helper.set_model_props(
        made,
        {
            "scale": ",".join(map(str, model.config.scale)),
            "weights": model.weights_name,
            "weights_sha256": model.weights_sha256,
            "note": NOTE,
        },
    )
    return bytes(made.SerializeToString())
