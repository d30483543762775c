"""One HTML file that shows a comparison: no network, no script, everything inside."""

from __future__ import annotations

import base64
import html
import io
import json
from typing import Any

import numpy as np

from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU
from uhrct.core.version import __version__
from uhrct.core.volume import Volume
from uhrct.evaluation.compare import Comparison
from uhrct.evaluation.measures import MEASURES, without_padding
from uhrct.evaluation.pictures import ERROR_HU, pyplot
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.evaluation.summary import NOTE, rows

#: what is drawn over the slices: (title, metrics)
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
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.note { color: #8a3b00; font-weight: 600; margin: .3rem 0 1rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .28rem .6rem; border-bottom: 1px solid #e4e8ee; vertical-align: top }
th { border-bottom: 2px solid #8090a4 } td.mean { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: .5rem }
.plots svg, figure img { width: 100%; height: auto } figure { margin: 0 0 1rem }
figcaption, .small { color: #56657a; font-size: .85rem } pre { font-size: .78rem; white-space: pre-wrap }
"""


def page(result: Comparison, reference: Volume, test: Volume, files: dict[str, Any]) -> str:
    """The page as text.

    Parameters
    ----------
    result : of `uhrct.evaluation.compare.compare`
    reference, test : the volumes that were compared
    files : name -> {"file", "shape", "spacing_mm"}, for the heading
    """
    lines = "".join(
        f"<tr><td>{html.escape(r['metric'])}</td><td class=mean>{html.escape(r['mean'])}</td>"
        + "".join(f"<td>{html.escape(r[k])}</td>" for k in ("unit", "better", "worst", "slices"))
        + "</tr>"
        for r in rows(result)
    )
    about = "".join(
        f"<tr><td>{name}</td><td>{html.escape(f['file'])}</td><td>{' x '.join(map(str, f['shape']))}</td>"
        f"<td>{' x '.join(f'{s:.4g}' for s in f['spacing_mm'])}</td></tr>"
        for name, f in files.items()
    )
    pictures = "".join(
        f'<figure><img alt="reference, test, error, structure of slice {z}" src="data:image/png;base64,{image}">'
        f"<figcaption>{html.escape(what)}: slice {z}. {html.escape(_scores(result, z))}</figcaption></figure>"
        for what, z in _shown_slices(result)
        for image in [_picture(reference.hu[z], test.hu[z], reference.spacing_mm[1:])]
    )
    constants = html.escape(json.dumps(result.as_dict()["constants"], indent=1))
    title = html.escape(f"{files['test']['file']} against {files['reference']['file']}")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1><p class="note">{NOTE}</p>
<table><tr><th></th><th>file</th><th>voxels z, y, x</th><th>mm z, y, x</th></tr>{about}</table>
<h2>Summary</h2>
<table><tr><th>metric</th><th>mean</th><th>unit</th><th>better</th><th>worst slice</th><th>slices defined</th></tr>
{lines}</table>
<p class="small">Means over the slices where a metric is defined. 1: best at one.</p>
<h2>Slice by slice</h2><div class="plots">{_plots(result)}</div>
<h2>Pictures</h2>{pictures}
<details><summary>Constants that the numbers depend on</summary><pre>{constants}</pre></details>
<p class="small">uhrct {__version__}. {NOTE}</p>
</body></html>
"""


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


def _plots(result: Comparison) -> str:
    if len(result.slices) < 2:
        return "<p class=small>One slice: nothing to plot.</p>"
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
        # SVG text stays text, and the file is the same for the same numbers
        with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        out.append(text.getvalue()[text.getvalue().index("<svg") :])
    return "".join(out)


def _picture(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, ...]) -> str:
    """reference | test | error over structure | structure | what it lost and gained, as base64 PNG."""
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
