"""`uhrct info` and `uhrct models`: list scans and weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uhrct.cli.app import READ_OPTIONS, Input, Json, Overwrite, as_options, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from uhrct.io import SeriesInfo

INFO_SCHEMA, MODELS_SCHEMA = "uhrct-info-1", "uhrct-models-1"


def info(input: Input, json_path: Json = None, overwrite: Overwrite = False) -> None:
    """List the series in a file or folder, and whether each can be processed."""
    from rich.table import Table

    from uhrct import io
    from uhrct.core.files import write_json
    from uhrct.core.version import __version__
    from uhrct.io.paths import shown

    io.check_outputs(input, [], files=[json_path], overwrite=overwrite)
    table = Table(box=None, pad_edge=False)
    for name in (
        "#",
        "path",
        "kind",
        "description",
        "voxels z y x",
        "mm z y x",
        "plane",
        "scanner",
        "syntax",
        "can be processed",
    ):
        table.add_column(name, overflow="fold")
    found = io.inspect(input)
    for s in found:
        table.add_row(
            str(s.number or "-"),
            shown(s.path),
            f"{s.kind} {s.modality}".strip(),
            s.description,
            " ".join(map(str, s.shape)) if s.shape else "?",
            " ".join(f"{v:.3g}" for v in s.spacing_mm) if s.spacing_mm else "?",
            s.orientation,
            s.scanner,
            s.transfer_syntax,
            as_options(s.processable, READ_OPTIONS),
        )
    print_table(table, json_path)
    if json_path is not None:
        series = [_series(s) for s in found]
        write_json(json_path, {"schema": INFO_SCHEMA, "uhrct": __version__, "input": str(input), "series": series})


def _series(s: SeriesInfo) -> dict[str, Any]:
    """One series of the listing in JSON (docs/report.md)."""
    return {
        "number": s.number or None,
        "path": s.path,
        "kind": s.kind,
        "modality": s.modality,
        "uid": s.uid,
        "description": s.description,
        "shape": None if s.shape is None else list(s.shape),
        "spacing_mm": None if s.spacing_mm is None else [float(v) for v in s.spacing_mm],
        "plane": s.orientation,
        "scanner": s.scanner,
        "transfer_syntax": s.transfer_syntax,
        "can_be_processed": not s.problem,
        "problem": as_options(s.problem, READ_OPTIONS),
        "needs": as_options(s.needs, READ_OPTIONS),
        "notes": list(s.notes),
    }


def models(json_path: Json = None, overwrite: Overwrite = False) -> None:
    """List the shipped weights: scale, size, licence, training data, scores."""
    from rich.table import Table

    from uhrct import io
    from uhrct.core.files import STDOUT, write_json
    from uhrct.core.version import __version__
    from uhrct.models.choice import scale_word
    from uhrct.models.model import available_models

    io.check_outputs(None, [], files=[json_path], overwrite=overwrite)
    table = Table(box=None, pad_edge=False)
    for name in ("name", "scale", "size", "samples", "PSNR over interpolation"):
        table.add_column(name, overflow="fold")
    found = [_model(folder) for folder in available_models()]
    for m in found:
        table.add_row(
            m["name"],
            scale_word(m["scale"]),
            f"{m['bytes'] / 1e6:.1f} MB",
            "yes" if m["draws_samples"] else "no",
            _gains(m["gain_db"]),
        )
    qualities = _qualities()
    print_table(table, json_path)
    if qualities:
        print_table(_quality_table(qualities), json_path)
    trained: dict[str, list[str]] = {}
    for m in found:
        text = f"trained on {m['training_data'] or '?'}; licence {m['licence'] or '?'}"
        trained.setdefault(text, []).append(m["name"])
    for text, names in trained.items():
        print(f"{', '.join(names)}: {text}", file=sys.stderr if json_path == STDOUT else sys.stdout)
    if json_path is not None:
        report = {"schema": MODELS_SCHEMA, "uhrct": __version__, "models": found, "qualities": qualities}
        write_json(json_path, report)


def _gains(gain_db: dict[str, float]) -> str:
    return "; ".join(f"{name} {gain:+.2f} dB" for name, gain in gain_db.items()) or "?"


def _qualities() -> list[dict[str, Any]]:
    """Time and gain of `--quality` at each scale, with the shipped weights."""
    from uhrct.models.folder import TIERS

    if not TIERS.is_file():
        return []
    return [
        {
            "scale": scale,
            "quality": way.split(", ")[0],
            "engine": (way.split(", ") + ["torch"])[1],
            "time_over_standard": round(row["seconds"] / rows["standard"]["seconds"], 2),
            "gain_db": row["gain_db"],
        }
        for scale, rows in json.loads(TIERS.read_text())["scales"].items()
        for way, row in rows.items()
        if isinstance(row, dict)
    ]


def _quality_table(qualities: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(
        title="\n--quality, measured side by side with --denoise 0", title_justify="left", box=None, pad_edge=False
    )
    for name in ("scale", "quality", "engine", "time over standard", "PSNR over interpolation"):
        table.add_column(name)
    for q in qualities:
        table.add_row(q["scale"], q["quality"], q["engine"], f"{q['time_over_standard']:.2f}", _gains(q["gain_db"]))
    return table


def _model(folder: Path) -> dict[str, Any]:
    """One entry of the listing in JSON (docs/report.md)."""
    from uhrct.models.model import read_config

    config, sha256 = read_config(folder)
    card = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
    return {
        "name": folder.name,
        "scale": list(config.scale),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "sha256": sha256 or None,
        "draws_samples": config.denoiser is not None,
        "licence": card.get("licence"),
        "training_data": card.get("training_data"),
        "gain_db": card.get("gain_db", {}),
    }
