"""Model folders: `config.json` with the settings and `model.safetensors` with the weights."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic

FORMAT_VERSION = 1
WEIGHTS_DIR = Path(__file__).parent / "weights"
#: networks of `uhrct segment` and `uhrct detect`
TASKS_DIR = WEIGHTS_DIR / "tasks"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
#: score and time of each quality, by `benchmarks/tiers.py`
TIERS = WEIGHTS_DIR / "tiers.json"
#: folder of the weights inside the folder of a training run
IN_RUN = "model"
#: file in the folder of a training run that has not reached its end
UNFINISHED = "unfinished"


def available_models() -> list[Path]:
    """Folders of the models that ship with this package."""
    return sorted(p.parent for p in WEIGHTS_DIR.glob(f"*/{CONFIG}"))


def model_folder(name: str | Path) -> Path:
    """The folder of a shipped model, by its name, or of any model or training run, by its path.

    Raises
    ------
    UhrctError
        If there is neither.
    """
    for folder in (WEIGHTS_DIR / str(name), TASKS_DIR / str(name), Path(name)):
        if folder.is_dir():
            inside = folder / IN_RUN
            return inside if not (folder / CONFIG).is_file() and inside.is_dir() else folder
    shipped = [", ".join(p.parent.name for p in sorted(d.glob(f"*/{CONFIG}"))) for d in (WEIGHTS_DIR, TASKS_DIR)]
    raise UhrctError(
        f"{name}: no such weights; shipped: {shipped[0] or 'none'} (super-resolution), {shipped[1] or 'none'} "
        "(segmentation and detection); or give a model folder"
    )


def weights_name(folder: Path) -> str:
    """What reports call the weights in `folder`: its name; that of the run for the result of a training run.

    Example
    -------
    >>> weights_name(Path("runs/mine/model")), weights_name(Path("weights/x2"))
    ('mine', 'x2')
    """
    folder = folder.resolve()
    return folder.parent.name if folder.name == IN_RUN and folder.parent.name else folder.name


def read_settings(folder: Path) -> tuple[dict[str, Any], str]:
    """(the settings in a folder's `config.json`, the sha256 that its weights must have or "").

    Raises
    ------
    UhrctError
        If the file is missing, damaged, or of another format version.
    """
    file = folder / CONFIG
    try:
        raw = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise UhrctError(f"{folder}: not a model folder (no {CONFIG})") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UhrctError(f"{file}: not readable as JSON; fetch the model again") from error
    version = raw.pop("format_version", None) if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise UhrctError(f"{file}: model format {version}, this uhrct reads {FORMAT_VERSION}; update one of them")
    return raw, raw.pop("weights_sha256", "")


def load_weights(module: nn.Module, folder: Path, sha256: str) -> str:
    """Load a folder's weights into a module, checked against `sha256` (unless it is ""); returns their sha256.

    Warns if their training has not finished.

    Raises
    ------
    UhrctError
        If the file is missing or damaged, or does not fit the module.
    """
    import safetensors
    import safetensors.torch

    file = folder / WEIGHTS
    if not file.is_file():
        raise UhrctError(f"{file}: no such file; a model folder holds {CONFIG} and {WEIGHTS}")
    blob = file.read_bytes()
    found = hashlib.sha256(blob).hexdigest()
    if sha256 and found != sha256:
        raise UhrctError(f"{file}: damaged (its sha256 differs from {CONFIG}); fetch the model again")
    try:
        module.load_state_dict(safetensors.torch.load(blob))
    except safetensors.SafetensorError as error:
        raise UhrctError(f"{file}: not a readable safetensors file; fetch the model again") from error
    except RuntimeError as error:
        raise UhrctError(
            f"{file}: its tensors do not fit {CONFIG}; take both from the version of uhrct that you run"
        ) from error
    if folder.name == IN_RUN and (folder.parent / UNFINISHED).is_file():
        text = "the training of these weights has not finished; uhrct train --resume goes on with it"
        warnings.warn(f"{folder.parent}: {text}", stacklevel=3)
    return found


def save_folder(module: nn.Module, settings: dict[str, Any], folder: Path) -> str:
    """Write `model.safetensors`, then `config.json`, each complete or not at all; returns the sha256 of the weights."""
    import safetensors.torch

    def stored(value: Tensor) -> Tensor:
        value = value.detach().cpu().contiguous()
        return value.float() if value.is_floating_point() else value

    blob = safetensors.torch.save({k: stored(v) for k, v in module.state_dict().items()})
    sha256 = hashlib.sha256(blob).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS, blob)
    config = {"format_version": FORMAT_VERSION, "weights_sha256": sha256, **settings}
    write_atomic(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return sha256
