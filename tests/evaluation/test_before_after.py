"""A scan before and after: where views lie, and what is measured and drawn."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.before_after import BeforeAfter, Figures, describe
from uhrct.evaluation.views import choose_views
from uhrct.physics.resampling import upsample_stack

MM = 1.5


def chest(slices: int = 8, noise_hu: float = 15.0) -> Volume:
    """A body of 240 x 330 mm with lungs, vessels, a spine and even tissue, on a table with steep edges."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :256] * MM
    hu = np.full((slices, 200, 256), -1000.0)
    hu[:, np.hypot((y - 140) / 120, (x - 192) / 165) < 1] = 40
    for centre in (112, 272):
        lung = np.hypot((y - 130) / 65, (x - centre) / 48) < 1
        hu[:, lung] = -850
        for _ in range(40):
            cy, cx = rng.uniform(80, 180), centre + rng.uniform(-35, 35)
            hu[:, (np.hypot(y - cy, x - cx) < 3) & lung] = 30
    spine = np.hypot(y - 225, x - 192) < 18
    hu[:, spine] = np.where((y + x) % 12 < 6, 900, 200)[spine]
    hu[:, np.hypot(y - 130, x - 192) < 14] = 60
    hu[:, 185:188] = 1400  # the table
    return Volume((hu + rng.normal(0, noise_hu, hu.shape)).clip(-1024).round().astype(np.int16), (5.0, MM, MM))


def interpolated(scan: Volume, scale: tuple[int, int, int]) -> np.ndarray:
    """Cubic interpolation of all slices, as another function of the project computes it."""
    around = np.arange(-2, len(scan.hu) + 2).clip(0, len(scan.hu) - 1)
    stack = torch.from_numpy(scan.hu[around].astype(np.float32))
    return np.concatenate([upsample_stack(stack[k : k + 5], scale).numpy() for k in range(len(scan.hu))])


def test_views_show_each_kind_inside_the_body() -> None:
    scan = chest()
    views = {v.name: v for v in choose_views(scan, across=True)}
    assert list(views) == ["lung vessels", "bone", "soft tissue", "lung vessels, across slices"]
    for v in views.values():
        top, left, height, width = v.box_mm
        if v.axis == 0:
            corners = [(a, b) for a in (top, top + height) for b in (left, left + width)]
            assert all(np.hypot((a - 140) / 125, (b - 192) / 170) < 1 for a, b in corners)
            assert top + height < 185 * MM  # not the table
    top, left, height, width = views["bone"].box_mm
    assert top < 225 < top + height
    assert left < 192 < left + width


def test_scan_without_lungs_has_no_view_of_them() -> None:
    scan = chest()
    scan.hu[scan.hu < -600] = 40
    assert "lung vessels" not in {v.name for v in choose_views(scan)}


def test_empty_scan_shows_its_middle() -> None:
    [view] = choose_views(Volume(np.full((3, 40, 60), -1000, np.int16), (1.0, 1.0, 1.0)))
    assert (view.name, view.index) == ("middle of the scan", 1)


@pytest.mark.parametrize("scale", [(1, 2, 2), (5, 1, 1), (5, 2, 2)])
def test_interpolation_changes_nothing(scale: tuple[int, int, int]) -> None:
    scan = chest()
    before_after = BeforeAfter(scan, scan.refined_grid(scale))
    before_after.feed(0, interpolated(scan, scale))
    for view in before_after.views:
        cut = before_after.cut(view)
        inner = (slice(12, -12), slice(8, -8)) if view.axis else ...
        np.testing.assert_allclose(cut.result[inner], cut.interpolation[inner], atol=0.05)
    f = before_after.figures()
    assert f.result_noise_hu == pytest.approx(f.interpolation_noise_hu, rel=1e-3)
    assert (f.edges_in_plane is None) == (scale[2] == 1)
    assert (f.edges_across is None) == (scale[0] == 1)
    for ratio in (f.edges_in_plane, f.edges_across):
        assert ratio is None or ratio == pytest.approx(1, abs=0.02)


def test_figures_of_a_known_change() -> None:
    """Half of the noise is measured as such."""
    noisy, clean = chest(), chest(noise_hu=0)
    before_after = BeforeAfter(noisy, noisy.refined_grid((1, 2, 2)))
    fine = [interpolated(v, (1, 2, 2)) for v in (noisy, clean)]
    before_after.feed(0, fine[1] + 0.5 * (fine[0] - fine[1]))
    f = before_after.figures()
    assert f.scan_noise_hu == pytest.approx(15, rel=0.15)
    assert f.result_noise_hu == pytest.approx(0.5 * f.interpolation_noise_hu, rel=0.02)


def test_slabs_of_any_size_give_the_same_cuts() -> None:
    scan = chest()
    fine = interpolated(scan, (5, 1, 1))
    whole, parts = (BeforeAfter(scan, scan.refined_grid((5, 1, 1))) for _ in range(2))
    whole.feed(0, fine)
    for k in range(0, len(fine), 3):
        parts.feed(k, fine[k : k + 3])
    for view in whole.views:
        np.testing.assert_array_equal(whole.cut(view).result, parts.cut(view).result)


@pytest.mark.parametrize("up", [1, -1])
def test_the_head_is_above_in_a_coronal_cut(up: int) -> None:
    scan = chest()
    scan = Volume(scan.hu, scan.spacing_mm, direction=scan.direction * (up, 1, 1))  # column 0: towards head or feet
    before_after = BeforeAfter(scan, scan.refined_grid((5, 1, 1)))
    before_after.feed(0, interpolated(scan, (5, 1, 1)))
    coronal = [v for v in before_after.views if v.axis == 1]
    assert coronal
    for axis in before_after._figure(coronal, "").axes[:5]:
        bottom, top = axis.get_ylim()
        assert (top > bottom) == (up > 0)  # the first slice is row 0


def test_picture_and_page(tmp_path: Path) -> None:
    scan = chest()
    before_after = BeforeAfter(scan, scan.refined_grid((1, 2, 2)))
    before_after.feed(0, interpolated(scan, (1, 2, 2)))
    before_after.write(tmp_path / "a.png", body_difference_hu=0.4)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    before_after.write(
        tmp_path / "a.html", body_difference_hu=0.4, scan_noise_hu=10.0, assumed=["noise 15 HU (<measured>)"]
    )
    page = (tmp_path / "a.html").read_text()
    assert "differs from the scan by 0.4 HU in the body; noise alone would give 8.0 HU" in page
    assert "noise 15 HU (&lt;measured&gt;)" in page
    assert "not a medical device" in page
    pictures = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    assert len(pictures) == len(before_after.views)
    assert all(base64.b64decode(p).startswith(b"RIFF") for p in pictures)
    assert not re.search(r"(src|href)=\"http", page)


def test_other_suffix_is_refused() -> None:
    scan = chest(1)
    with pytest.raises(UhrctError, match="choose one of these suffixes"):
        BeforeAfter(scan, scan.refined_grid((1, 2, 2))).write(Path("a.jpg"))


def test_words() -> None:
    assert "Edges are 1.2 (in plane) and 1.4 (across slices) times" in describe(Figures(9, 8, 7, 1.21, 1.44), None)
    assert "Edges across slices are 1.4 times" in describe(Figures(9, 8, 7, None, 1.44), None)
    none = Figures(None, None, None, None, None)
    assert describe(none, None) == "There is no tissue even enough to compare the noise."
    assert describe(none, None, 127.6).endswith("noise. That of the scan is about 128 HU.")


def test_a_scan_without_even_tissue_shows_the_noise_that_was_assumed(tmp_path: Path) -> None:
    """Footnotes explain figures: without a figure of the noise there is none."""
    scan = chest()
    scan.hu[:] = np.random.default_rng(0).normal(40, 300, scan.hu.shape)
    before_after = BeforeAfter(scan, scan.refined_grid((1, 2, 2)))
    before_after.feed(0, interpolated(scan, (1, 2, 2)))
    assert before_after.figures().scan_noise_hu is None
    before_after.write(tmp_path / "a.html", scan_noise_hu=127.6)
    page = (tmp_path / "a.html").read_text()
    assert "That of the scan is about 128 HU" in page
    assert "127.60 HU (as assumed)" in page
    assert "most even patches" not in page
