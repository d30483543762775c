"""The page of a comparison: everything is inside, every value is text."""

from __future__ import annotations

import re

import numpy as np
import pytest

from uhrct.core.volume import Volume
from uhrct.evaluation.compare import Comparison, compare
from uhrct.evaluation.html_report import html_report


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume, Comparison]:
    hu = np.random.default_rng(0).normal(40, 30, (3, 48, 48)).astype(np.float32)
    reference = Volume(hu, (1.0, 0.7, 0.7))
    test = reference.on_grid(reference.grid, hu + np.array([1, 20, 5], np.float32)[:, None, None])
    return reference, test, compare(reference, test)


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
    assert re.findall(r"<figcaption>(.*?): slice (\d)", page) == [("Worst PSNR, wide window", "1")]
    assert page.count("<svg") > 3
    assert page.count("Research use only; not a medical device.") == 2
    assert "<script" not in page


def test_one_slice_has_no_plots(volumes: tuple[Volume, Volume, Comparison]) -> None:
    reference, test = (Volume(v.hu[:1], v.spacing_mm) for v in volumes[:2])
    page = html_report(compare(reference, test), reference, test, files("sr.nii", (1, 48, 48)))
    assert "nothing to plot" in page
    assert "<svg" not in page
