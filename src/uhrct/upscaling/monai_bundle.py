"""Write a model as a MONAI bundle, and the two components of uhrct that its configuration names.

The bundle holds no code: `python -m monai.bundle run` builds `FileUpscaler` from this module.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uhrct import io
from uhrct.core.purpose import NOTE
from uhrct.core.version import __version__
from uhrct.models.choice import pick_device, scale_word
from uhrct.models.model import Model
from uhrct.models.restoration import Restoration
from uhrct.upscaling.files import write_result
from uhrct.upscaling.model_card import LICENCE_FILE, README, card, copy_weights, description
from uhrct.upscaling.plan import UpscaleSettings, make_plan

#: of the metadata; MONAI publishes it, and `monai.bundle verify_metadata` fetches it
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
#: oldest version with which the bundle was planned, where MONAI is not installed
OLDEST_MONAI = "1.5.0"
#: settings of `UpscaleSettings` that the configuration lists, so that a command line can change them
SETTINGS = ("quality", "denoise", "consistency", "noise_hu", "psf_fwhm_mm", "slice_thickness_mm", "tile")


class FileUpscaler:
    """Super-resolves one file with the weights of a bundle, as `uhrct upscale` does.

    Parameters
    ----------
    weights : folder with `config.json` and `model.safetensors`
    device : "auto", "cpu" or "cuda"
    overwrite : whether an output that exists is replaced
    **settings : fields of `uhrct.upscaling.plan.UpscaleSettings`

    Raises
    ------
    UhrctError
        If a setting is impossible, or (on call) the scan cannot be read or the result not be written.
    """

    def __init__(self, weights: str | Path, device: str = "auto", overwrite: bool = False, **settings: Any) -> None:
        self.settings = UpscaleSettings(**settings)
        self.model = Model.from_pretrained(weights, pick_device(device))
        self.overwrite = overwrite

    def __call__(self, image: str | Path, output: str | Path) -> dict[str, Any]:
        """Write the result of `image` to `output`; the report of the run."""
        image, output = Path(image), Path(output)
        io.check_outputs(image, [output], overwrite=self.overwrite)
        volume = io.read(image, on_disk=True)
        plan = make_plan(volume, self.settings, self.model)
        return write_result(plan, volume, output, overwrite=self.overwrite)


def restoration(weights: str | Path) -> Restoration:
    """The network of a bundle: slices in HU (n, slices, y, x) -> fine slices in HU (n, sz, y sy, x sx)."""
    return Restoration(Model.from_pretrained(weights)).eval()


def write_bundle(model: Model, folder: Path) -> None:
    """Fill an empty folder with a bundle: configs/, models/, docs/ and LICENSE.

    Raises
    ------
    UhrctError
        If the model was made in memory, or has no mean network.
    """
    network = Restoration(model)
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    copy_weights(model, folder / "models")
    (folder / "models" / README).unlink(missing_ok=True)
    if (folder / "models" / LICENCE_FILE).is_file():
        (folder / "models" / LICENCE_FILE).rename(folder / LICENCE_FILE)
    # the specification asks for this file; the components read model.safetensors
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    (folder / "docs" / README).write_text(description(model), encoding="utf-8")
    for name, content in (("metadata", _metadata(model, network)), ("inference", _inference())):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _inference() -> dict[str, Any]:
    defaults = UpscaleSettings()
    own = f"{__name__}."
    return {
        "bundle_root": ".",
        "image": "$@bundle_root + '/ct.nii.gz'",
        "output": "$@bundle_root + '/fine.nii.gz'",
        "device": "auto",
        "overwrite": False,
        **{name: getattr(defaults, name) for name in SETTINGS},
        "weights": "$@bundle_root + '/models'",
        "network_def": {"_target_": f"{own}restoration", "weights": "@weights"},
        "upscaler": {
            "_target_": f"{own}FileUpscaler",
            **{name: f"@{name}" for name in ("weights", "device", "overwrite", *SETTINGS)},
        },
        "run": ["$@upscaler(@image, @output)"],
    }


def _metadata(model: Model, network: Restoration) -> dict[str, Any]:
    known = card(model)
    word, (sz, sy, sx) = scale_word(model.config.scale), model.config.scale
    slices = 2 * network.context + 1
    tensor = {"type": "image", "format": "hounsfield", "modality": "CT", "dtype": "float32", "is_patch_data": False}
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: "as in CHANGELOG.md of uhrct"},
        "monai_version": _installed("monai", OLDEST_MONAI),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"uhrct": __version__},
        "supported_apps": {},
        "name": f"CT super-resolution {word}",
        "task": f"Super-resolution of CT by {sz} x {sy} x {sx} (z, y, x)",
        "description": f"Finer voxels for a CT scan, as a posterior mean. {NOTE}",
        "authors": "the authors of uhrct",
        "copyright": f"Licence: {known.get('licence', 'not stated')}",
        "data_source": known.get("training_data", "not stated"),
        "data_type": "CT in HU",
        "image_classes": f"slices in HU; {slices} neighbouring ones as channels",
        "pred_classes": f"the {sz} fine slice(s) inside the middle one, in HU",
        "eval_metrics": {f"psnr_gain_db {case}": gain for case, gain in (known.get("gain_db") or {}).items()},
        "intended_use": NOTE,
        "references": ["Chu et al., MICCAI 2023, doi 10.1007/978-3-031-43999-5_25"],
        "network_data_format": {
            "inputs": {
                "image": {
                    **tensor,
                    "num_channels": slices,
                    "spatial_shape": ["*", "*"],
                    "value_range": [-3024, 32767],
                    "channel_def": {str(k): _place(k - network.context) for k in range(slices)},
                }
            },
            "outputs": {
                "pred": {
                    **tensor,
                    "num_channels": sz,
                    "spatial_shape": [f"{sy}*n", f"{sx}*m"],
                    "value_range": [],
                    "channel_def": {str(k): f"fine slice {k + 1} of {sz}" for k in range(sz)},
                }
            },
        },
    }


def _place(offset: int) -> str:
    return "the slice" if offset == 0 else f"its neighbour {abs(offset)} {'above' if offset > 0 else 'below'} along z"


def _installed(package: str, otherwise: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise
