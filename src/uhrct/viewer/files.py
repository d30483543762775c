"""Read the files of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.io.paths import shown
from uhrct.viewer.findings import read_findings
from uhrct.viewer.mesh import read_mesh
from uhrct.viewer.overlay import Overlay, between, overlay_of, uncertainty
from uhrct.viewer.study import MOST_PANES, Pane, Study

Read = Callable[[Path], Volume]


def read_study(
    read: Read,
    volumes: Sequence[Path],
    *,
    truth: Path | None = None,
    overlays: Sequence[Path] = (),
    interval: tuple[Path, Path] | None = None,
    mesh: Path | None = None,
    audit: Path | None = None,
    most_voxels: float | None = None,
) -> Study:
    """Read everything that a page shows.

    Parameters
    ----------
    read : function
        Reads a volume, for example `uhrct.read`.
    volumes : one path, a result; or several: the scan, then its results
    truth, overlays, interval, mesh, audit, most_voxels
        As the options of `uhrct view`.

    Raises
    ------
    UhrctError
        If there are too many volumes, a file cannot be read, or files do not belong together.
    """
    panes = len(volumes) + (truth is not None)
    if panes > MOST_PANES:
        raise UhrctError(f"{panes} volumes to compare; a page shows at most {MOST_PANES}")
    surface = None if mesh is None else read_mesh(mesh)  # small files first: their mistakes show at once
    shown_panes = [Pane(label, read(path)) for label, path in zip(_labels(len(volumes)), volumes, strict=True)]
    result = shown_panes[min(1, len(volumes) - 1)].volume
    findings = [] if audit is None else read_findings(audit, result.shape)
    if truth is not None:
        shown_panes.append(Pane("truth", read(truth)))
    maps = [_named(path, lambda path=path: overlay_of(read(path))) for path in overlays]  # type: ignore[misc]
    if interval is not None:
        lower, upper = (read(path) for path in interval)
        maps.append(_named(interval[0], lambda: uncertainty(between(lower, upper), "interval width in HU")))
    return Study(shown_panes, maps, surface, findings, most_voxels)


def _labels(count: int) -> list[str]:
    """
    >>> _labels(1), _labels(2), _labels(3)
    (['result'], ['scan', 'result'], ['scan', 'result 1', 'result 2'])
    """
    if count <= 2:
        return ["scan", "result"][2 - count :]
    return ["scan", *(f"result {k}" for k in range(1, count))]


def _named(path: Path, make: Callable[[], Overlay]) -> Overlay:
    """The overlay; an error names its file."""
    try:
        return make()
    except UhrctError as error:
        raise type(error)(f"{shown(path)}: {error}") from None
