"""The page of a comparison: everything is inside, every value is text."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from uhrct.core.volume import Volume
from uhrct.evaluation.baseline import Baseline, interpolation
from uhrct.evaluation.compare import Comparison, compare
from uhrct.evaluation.html_report import _pictures, html_report
from uhrct.evaluation.pictures import image_source, pyplot
from uhrct.evaluation.report_pictures import error_scale_hu
from uhrct.physics.degrade import degrade


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume, Comparison]:
    hu = np.random.default_rng(0).normal(40, 30, (3, 48, 48)).astype(np.float32)
    reference = Volume(hu, (1.0, 0.7, 0.7))
    test = reference.on_grid(reference.grid, hu + np.array([1, 20, 5], np.float32)[:, None, None])
    return reference, test, compare(reference, test)


def pictures_of(page: str) -> list[str]:
    """What the pictures show, by their text for blind readers."""
    return re.findall(r'<img alt="([^"]+)" src="data:image/webp;base64,', page)


def test_a_picture_in_a_page_is_exact() -> None:
    figure, axis = pyplot().subplots(figsize=(2, 2))
    axis.imshow(np.random.default_rng(0).normal(size=(64, 64)), cmap="seismic")
    png = io.BytesIO()
    figure.savefig(png, dpi=100)
    source = image_source(figure, dpi=100)
    webp = io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,")))
    np.testing.assert_array_equal(*(np.asarray(Image.open(data).convert("RGB")) for data in (webp, png)))
    assert len(webp.getvalue()) < len(png.getvalue())


def test_wide_things_scroll_on_a_phone(volumes: tuple[Volume, Volume, Comparison]) -> None:
    """Tables and pictures lie in a box that scrolls, so that the page itself does not."""
    reference, test, result = volumes
    page = html_report(result, reference, test, files("t.nii", reference.shape))
    assert len(pictures_of(page)) == 3
    assert page.count("<table>") == 2
    for wide in ("<table>", "<img "):
        assert page.count(wide) == page.count(f'<div class="wide">{wide}')


def files(name: str, shape: tuple[int, ...]) -> dict[str, dict[str, object]]:
    about = {"shape": list(shape), "spacing_mm": [1.0, 0.7, 0.7]}
    return {"reference": {"file": "hr.nii", **about}, "test": {"file": name, **about}}


def test_the_page_shows_scores_and_the_worst_slice(volumes: tuple[Volume, Volume, Comparison]) -> None:
    reference, test, result = volumes
    page = html_report(result, reference, test, files("a<b>&c.nii", (3, 48, 48)))
    assert "a&lt;b&gt;&amp;c.nii against hr.nii" in page
    assert "a<b>" not in page
    assert "<td>3 x 48 x 48</td>" in page
    assert "1 x 0.7 x 0.7" in page
    assert f'<td class="mean">{result.mean("rmse_hu"):.2f}</td>' in page
    assert "undefined (no lung in the reference)" in page
    assert re.findall(r"<h3>(.*?): slice (\d)</h3><figcaption>Test", page) == [("Worst PSNR, wide window", "1")]
    assert len(pictures_of(page)) == 3  # slices, errors, one zoom: one place in the one small slice that is worst
    assert "interpolation" not in page
    assert page.count("<svg") > 3
    assert page.count("Research use only; not a medical device.") == 2
    assert "<script" not in page


def test_one_slice_has_no_plots(volumes: tuple[Volume, Volume, Comparison]) -> None:
    reference, test = (Volume(v.hu[:1], v.spacing_mm) for v in volumes[:2])
    page = html_report(compare(reference, test), reference, test, files("sr.nii", (1, 48, 48)))
    assert "nothing to plot" in page
    assert "<svg" not in page


@pytest.fixture(scope="module")
def chest() -> tuple[Volume, Volume, Comparison, Baseline]:
    """Ten slices of a chest with padding beside the field of view; the test lacks one vessel and has a new one."""
    rng = np.random.default_rng(0)
    _, y, x = np.mgrid[:10, :128, :128]
    hu = np.where(np.hypot(y - 64, x - 64) < 54, 40.0, -1000.0)
    hu[np.hypot(y - 60, x - 64) < 34] = -850
    test = hu.copy()
    for volume, places in ((hu, ((50, 50), (70, 80))), (test, ((50, 50), (45, 80)))):
        for cy, cx in places:
            volume += 850 * np.exp(-((y - cy) ** 2) / (2 * 1.6**2)) * (np.abs(x - cx) < 9)
    hu, test = (v + rng.normal(0, 6, v.shape) for v in (hu, test))
    outside = np.hypot(y - 64, x - 64) > 62
    hu[outside] = test[outside] = -2000
    reference = Volume(np.rint(hu).astype(np.int16), (1.0, 0.8, 0.8))
    low = degrade(reference, scale=(5, 2, 2))
    other = reference.on_grid(reference.grid, np.rint(test).astype(np.int16))
    result = compare(reference, other, lr=low)
    return reference, other, result, interpolation(reference, low, result)


def test_the_page_compares_with_interpolation(chest: tuple[Volume, Volume, Comparison, Baseline]) -> None:
    reference, test, result, baseline = chest
    page = html_report(result, reference, test, files("sr.nii", reference.shape), baseline)
    mine, theirs = (r.mean("rmse_hu") for r in (result, baseline.result))
    assert mine is not None
    assert theirs is not None
    row = page[page.index("<td>RMSE</td>") :].split("</tr>")[0]
    verdict = "better" if mine < theirs else "worse"
    assert re.findall(r">([^<>\n]+)</td>", row)[:4] == [
        "RMSE",
        f"{mine:.2f}",
        f"{theirs:.2f}",
        f"{mine - theirs:+.2f} {verdict}",
    ]
    shown = pictures_of(page)
    for what in ("truth and test", "broken and invented vessels", "errors in HU", "zoom 1"):
        assert any(text.startswith(what) for text in shown), what
    assert "Dashed: interpolation" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "lack a neighbour" in page


def test_lines_that_are_drawn_are_those_that_the_table_counts(
    chest: tuple[Volume, Volume, Comparison, Baseline],
) -> None:
    reference, test, result, baseline = chest
    pictures, _ = _pictures(result, reference, test, baseline)
    for name, scores in (("test", result), ("interpolation", baseline.result)):
        for z in (0, 4, 9):
            lines, values = pictures.lines(pictures.tests[name], z), scores.slices[z].values
            assert pictures.length_mm(lines.reference, lines.broken) == pytest.approx(values["broken_mm"])
            assert pictures.length_mm(lines.test, lines.invented) == pytest.approx(values["invented_mm"])
    lines = pictures.lines(pictures.tests["test"], 4)
    assert lines.broken[68:73, 75:86].sum() >= 8  # the vessel that the test lacks
    assert lines.invented[43:48, 75:86].sum() >= 8  # the new one
    assert not lines.broken[40:60, 40:60].any()


def test_zooms_show_the_lost_and_the_new_vessel(chest: tuple[Volume, Volume, Comparison, Baseline]) -> None:
    reference, test, result, baseline = chest
    pictures, _ = _pictures(result, reference, test, baseline)
    [first, *_] = pictures.places
    assert (abs(first.y - 70) <= 2 and first.error_hu < -100) or (abs(first.y - 45) <= 2 and first.error_hu > 100)
    assert abs(first.x - 80) <= 10
    low, high = pictures._window_at(first)
    assert low < -800
    assert high >= -50  # the vessel is not white


def test_the_scale_of_errors_fits_them(volumes: tuple[Volume, Volume, Comparison]) -> None:
    reference, test, _ = volumes
    assert error_scale_hu(reference, [test], [1]) == 20
    assert error_scale_hu(reference, [test], [2]) == 5
    assert error_scale_hu(reference, [test], [1, 2]) == 20
    assert error_scale_hu(reference, [reference], [0]) == 1
    loud = reference.on_grid(reference.grid, reference.hu + 777)
    assert error_scale_hu(reference, [test, loud], [1]) == 800
