"""`uhrct benchmark --report`: tables, figures and one HTML page from a result file."""

from __future__ import annotations

from pathlib import Path

from uhrct.benchmark import figures
from uhrct.benchmark.config import BenchmarkConfig
from uhrct.benchmark.html_report import html_report
from uhrct.benchmark.pictures import side_by_side
from uhrct.benchmark.results import Results, read_results
from uhrct.benchmark.summary import summary
from uhrct.benchmark.tables import markdown, tables
from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.progress import track


def write_report(config: BenchmarkConfig, folder: Path, *, quiet: bool = False) -> Path:
    """Write `tables.md`, `summary.md` (means alone), `figures/` and `report.html` into `folder`, and return it.

    Raises
    ------
    UhrctError
        If there are no results yet.
    """
    results = read_results(config.out)
    if not results.places():
        raise UhrctError(f"{config.out}: no results; measure them first with uhrct benchmark, without --report")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tables.md", markdown(results, config))
    write_atomic(folder / "summary.md", summary(results))
    drawn: list[tuple[str, Path]] = []
    for place in track(results.places(), "figures", quiet=quiet):
        drawn += _figures(results, config, place, folder / "figures")
    write_atomic(folder / "report.html", html_report(results, tables(results, config), drawn))
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
