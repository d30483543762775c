"""`uhrct info` and `uhrct models`: list scans and weights."""

from __future__ import annotations

import json

from uhrct.cli.app import READ_OPTIONS, Input, as_options, print_table


def info(input: Input) -> None:
    """List the series in a file or folder, and whether each can be processed."""
    from rich.table import Table

    from uhrct import io

    table = Table(box=None, pad_edge=False)
    for name in (
        "#",
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
    for s in io.inspect(input):
        table.add_row(
            str(s.number or "-"),
            f"{s.kind} {s.modality}".strip(),
            s.description,
            " ".join(map(str, s.shape)) if s.shape else "?",
            " ".join(f"{v:.3g}" for v in s.spacing_mm) if s.spacing_mm else "?",
            s.orientation,
            s.scanner,
            s.transfer_syntax,
            as_options(s.processable, READ_OPTIONS),
        )
    print_table(table)


def models() -> None:
    """List the shipped weights: scale, size, licence, training data, scores."""
    from rich.table import Table

    from uhrct.models.choice import scale_word
    from uhrct.models.model import available_models, read_config

    table = Table(box=None, pad_edge=False)
    for name in ("name", "scale", "size", "samples", "licence", "trained on", "PSNR over interpolation"):
        table.add_column(name, overflow="fold")
    for folder in available_models():
        config, _ = read_config(folder)
        card = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
        gains = "; ".join(f"{k} {v:+.2f} dB" for k, v in card.get("gain_db", {}).items())
        table.add_row(
            folder.name,
            scale_word(config.scale),
            f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB",
            "yes" if config.denoiser is not None else "no",
            card.get("licence", "?"),
            card.get("training_data", "?"),
            gains or "?",
        )
    print_table(table)
