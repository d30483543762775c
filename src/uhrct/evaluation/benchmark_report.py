"""`uhrct benchmark --report`: out of a result file, tables as markdown and as one page with figures."""

from __future__ import annotations

from pathlib import Path

from uhrct.errors import UhrctError
from uhrct.evaluation.benchmark_config import BenchmarkConfig
from uhrct.evaluation.benchmark_results import read_results
from uhrct.evaluation.benchmark_tables import markdown


def write_report(config: BenchmarkConfig, folder: Path, *, quiet: bool = False) -> Path:
    """`tables.md` in `folder`; returns the folder.

    Raises
    ------
    UhrctError
        If there are no results yet.
    """
    results = read_results(config.out)
    if not results.places():
        raise UhrctError(f"{config.out}: no results; measure them first with uhrct benchmark, without --report")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tables.md", markdown(results, config))
    return folder


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text)
    unfinished.replace(path)
