"""Write a model folder as the Hugging Face Hub expects it: weights, configuration and a card with metadata."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from uhrct.core.errors import UhrctError
from uhrct.models.choice import scale_word
from uhrct.models.folder import CONFIG, WEIGHTS
from uhrct.models.model import Model

README, CARD, LICENCE_FILE = "README.md", "card.json", "LICENSE"
#: of the repository on the Hub, beside the word for the scale
TAGS = ("medical", "computed-tomography", "ct", "super-resolution", "research-use-only", "safetensors")
USE = """\

## Use

```python
from uhrct.models.model import Model
import uhrct

model = Model.from_pretrained("this_folder")
result = uhrct.Upscaler(model)(uhrct.read("ct.nii.gz"))
uhrct.write(result.volume, "fine.nii.gz")
```

Or on the command line: `uhrct upscale ct.nii.gz fine.nii.gz --scale {scale} --weights this_folder`.
"""
UNDESCRIBED = """\
# {name}: super-resolution of CT by {scale} (z, y, x)

**Research use only; not a medical device.**

Nobody has described these weights yet: patients, scanners, kernels, scores and known failures are not stated here.
"""


def write_hugging_face(model: Model, folder: Path) -> None:
    """Fill an empty folder with everything in the model's folder, and a card with metadata.

    `Model.from_pretrained(folder)` loads it. Its weights are the same bytes.

    Raises
    ------
    UhrctError
        If the model was made in memory: `save_pretrained` writes such a model first.
    """
    copy_weights(model, folder)
    (folder / README).write_text(f"---\n{metadata(model)}---\n{description(model)}{_use(model)}", encoding="utf-8")


def copy_weights(model: Model, folder: Path) -> None:
    """Copy the files of the model's folder, and the licence of the weights if it is that of this program."""
    source = _folder(model)
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    text = licence_text() if card(model).get("licence") == "Apache-2.0" else None
    if text is not None:
        (folder / LICENCE_FILE).write_text(text, encoding="utf-8")


def card(model: Model) -> dict[str, Any]:
    """What `card.json` states about the weights; empty if there is none.

    Raises
    ------
    UhrctError
        If the file is damaged.
    """
    file = _folder(model) / CARD
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UhrctError(f"{file}: not readable as JSON; fetch the model again") from error
    return found if isinstance(found, dict) else {}


def description(model: Model) -> str:
    """The card in words: networks, training data, scores, limits."""
    file = _folder(model) / README
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return UNDESCRIBED.format(name=model.weights_name, scale="x".join(map(str, model.config.scale)))


def metadata(model: Model) -> str:
    """The metadata of the card, YAML. The key `datasets` is left out: it names repositories of the Hub."""
    known = card(model)
    found: dict[str, Any] = {
        "library_name": "uhrct",
        "pipeline_tag": "image-to-image",
        "tags": [*TAGS, scale_word(model.config.scale)],
        "metrics": ["psnr"],
    }
    if "licence" in known:
        found["license"] = known["licence"].lower()
    if "training_data" in known:
        found["training_data"] = known["training_data"]
    gains = known.get("gain_db") or {}
    if gains:
        results = [_result(case, gain, model) for case, gain in gains.items()]
        found["model-index"] = [{"name": f"uhrct-{model.weights_name}", "results": results}]
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)


def licence_text() -> str | None:
    """The text of the licence of this program, as it was installed; None if that left it out."""
    # a clone has two descriptions of the package, and only the installed one holds the licence
    texts = (found.read_text("licenses/LICENSE") for found in distributions(name="uhrct"))
    return next((text for text in texts if text), None)


def _result(case: str, gain_db: float, model: Model) -> dict[str, Any]:
    name = "PSNR over cubic interpolation in dB, window -1000 to 600 HU, simulated scan"
    return {
        "task": {"type": "image-to-image", "name": f"CT super-resolution {scale_word(model.config.scale)}"},
        "dataset": {"type": "tcia", "name": case},
        "metrics": [{"type": "psnr", "name": name, "value": gain_db}],
    }


def _use(model: Model) -> str:
    return USE.format(scale="x".join(map(str, model.config.scale)))


def _folder(model: Model) -> Path:
    if model.folder is None or not ((model.folder / CONFIG).is_file() and (model.folder / WEIGHTS).is_file()):
        raise UhrctError("this model was made in memory; write it with `save_pretrained` and load it from there")
    return model.folder
