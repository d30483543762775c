"""The audit as one HTML file that opens without a network."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from uhrct.audit.audit import Audit, Page, grey
from uhrct.audit.evidence import KINDS
from uhrct.audit.findings import SIDE_MM, Finding
from uhrct.audit.grades import GRADES, LEAST_RIDGE, LEAST_SHARE, LEAST_STRENGTH, MEANINGS
from uhrct.core.files import write_atomic
from uhrct.evaluation.html_report import check_libraries, render

#: Colours of the grades; readers who cannot tell red from green can tell these.
COLOURS = ("#3fa7ff", "#5fe0c0", "#ffc845", "#ff3d6e")
#: Width of the pictures of slices, and of a finding, in pixels.
SLICE_PX, FINDING_PX = 760, 240


def sentence(report: dict[str, Any]) -> str:
    """The audit in one or two sentences.

    Example
    -------
    >>> none = dict.fromkeys(("supported", "sharpened", "inferred", "doubtful"), 0.0)
    >>> vessels = {"total_mm": none | {"supported": 90.0, "doubtful": 10.0}}
    >>> sentence({"lungs_found": True, "vessels": vessels, "airways": {"total_mm": none}, "merges": 1,
    ...           "agreement": {"residual_hu": 7.2, "scan_noise_hu": 12.0}})
    'Of 100 mm of vessels and airways the scan shows 90 %; 0 % are inferred and 10 % doubtful. 1 merge. Measured again,\
 the result differs from the scan by 7.2 HU on average (noise of the scan: 12 HU).'
    """
    lengths = {g: sum(report[kind]["total_mm"][g] for kind in KINDS) for g in GRADES}
    total = sum(lengths.values())
    if not report["lungs_found"]:
        text = "No lung was found, so no vessels and airways were graded."
    elif not total:
        text = "No vessels or airways were found in the lungs."
    else:
        shown = 100 * (lengths["supported"] + lengths["sharpened"]) / total
        merges = report["merges"]
        text = (
            f"Of {total:.0f} mm of vessels and airways the scan shows {_percent(shown)}; "
            f"{_percent(100 * lengths['inferred'] / total)} are inferred and "
            f"{_percent(100 * lengths['doubtful'] / total)} doubtful."
        )
        text += f" {merges} merge{'s' * (merges != 1)}." if merges else ""
    found = report["agreement"]
    if found["residual_hu"] is None:
        return text
    noise = "" if found["scan_noise_hu"] is None else f" (noise of the scan: {found['scan_noise_hu']:.0f} HU)"
    return (
        f"{text} Measured again, the result differs from the scan by {found['residual_hu']:.1f} HU on average{noise}."
    )


def write_page(audit: Audit, report: dict[str, Any], path: Path, *, title: str = "Structure audit") -> None:
    """Write the page of a finished audit.

    Parameters
    ----------
    report : of `Audit.report`
    path : the file, complete or not at all

    Raises
    ------
    UhrctError
        If jinja2 or matplotlib is missing, or the file cannot be written.
    """
    check_libraries()
    pages = sorted(audit.pages, key=lambda p: p.z)
    html = render(
        "audit.html",
        package="uhrct.audit",
        title=title,
        sentence=sentence(report),
        kinds=[_kind(name, report[name]) for name in KINDS] if report["lungs_found"] else [],
        findings=[_finding(f) for f in audit.findings()],
        side_mm=f"{SIDE_MM:.0f}",
        pages=[_page(p) for p in pages],
        first=len(pages) // 2,
        agreement=_agreement(report),
        assumed=report["assumed"] + [f"Warning: {line}" for line in report["warnings"]],
    )
    write_atomic(path, html)


def _percent(value: float) -> str:
    return f"{value:.1f} %" if 0 < value < 1 or 99 < value < 100 else f"{value:.0f} %"


def _kind(name: str, lengths: dict[str, dict[str, float]]) -> dict[str, Any]:
    total = sum(lengths["total_mm"].values())
    grades = [
        {
            "name": g,
            "meaning": MEANINGS[g],
            "colour": colour,
            "mm": f"{lengths['total_mm'][g]:.0f}",
            "percent": f"{100 * lengths['total_mm'][g] / total:.1f}" if total else "0",
            "thirds": [f"{lengths[f'{third}_mm'][g]:.0f}" for third in ("upper", "middle", "lower")],
        }
        for g, colour in zip(GRADES, COLOURS, strict=True)
    ]
    return {"name": name, "total": f"{total:.0f}", "grades": grades}


def _finding(f: Finding) -> dict[str, Any]:
    result = grey(f.result)
    images = [_png(_rgb(image), FINDING_PX) for image in (grey(f.scan), result)]
    images.append(_png(_drawn(result, f.lines), FINDING_PX))
    return {
        "images": images,
        "grade": GRADES[f.grade],
        "kind": f.kind,
        "colour": COLOURS[f.grade],
        "length": f"{f.length_mm:.1f}",
        "z": f.z,
        "y": f.y,
        "x": f.x,
        "why": _why(f),
    }


def _why(f: Finding) -> str:
    reasons = []
    if f.share < LEAST_SHARE:
        reasons.append(f"The scan holds only {100 * max(f.share, 0):.0f} % of its amplitude.")
    if f.strength < LEAST_STRENGTH:
        reasons.append(
            f"Its trace in the scan is {max(f.strength, 0):.1f} times the noise; {LEAST_STRENGTH:.0f} are needed."
        )
    if f.ridge < LEAST_RIDGE:
        reasons.append("The scan shows no ridge at this place.")
    if f.present is not None:
        reasons.append(f"{100 * f.present:.0f} % of the repeated results hold it.")
    return " ".join(reasons)


def _agreement(report: dict[str, Any]) -> list[dict[str, str]]:
    a = report["agreement"]
    hu, ratio = (lambda v: "-" if v is None else f"{v:.2f} HU"), (lambda v: "-" if v is None else f"{v:.2f}")
    verdict = {True: "looks like noise", False: "holds edges too", None: "not enough even soft tissue"}
    rows = [
        ("Residual: mean |A y - x|", hu(a["residual_hu"]), "A is the scanner model, y the result, x the scan"),
        (
            "Residual in even soft tissue",
            hu(a["residual_in_soft_tissue_hu"]),
            f"noise of the scan: {hu(a['scan_noise_hu'])}",
        ),
        (
            "Residual at edges, divided by that in soft tissue",
            ratio(a["residual_at_edges_over_soft_tissue"]),
            f"the residual {verdict[a['residual_looks_like_noise']]}",
        ),
        (
            "Correlation of the residual between neighbouring pixels",
            ratio(a["residual_correlation_of_neighbours"]),
            f"noise of the scan: {ratio(a['scan_noise_correlation_of_neighbours'])}",
        ),
    ]
    rows += [(f"HU bias, {tissue}", hu(bias), "mean of A y - x in even parts") for tissue, bias in a["bias_hu"].items()]
    if report["lungs_found"]:
        rows += [
            ("Broken vessels", f"{report['broken_mm']:.1f} mm", "clearly seen in the scan, missing in the result"),
            ("Merges", str(report["merges"]), "weak structures that connect vessels which are separate without them"),
        ]
    return [{"what": what, "value": value, "note": note} for what, value, note in rows]


def _page(p: Page) -> dict[str, Any]:
    height, width = p.grey.shape
    size = (SLICE_PX, max(1, round(height * SLICE_PX / width)))
    lines = _thick(p.lines, max(1, round(2 * width / SLICE_PX)))
    colours = np.zeros((*lines.shape, 4), np.uint8)
    for g, colour in enumerate(COLOURS):
        colours[lines == g] = [*bytes.fromhex(colour[1:]), 255]
    return {"z": p.z, "grey": _encoded(p.grey, size, "JPEG", quality=82), "lines": _encoded(colours, None, "PNG")}


def _drawn(result: np.ndarray, lines: np.ndarray) -> np.ndarray:
    out = _rgb(result)
    lines = _thick(lines, max(1, round(1.5 * lines.shape[1] / FINDING_PX)))
    for g, colour in enumerate(COLOURS):
        out[lines == g] = list(bytes.fromhex(colour[1:]))
    return out


def _thick(lines: np.ndarray, width_px: int) -> np.ndarray:
    """Lines so wide that they stay visible in a smaller picture. Where two meet, the worse grade wins."""
    return np.asarray(ndimage.grey_dilation(lines, size=(width_px, width_px)))


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, -1)


def _png(image: np.ndarray, side_px: int) -> str:
    height, width = image.shape[:2]
    return _encoded(image, (side_px, max(1, round(height * side_px / width))), "PNG")


def _encoded(image: np.ndarray, size: tuple[int, int] | None, kind: str, **options: Any) -> str:
    from PIL import Image  # comes with matplotlib

    picture = Image.fromarray(image)
    if size is not None and size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    data = BytesIO()
    picture.save(data, kind, optimize=True, **options)
    return base64.b64encode(data.getvalue()).decode()
