"""Pictures of images beside each other, with structure maps and zooms."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.purpose import NOTE


@dataclass(frozen=True)
class Panel:
    """One column: title, image (y, x) in HU, structure map (y, x), a line of scores, and the error (y, x) in HU.

    A panel without a known truth has no error.
    """

    title: str
    hu: np.ndarray
    structure: np.ndarray
    scores: str = ""
    error: np.ndarray | None = None


#: An error of so many HU has full colour.
ERROR_HU = 100.0


def comparison(
    panels: Sequence[Panel],
    path: str | Path,
    *,
    window_hu: tuple[float, float],
    zooms: Sequence[tuple[int, int, int]],
    title: str = "",
) -> Path:
    """Write a PNG with one column per panel: the whole slice, the zooms, and their structure maps.

    Parameters
    ----------
    panels : images of one physical extent, of any number of pixels each
    window_hu : (low, high) shown as black and white
    zooms : (y, x, side) in pixels of the largest panel, the upper left corner and side of squares to enlarge
    """
    plt = pyplot()
    height, width = max((p.hu.shape for p in panels), key=lambda s: s[0] * s[1])
    whole_rows = 1 + any(p.error is not None for p in panels)
    rows = whole_rows + 2 * len(zooms)
    ratios = [height / width] * whole_rows + [1.0] * (2 * len(zooms))
    figure, axes = plt.subplots(
        rows,
        len(panels),
        figsize=(3.1 * len(panels), 3.1 * sum(ratios) + 0.8),
        gridspec_kw={"height_ratios": ratios, "hspace": 0.03, "wspace": 0.03},
        squeeze=False,
        layout="constrained",
    )
    colours = ("#ffb000", "#40c0ff", "#ff6080", "#60ff90")
    for column, panel in enumerate(panels):
        scale = panel.hu.shape[0] / height
        whole = axes[0, column]
        whole.imshow(panel.hu, cmap="gray", vmin=window_hu[0], vmax=window_hu[1], interpolation="nearest")
        whole.set_title(panel.title + (f"\n{panel.scores}" if panel.scores else ""), fontsize=9)
        if whole_rows > 1:
            if panel.error is not None:
                axes[1, column].imshow(panel.error, cmap="seismic", vmin=-ERROR_HU, vmax=ERROR_HU)
            else:
                axes[1, column].axis("off")
        for k, (y, x, side) in enumerate(zooms):
            box = plt.Rectangle(
                (x * scale, y * scale), side * scale, side * scale, fill=False, ec=colours[k % 4], lw=1.2
            )
            whole.add_patch(box)
            inner = tuple(slice(round(a * scale), round((a + side) * scale)) for a in (y, x))
            shown = (
                (panel.hu, "gray", *window_hu),
                (panel.structure, "magma", 0.0, 1.0),
            )
            for offset, (image, colour_map, low, high) in enumerate(shown):
                axis = axes[whole_rows + 2 * k + offset, column]
                axis.imshow(image[inner], cmap=colour_map, vmin=low, vmax=high, interpolation="nearest")
                for spine in axis.spines.values():
                    spine.set(edgecolor=colours[k % 4], linewidth=1.2)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    if whole_rows > 1:
        middle = next(k for k, p in enumerate(panels) if p.error is not None)
        axes[1, middle].set_ylabel(f"error, blue/red = -/+{ERROR_HU:.0f} HU", fontsize=8)
    for k in range(len(zooms)):
        axes[whole_rows + 2 * k, 0].set_ylabel(f"zoom {k + 1}", fontsize=8)
        axes[whole_rows + 2 * k + 1, 0].set_ylabel(f"structure {k + 1}", fontsize=8)
    figure.suptitle(f"{title}  {NOTE}" if title else NOTE, fontsize=9)
    return save_figure(figure, path)


def busiest(structure: np.ndarray, side: int, apart: int | None = None, count: int = 2) -> list[tuple[int, int, int]]:
    """Corners of the `count` squares (y, x, side) with most structure, at least `apart` pixels from each other.

    Changes of the map count, not its values: a map of ones everywhere shows nothing.

    Example
    -------
    >>> structure = np.zeros((64, 64)); structure[40:44, 20:30] = 1
    >>> [(y, x, side)] = busiest(structure, 16, count=1)
    >>> y <= 40 <= y + 16, x <= 20 <= x + 16
    (True, True)
    """
    height, width = structure.shape
    side = min(side, height, width)
    detail = np.abs(np.diff(structure, axis=0, prepend=0)) + np.abs(np.diff(structure, axis=1, prepend=0))
    total = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    found: list[tuple[int, int, int]] = []
    apart = apart or side
    for _ in range(count):
        y, x = np.unravel_index(int(sums.argmax()), sums.shape)
        if sums[y, x] <= 0 and found:
            break
        found.append((int(y), int(x), side))
        sums[max(y - apart, 0) : y + apart, max(x - apart, 0) : x + apart] = 0
    return found


def save_figure(figure: Any, path: str | Path, *, dpi: int = 110) -> Path:
    """Write a figure as PNG, completely or not at all, and close it."""
    data = BytesIO()
    figure.savefig(data, format="png", dpi=dpi)
    pyplot().close(figure)
    write_atomic(path, data.getvalue())
    return Path(path)


def image_source(figure: Any, *, dpi: int) -> str:
    """A figure as the `src` of an image in an HTML page. Closes the figure.

    Lossless WebP, which takes half of the bytes of PNG.
    """
    data = BytesIO()
    figure.savefig(data, format="webp", dpi=dpi, pil_kwargs={"lossless": True})
    pyplot().close(figure)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def pyplot() -> Any:
    """matplotlib.pyplot that draws into files. Raises `UhrctError` if matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UhrctError("pictures need matplotlib: pip install 'uhrct[report]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
