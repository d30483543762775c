"""`uhrct evaluate`: compare two files; print a table, write JSON and an HTML page."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from uhrct import io
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.files import STDOUT, write_atomic, write_json
from uhrct.core.volume import Vector, Volume
from uhrct.evaluation.measures import NOTE
from uhrct.evaluation.summary import rows
from uhrct.io.outputs import check_files

if TYPE_CHECKING:
    from rich.table import Table

    from uhrct.evaluation.baseline import Baseline
    from uhrct.evaluation.compare import Comparison


def evaluate_files(
    reference: Path,
    test: Path,
    *,
    lr: Path | None = None,
    kind: str = "scanner",
    psf_fwhm_mm: float | None = None,
    json_path: Path | None = None,
    html_path: Path | None = None,
    overwrite: bool = False,
    spacing_mm: Vector | None = None,
    count_padding: bool = False,
    quiet: bool = False,
) -> None:
    """Compare two files by every metric. Print the table, and write JSON and HTML where a path is given.

    All arguments and output paths are checked before the work begins.

    Parameters
    ----------
    reference, test : files on one grid
    lr : the scan that `test` was made from; adds the consistency, and its cubic interpolation as a baseline
    kind, psf_fwhm_mm : how `lr` arises from the reference: "scanner" or "bicubic", and the in-plane PSF
    json_path, html_path : outputs; if `json_path` is `uhrct.core.files.STDOUT`, the table goes to stderr
    overwrite : replace outputs that exist
    spacing_mm : (z, y, x) of `.npz` inputs without spacing
    count_padding : whether voxels beside padding count (`uhrct.evaluation.compare.compare`)
    quiet : print nothing

    Raises
    ------
    UhrctError
        If an input cannot be read, the grids differ, an output cannot be written, or a library is missing.
    """
    inputs = [p for p in (reference, test, lr) if p is not None]
    _check_outputs(
        inputs, {"`json_path`": None if json_path == STDOUT else json_path, "`html_path`": html_path}, overwrite
    )
    _check_libraries(html_path is not None)
    if lr is None and (psf_fwhm_mm is not None or kind != "scanner"):
        raise UhrctError("`kind` and `psf_fwhm_mm` describe how the LR scan arises; give it with `lr`")
    if spacing_mm is not None and not any(p.suffix.lower() == ".npz" for p in (reference, test)):
        raise UhrctError("`spacing_mm` is for .npz only; reference and test carry their own")
    if psf_fwhm_mm is not None and (kind != "scanner" or not 0 <= psf_fwhm_mm < 1e4):
        raise UhrctError(f"`psf_fwhm_mm` {psf_fwhm_mm}: give a number from 0, with `kind=scanner`")
    from uhrct.evaluation.compare import acquisition_between, check_grids, compare

    volumes = [_read(p, spacing_mm if p != lr else None) for p in (reference, test)]
    check_grids(volumes[0].grid, volumes[1].grid)
    low = acquisition = baseline = None
    if lr is not None:
        low = _read_lr(lr)
        acquisition = acquisition_between(volumes[0].grid, low.grid, kind, psf_fwhm_mm=psf_fwhm_mm)
    result = compare(*volumes, lr=low, acquisition=acquisition, count_padding=count_padding, quiet=quiet)
    files = {"reference": _identity(reference, volumes[0]), "test": _identity(test, volumes[1])}
    if lr is not None and low is not None:
        from uhrct.evaluation.baseline import interpolation

        files["lr"] = _identity(lr, low)
        baseline = interpolation(volumes[0], low, result, quiet=quiet)
    if json_path is not None:
        interpolated = {} if baseline is None else {"baseline": baseline.as_dict()}
        write_json(json_path, files | result.as_dict() | interpolated)
    if html_path is not None:
        from uhrct.evaluation.html_report import html_report

        write_atomic(html_path, html_report(result, volumes[0], volumes[1], files, baseline))
    if not quiet:
        screen = sys.stderr if json_path == STDOUT else sys.stdout
        _print(table(result, baseline), screen)
        print(f"Means are over the slices where a metric is defined. {NOTE}", file=screen)


def table(result: Comparison, baseline: Baseline | None = None) -> Table:
    """The summary as a table for a terminal."""
    from rich.table import Table

    out = Table(box=None, pad_edge=False)
    names = {"baseline": "interpolation"}
    lines = rows(result, None if baseline is None else baseline.result)
    for name in lines[0]:
        number = name in ("mean", "baseline", "difference")
        out.add_column(names.get(name, name), justify="right" if number else "left", overflow="fold")
    for row in lines:
        out.add_row(*row.values())
    return out


def _read(path: Path, spacing_mm: Vector | None) -> Volume:
    try:
        return io.read(path, spacing_mm=spacing_mm if path.suffix.lower() == ".npz" else None)
    except UhrctError as error:  # the comparison of files has no argument that chooses a series
        text = re.sub(r"choose one by `series=\S+`", "give a folder that holds only one of them", str(error))
        raise type(error)(text) from error


def _read_lr(path: Path) -> Volume:
    try:
        return _read(path, None)
    except UhrctError as error:
        if "no voxel spacing" not in str(error):
            raise
        # `spacing_mm` belongs to the reference. The LR's own spacing gives the scale.
        raise InputRefused(f"{path}: no voxel spacing in the file; store spacing_mm (z, y, x) in it") from None


def _identity(path: Path, volume: Volume) -> dict[str, Any]:
    return {"file": path.name, "shape": list(volume.shape), "spacing_mm": [float(s) for s in volume.spacing_mm]}


def _check_outputs(inputs: list[Path], outputs: dict[str, Path | None], overwrite: bool) -> None:
    for option, path in outputs.items():
        if path is not None and path.is_dir():
            raise UhrctError(f"{path}: {option} writes a file, but this is a folder; choose another")
    check_files(inputs, [path for path in outputs.values() if path is not None], overwrite)


def _check_libraries(html: bool) -> None:
    try:
        import scipy  # noqa: F401
        import skimage  # noqa: F401
    except ImportError:
        raise UhrctError("evaluation needs scipy and scikit-image: pip install 'uhrct[evaluation]'") from None
    if html:
        from uhrct.evaluation.html_report import check_libraries

        check_libraries()


def _print(table: Table, screen: TextIO) -> None:
    from rich.console import Console

    width = None if screen.isatty() else 200
    Console(file=screen, width=width, markup=False, highlight=False, emoji=False).print(table)
