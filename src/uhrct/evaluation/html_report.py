"""One HTML file that shows a comparison. It needs no network and no script."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU
from uhrct.core.version import __version__
from uhrct.core.volume import Volume
from uhrct.evaluation.compare import Comparison
from uhrct.evaluation.measures import MEASURES, NOTE, without_padding
from uhrct.evaluation.pictures import ERROR_HU, pyplot
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.evaluation.summary import rows

#: Plots over the slices: (title, metrics).
PLOTS = (
    ("PSNR", ("psnr_wide", "psnr_lung", "psnr_mediastinum")),
    ("RMSE and MAE", ("rmse_hu", "mae_hu")),
    ("SSIM and VIF", ("ssim_wide", "vif_wide")),
    ("SMSE", ("smse_frangi", "smse_vc", "smse_frangi_c100")),
    ("clDice in the lungs", ("cldice_10", "cldice_25", "cldice_50")),
    ("Betti errors", ("betti0_error", "betti1_error")),
    ("Vessel length", ("vessel_mm", "broken_mm", "invented_mm")),
    ("Texture, test / reference", ("texture_1", "texture_2", "texture_3", "texture_4")),
    ("Consistency with the LR", ("consistency_hu",)),
)


def html_report(result: Comparison, reference: Volume, test: Volume, files: dict[str, Any]) -> str:
    """The page as text.

    Parameters
    ----------
    result : of `uhrct.evaluation.compare.compare`
    reference, test : the volumes that were compared
    files : name -> {"file", "shape", "spacing_mm"}, for the heading

    Raises
    ------
    UhrctError
        If jinja2 or matplotlib is missing.
    """
    return render(
        "comparison.html",
        title=f"{files['test']['file']} against {files['reference']['file']}",
        files=files,
        rows=rows(result),
        plots=_plots(result),
        pictures=[
            {
                "what": what,
                "slice": z,
                "scores": _scores(result, z),
                "png": _picture(reference.hu[z], test.hu[z], reference.spacing_mm[1:]),
            }
            for what, z in _shown_slices(result)
        ],
        constants=json.dumps(result.as_dict()["constants"], indent=1),
    )


def render(template: str, *, package: str = "uhrct.evaluation", **values: Any) -> str:
    """An HTML page from a template in the folder `templates` of a package. All values are escaped.

    A template can extend `base.html`, which holds the style, the heading and the note. Errors as in `check_libraries`.
    """
    check_libraries()
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(p) for p in dict.fromkeys([package, "uhrct.evaluation"])])
    pages = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return pages.get_template(template).render(note=NOTE, version=__version__, **values)


def check_libraries() -> None:
    """Raise `UhrctError` if jinja2 or matplotlib is missing."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise UhrctError("HTML pages need jinja2: pip install 'uhrct[report]'") from None
    pyplot()


def _shown_slices(result: Comparison) -> list[tuple[str, int]]:
    worst = result.worst("psnr_wide")
    middle = ("Middle of the volume", len(result.slices) // 2)
    if worst is None:
        return [middle]
    first = ("Worst PSNR, wide window", worst[0])
    return [first] if worst[0] == middle[1] else [first, middle]


def _scores(result: Comparison, z: int) -> str:
    out = []
    for name in ("psnr_wide", "ssim_wide", "smse_vc", "cldice_25", "broken_mm", "invented_mm"):
        m, value = MEASURES[name], result.slices[z].values.get(name)
        if value is not None:
            out.append(f"{m.label} {value * m.printed_times:.{m.decimals}f} {m.unit}".strip())
    return "; ".join(out)


def _plots(result: Comparison) -> list[str]:
    """SVG plots over the slices. One slice has none."""
    if len(result.slices) < 2:
        return []
    plt = pyplot()
    out = []
    for title, names in PLOTS:
        lines = [(n, result.defined(n)) for n in names if result.defined(n)]
        if not lines:
            continue
        figure, axis = plt.subplots(figsize=(4.2, 2.6), layout="constrained")
        for name, points in lines:
            m = MEASURES[name]
            z, values = zip(*points, strict=True)
            axis.plot(z, np.multiply(values, m.printed_times), ".-", lw=1, ms=3, label=m.label)
        axis.set(title=title, xlabel="slice", ylabel=MEASURES[lines[0][0]].unit)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=6, frameon=False)
        text = io.StringIO()
        # Text stays text, and equal numbers give equal files.
        with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        out.append(text.getvalue()[text.getvalue().index("<svg") :])
    return out


def _picture(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, ...]) -> str:
    """Reference, test and error above; structure maps and their difference below. PNG in base64."""
    plt = pyplot()
    both = [np.nan_to_num(x.astype(np.float64), nan=FLOOR_HU, posinf=3071, neginf=FLOOR_HU) for x in (reference, test)]
    pair = np.stack(without_padding(*both))
    maps = structure_maps(pair, spacing_mm, SMSE_OPERATORS["vc"])
    low, high = DISPLAY_WINDOWS_HU["lung"]
    gray = {"cmap": "gray", "vmin": low, "vmax": high}
    warm = {"cmap": "magma", "vmin": 0, "vmax": 1}
    panels = (
        (f"reference, {low:.0f} to {high:.0f} HU", pair[0], gray),
        ("test", pair[1], gray),
        (
            f"test - reference, -/+ {ERROR_HU:.0f} HU",
            pair[1] - pair[0],
            {"cmap": "seismic", "vmin": -ERROR_HU, "vmax": ERROR_HU},
        ),
        ("structure of the reference (V_C)", maps[0], warm),
        ("structure of the test", maps[1], warm),
        ("structure lost (blue) and added (red)", maps[1] - maps[0], {"cmap": "seismic", "vmin": -0.5, "vmax": 0.5}),
    )
    stretch = spacing_mm[0] / spacing_mm[1]
    height = min(4.2 * reference.shape[0] * stretch / reference.shape[1], 12)
    figure, axes = plt.subplots(2, 3, figsize=(12.6, 2 * height + 0.6), layout="constrained")
    for axis, (title, image, how) in zip(axes.flat, panels, strict=True):
        axis.imshow(image, aspect=stretch, interpolation="nearest", **how)
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    plt.close(figure)
    return base64.b64encode(data.getvalue()).decode()
