"""Boxes and coarser levels: the same place in every volume, and HU that are what they should be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from viewed import body, finding

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Volume
from uhrct.viewer.region import Region, coarse_step, cut, parsed_box
from uhrct.viewer.study import MOST_VOXELS_OF_A_PANE, Pane, Study


def edges_mm(volume: Volume, region: Region) -> np.ndarray:
    """Both outer corners of what is shown of a region."""
    grid = cut(volume, region).grid
    far = np.asarray(grid.corner_mm) + grid.direction @ np.asarray(grid.extent_mm)
    return np.array([grid.corner_mm, far])


@given(st.integers(0, 7), st.integers(0, 60), st.integers(0, 70), st.integers(1, 40), st.floats(0.002, 1))
def test_all_panes_show_the_same_place(z: int, y: int, x: int, side: int, million: float) -> None:
    scan, fine = body((8, 32, 40), (2.5, 1.6, 1.6), 1), body((8, 64, 80), (2.5, 0.8, 0.8), 2)
    study = Study([Pane("scan", scan), Pane("result", fine)], most_voxels=1e6 * million)
    views = [study.whole()]
    box = Region((z, y, x), (z + 1, min(64, y + side), min(80, x + side)))
    if math.prod(box.size) * 4 < study.limit:
        views.append(study.box(box))
        assert all(a <= b for a, b in zip(views[1].region.start, box.start, strict=True))
        assert all(a >= b for a, b in zip(views[1].region.stop, box.stop, strict=True))
    for view in views:
        places = [edges_mm(v, part) for v, part in zip((scan, fine), view.panes, strict=True)]
        assert np.allclose(*places, atol=1e-6)
        assert max(math.prod(part.shown) for part in view.panes) <= study.limit


def test_voxels_in_full_resolution_are_not_changed(study: Study) -> None:
    view = study.box(Region((1, 4, 6), (3, 20, 30)))
    assert np.array_equal(cut(study.result, view.panes[1]).hu, study.result.hu[1:3, 4:20, 6:30])
    assert "full resolution" in study.describe(view)["text"]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_coarse_voxels_are_means(dtype: type) -> None:
    hu = np.random.default_rng(0).integers(-1024, 3000, (5, 9, 13)).astype(dtype)
    shown = cut(Volume(hu, (1.0, 0.5, 0.5)), Region((0, 1, 0), (5, 9, 13), (2, 4, 3))).hu
    means = hu[:4, 1:9, :12].astype(float).reshape(2, 2, 2, 4, 4, 3).mean((1, 3, 5))
    assert shown.dtype == dtype
    assert np.abs(shown - means).max() <= (0.5 if dtype == np.int16 else 1e-3)


def test_a_large_volume_is_shown_coarser_and_the_page_says_so() -> None:
    assert coarse_step(Region((0, 0, 0), (300, 1024, 1024)), (1.0, 0.35, 0.35), MOST_VOXELS_OF_A_PANE) == (1, 2, 2)
    small = Study([Pane("result", body((8, 64, 80), (2.5, 0.8, 0.8), 2))], most_voxels=20_000)
    text = small.describe(small.whole())["text"]
    assert "coarser than it is" in text
    assert "result: 1 x 2 x 2, rounded to 1 HU" in text


def test_long_sides_are_shortened() -> None:
    region = Region((0, 0, 0), (5000, 4, 4))
    assert max(Region(region.start, region.stop, coarse_step(region, (1.0, 1.0, 1.0), 1e9)).shown) <= 2048


@pytest.mark.parametrize(
    "box", ["", "1:2", "0:2,0:2,0:2,0:2", "0:0,0:2,0:2", "3:2,0:2,0:2", "0:9,0:2,0:2", "-1:2,0:2,0:2"]
)
def test_impossible_boxes_are_refused(box: str) -> None:
    with pytest.raises(UhrctError, match="`box`"):
        parsed_box(box, (8, 64, 80))


def test_a_box_that_is_too_large_is_refused(study: Study) -> None:
    little = Study(study.panes, most_voxels=1000)
    with pytest.raises(UhrctError, match="a pane shows at most"):
        little.box(Region((0, 0, 0), (8, 64, 80)))


def test_a_box_around_a_place_gets_smaller_until_it_fits(study: Study) -> None:
    for million in (0.03, 0.002):
        view = Study(study.panes, most_voxels=1e6 * million).box_around((3, 60, 2))
        assert view.full
        assert all(a <= k < b for a, k, b in zip(view.region.start, (3, 60, 2), view.region.stop, strict=True))


def test_volumes_elsewhere_are_refused(scan: Volume, result: Volume) -> None:
    far = Volume(scan.hu, scan.spacing_mm, (9000.0, 0.0, 0.0))
    with pytest.raises(InputRefused, match="no place in common"):
        Study([Pane("scan", far), Pane("result", result)])
    turned = Volume(scan.hu, scan.spacing_mm, scan.origin_mm, np.diag([1.0, -1.0, -1.0])[::-1])
    with pytest.raises(InputRefused, match="axis directions"):
        Study([Pane("scan", turned), Pane("result", result)])


def test_only_what_all_volumes_hold_is_shown(scan: Volume, result: Volume) -> None:
    half = scan.on_grid(type(scan.grid)((4, 32, 40), scan.spacing_mm, scan.origin_mm, scan.direction), scan.hu[:4])
    study = Study([Pane("scan", half), Pane("result", result)])
    assert study.whole().region.stop == (4, 64, 80)
    with pytest.raises(UhrctError, match="`box` lies where not all volumes"):
        study.box(Region((5, 0, 0), (7, 9, 9)))


def test_the_first_box_lies_in_the_body_or_around_the_worst_finding(result: Volume) -> None:
    z, y, x = Study([Pane("result", result)]).middle
    assert result.hu[z, y, x] > -900
    assert Study([Pane("result", result)], findings=[finding((1, 2, 3))]).middle == (1, 2, 3)
