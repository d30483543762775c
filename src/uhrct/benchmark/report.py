"""`uhrct benchmark --report`: out of a result file, tables as markdown, figures, and one page with all of it."""

from __future__ import annotations

from pathlib import Path

from uhrct.benchmark import figures
from uhrct.benchmark.config import BenchmarkConfig
from uhrct.benchmark.page import page
from uhrct.benchmark.pictures import side_by_side
from uhrct.benchmark.results import Results, read_results
from uhrct.benchmark.summary import summary
from uhrct.benchmark.tables import markdown, tables
from uhrct.core.errors import UhrctError
from uhrct.core.progress import track


def write_report(config: BenchmarkConfig, folder: Path, *, quiet: bool = False) -> Path:
    """`tables.md`, `summary.md` (means alone), `figures/` and `report.html` in `folder`; returns the folder.

    Raises
    ------
    UhrctError
        If there are no results yet.
    """
    results = read_results(config.out)
    if not results.places():
        raise UhrctError(f"{config.out}: no results; measure them first with uhrct benchmark, without --report")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    _write(folder / "tables.md", markdown(results, config))
    _write(folder / "summary.md", summary(results))
    drawn: list[tuple[str, Path]] = []
    for place in track(results.places(), "figures", quiet=quiet):
        drawn += _figures(results, config, place, folder / "figures")
    _write(folder / "report.html", page(results, tables(results, config), drawn))
    return folder


def _figures(
    results: Results, config: BenchmarkConfig, place: tuple[str, str, str], folder: Path
) -> list[tuple[str, Path]]:
    """(caption, file) of one protocol, degradation and case."""
    protocol, degradation, case = place
    name, where = "-".join(place).replace("/", "-"), f"{case}, {protocol}, {degradation} degradation"
    out = [
        (f"Spread over slices: {where}", figures.boxes(results, place, folder / f"{name}-boxes.png")),
        (f"PSNR against time: {where}", figures.against_time(results, place, folder / f"{name}-time.png")),
        (f"Vessels broken and invented: {where}", figures.vessels(results, place, folder / f"{name}-vessels.png")),
    ]
    what = "Image, structure map (V_C) and error, with two zooms"
    images = side_by_side(results, config, place, folder / f"{name}-images.png")
    return [(f"{what}: {where}, {k} of {len(images)}", file) for k, file in enumerate(images, 1)] + out


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text)
    unfinished.replace(path)
