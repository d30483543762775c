"""One HTML file that shows a comparison. It needs no network and no script."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.version import __version__
from uhrct.core.volume import Volume
from uhrct.evaluation.baseline import Baseline
from uhrct.evaluation.compare import Comparison, without_rim
from uhrct.evaluation.measures import MEASURES, NOTE
from uhrct.evaluation.pictures import pyplot
from uhrct.evaluation.places import DEPTH_MM, Place, worst_places
from uhrct.evaluation.report_pictures import Pictures, error_scale_hu
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


def html_report(
    result: Comparison, reference: Volume, test: Volume, files: dict[str, Any], baseline: Baseline | None = None
) -> str:
    """The page as text.

    Parameters
    ----------
    result : of `uhrct.evaluation.compare.compare`
    reference, test : the volumes that were compared
    files : name -> {"file", "shape", "spacing_mm"}, for the heading
    baseline : the interpolation of the low-resolution scan, of `uhrct.evaluation.baseline.interpolation`

    Raises
    ------
    UhrctError
        If jinja2 or matplotlib is missing.
    """
    check_libraries()
    against = None if baseline is None else baseline.result
    pictures, chosen = _pictures(result, reference, test, baseline)
    return render(
        "comparison.html",
        title=f"{files['test']['file']} against {files['reference']['file']}",
        files=files,
        rows=rows(result, against),
        baseline=baseline is not None,
        plots=_plots(result, against),
        pictures=[
            {
                "what": what,
                "slice": z,
                "scores": _scores(result, z),
                "baseline": "" if against is None else _scores(against, z),
                "images": pictures.slices(z),
                "errors": pictures.errors(z),
                "vessels": pictures.vessels(z),
            }
            for what, z in chosen
        ],
        error_hu=pictures.error_hu,
        depth_mm=DEPTH_MM,
        ends=result.acquisition is not None and result.acquisition.scale[0] > 1,
        zooms=[
            {"number": k + 1, "slice": p.z, "row": p.y, "column": p.x, "error": p.error_hu, "image": pictures.zoom(k)}
            for k, p in enumerate(pictures.places)
        ],
        constants=json.dumps(result.as_dict()["constants"], indent=1),
    )


def _pictures(
    result: Comparison, reference: Volume, test: Volume, baseline: Baseline | None
) -> tuple[Pictures, list[tuple[str, int]]]:
    """The volumes as the metrics see them, the worst places, and the slices to show."""
    tests = {} if baseline is None else {"interpolation": baseline.volume}
    tests["test"] = test
    if not result.count_padding:
        tests = {name: without_rim(reference, volume)[1] for name, volume in tests.items()}
        reference, _ = without_rim(reference, test)
    scale = (1, 1, 1) if result.acquisition is None else result.acquisition.scale
    places = worst_places(reference, tests["test"], ends=scale[0] if scale[0] > 1 else 0)
    chosen = _shown_slices(result, places)
    pictures = Pictures(
        reference=reference,
        tests=tests,
        lungs=np.zeros(reference.shape, bool) if result.lungs is None else result.lungs,
        lr=None if baseline is None else baseline.lr,
        scale=scale,
        error_hu=error_scale_hu(reference, list(tests.values()), [z for _, z in chosen]),
        places=places,
    )
    return pictures, chosen


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


def _shown_slices(result: Comparison, places: Sequence[Place]) -> list[tuple[str, int]]:
    """Up to three slices, and why they are shown."""
    chosen: dict[int, str] = {}
    for name, why in (("psnr_wide", "Worst PSNR, wide window"), ("broken_mm", "Most broken vessels")):
        worst = result.worst(name)
        if worst is not None:
            chosen.setdefault(worst[0], why)
    if places:
        chosen.setdefault(places[0].z, "Worst place (zoom 1)")
    if not chosen:
        chosen[len(result.slices) // 2] = "Middle of the volume"
    return [(why, z) for z, why in chosen.items()]


def _scores(result: Comparison, z: int) -> str:
    out = []
    for name in ("psnr_wide", "ssim_wide", "smse_vc", "cldice_25", "broken_mm", "invented_mm"):
        m, value = MEASURES[name], result.slices[z].values.get(name)
        if value is not None:
            out.append(f"{m.label} {value * m.printed_times:.{m.decimals}f} {m.unit}".strip())
    return "; ".join(out)


def _plots(result: Comparison, baseline: Comparison | None = None) -> list[str]:
    """SVG plots over the slices, the baseline dashed. One slice has none."""
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
            [line] = axis.plot(z, np.multiply(values, m.printed_times), ".-", lw=1, ms=3, label=m.label)
            if baseline is not None and name != "vessel_mm" and (others := baseline.defined(name)):
                z, values = zip(*others, strict=True)
                axis.plot(z, np.multiply(values, m.printed_times), "--", lw=1, color=line.get_color())
        axis.set(title=title, xlabel="slice", ylabel=MEASURES[lines[0][0]].unit)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, edgecolor="none", framealpha=0.6)
        text = io.StringIO()
        # Text stays text, and equal numbers give equal files.
        with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        out.append(text.getvalue()[text.getvalue().index("<svg") :])
    return out
