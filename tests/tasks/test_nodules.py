"""Candidates for nodules, and nodules that are inserted into scans."""

from __future__ import annotations

import numpy as np
import pytest

from uhrct.core.undefined import Undefined
from uhrct.evaluation.froc import OPERATING_POINTS, Place, froc
from uhrct.phantom.nodules import HU, Nodule
from uhrct.tasks.even_grid import CUBE_MM, EvenGrid
from uhrct.tasks.nodule_candidates import find_candidates
from uhrct.tasks.nodule_insertion import Lung, draw_nodule, insert

NO_WAVES = np.zeros((1, 5))
WHOLE = (slice(0, None),) * 3


def lung(shape: tuple[int, int, int], sd_hu: float = 20.0) -> np.ndarray:
    return np.random.default_rng(0).normal(-850, sd_hu, shape).astype(np.float32)


def ball(centre_mm: tuple[float, float, float], diameter_mm: float, kind: str = "solid") -> Nodule:
    return Nodule(centre_mm, diameter_mm, kind, "free", 0, NO_WAVES)


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 0.8), (2.0, 0.7, 0.7), (1.0, 0.35, 0.35)])
@pytest.mark.parametrize("kind", ["solid", "ground-glass"])
def test_a_ball_is_the_first_candidate_with_its_place_and_size(spacing_mm, kind) -> None:
    hu = lung(tuple(round(44 / mm) for mm in spacing_mm))
    insert(hu, spacing_mm, ball((20.0, 22.0, 24.0), 7.0, kind))
    grid = EvenGrid.of(hu, spacing_mm, tuple(slice(0, n) for n in hu.shape))
    first = find_candidates(grid, np.ones(grid.hu.shape, bool))[0]
    found_mm = np.array(first.voxel) * spacing_mm
    assert np.linalg.norm(found_mm - (20.0, 22.0, 24.0)) < 1.5
    assert first.diameter_mm in (6.0, 8.5)


def test_a_vessel_answers_less_than_a_ball() -> None:
    hu = lung((60, 60, 60), sd_hu=1.0)
    y, x = np.ogrid[:60, :60]
    hu[:, np.hypot(y - 15, x - 15) * CUBE_MM < 3] = 0
    insert(hu, (CUBE_MM,) * 3, ball((24.0, 32.0, 32.0), 6.0))
    grid = EvenGrid.of(hu, (CUBE_MM,) * 3, tuple(slice(0, n) for n in hu.shape))
    found = find_candidates(grid, np.ones(hu.shape, bool))
    assert np.allclose(found[0].voxel, (30, 40, 40), atol=1)
    inside = [c for c in found if np.hypot(c.voxel[1] - 15, c.voxel[2] - 15) < 3 and 8 < c.voxel[0] < 52]
    assert all(c.response_hu < 0.1 * found[0].response_hu for c in inside)


def test_blocks_do_not_change_candidates(monkeypatch) -> None:
    hu = lung((90, 40, 40), sd_hu=60.0)
    insert(hu, (CUBE_MM,) * 3, ball((36.0, 16.0, 16.0), 9.0))
    grid = EvenGrid.of(hu, (CUBE_MM,) * 3, tuple(slice(0, n) for n in hu.shape))
    whole = find_candidates(grid, np.ones(hu.shape, bool))
    monkeypatch.setattr("uhrct.tasks.nodule_candidates.BLOCK", 13)
    parts = find_candidates(grid, np.ones(hu.shape, bool))
    assert [c.voxel for c in parts[:20]] == [c.voxel for c in whole[:20]]


def test_candidates_stay_near_the_lungs() -> None:
    hu = lung((40, 40, 40))
    insert(hu, (CUBE_MM,) * 3, ball((16.0, 16.0, 24.0), 6.0))
    grid = EvenGrid.of(hu, (CUBE_MM,) * 3, tuple(slice(0, n) for n in hu.shape))
    left = np.zeros(hu.shape, bool)
    left[..., :15] = True
    assert all(c.voxel[2] < 15 + 4 for c in find_candidates(grid, left))
    assert find_candidates(grid, np.zeros(hu.shape, bool)) == []


@pytest.mark.parametrize("kind", ["solid", "part-solid", "ground-glass"])
def test_an_inserted_nodule_has_its_hu_its_volume_and_the_noise_of_the_scan(kind) -> None:
    spacing_mm = (1.25, 0.7, 0.7)
    before = lung((40, 70, 70), sd_hu=30.0)
    after = before.copy()
    nodule = ball((25.0, 24.0, 24.0), 12.0, kind)
    insert(after, spacing_mm, nodule)
    z, y, x = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(after.shape, spacing_mm, strict=True)), indexing="ij")
    distance = nodule.distance(z, y, x)
    shell = (distance < -1.5) & (distance > -2.5 if kind == "part-solid" else True)
    assert abs(after[shell].mean() - HU[kind]) < 15
    assert 20 < after[shell].std() < 45
    assert np.array_equal(after[distance > 2], before[distance > 2])
    if kind == "solid":
        volume_mm3 = (after - before).sum() / (HU[kind] + 850) * np.prod(spacing_mm)
        assert abs(volume_mm3 / (np.pi / 6 * 12.0**3) - 1) < 0.05


def test_vessels_stay_visible_in_ground_glass() -> None:
    hu = lung((30, 40, 40), sd_hu=1.0)
    hu[:, 19:22, 19:22] = 50
    before = hu.copy()
    insert(hu, (CUBE_MM,) * 3, ball((12.0, 16.0, 16.0), 10.0, "ground-glass"))
    assert np.array_equal(hu[:, 20, 20], before[:, 20, 20])


@pytest.mark.parametrize("attachment", ["free", "juxta-vascular", "juxta-pleural"])
def test_nodules_are_drawn_where_their_name_says(attachment) -> None:
    hu = lung((60, 60, 60), sd_hu=5.0)
    hu[:, 28:32, 28:32] = 0
    lungs = np.zeros(hu.shape, bool)
    lungs[4:56, 4:56, 4:56] = True
    where = Lung.of(hu, lungs)
    rng = np.random.default_rng(1)
    for _ in range(10):
        nodule = draw_nodule(where, rng, attachment=attachment)
        assert nodule is not None
        [at] = np.flatnonzero((where.voxel == [round(c / CUBE_MM) for c in nodule.centre_mm]).all(1))
        r = nodule.diameter_mm / 2
        assert (where.depth_mm[at] < r + 0.5) == (attachment == "juxta-pleural")
        # one at the pleura may also come near a vessel
        assert attachment == "juxta-pleural" or (where.gap_mm[at] < r + 0.5) == (attachment == "juxta-vascular")


def test_froc_by_hand() -> None:
    """Two scans, three nodules. Sorted by score: hit .9, miss .8, hit .7, miss .6, miss .5."""
    nodules = {"a": [Place((0, 0, 0), 6.0), Place((50, 0, 0), 6.0)], "b": [Place((0, 0, 0), 10.0)]}
    found = {
        "a": [Place((1, 0, 0), score=0.9), Place((0, 2, 0), score=0.3), Place((20, 0, 0), score=0.8)],
        "b": [Place((0, 4.9, 0), score=0.7), Place((0, 0, 9), score=0.6), Place((0, 0, 30), score=0.5)],
    }
    curve = froc(nodules, found)
    assert curve.at[0.5] == pytest.approx(2 / 3)
    assert curve.at[0.25] == pytest.approx(1 / 3 + 1 / 6)  # between (0, 1/3) and (.5, 2/3)
    assert curve.at[8.0] == pytest.approx(2 / 3)
    assert curve.score == pytest.approx(np.mean([curve.at[p] for p in OPERATING_POINTS]))
    assert curve.false_positives.max() == 1.5


def test_excluded_findings_are_neither_right_nor_wrong() -> None:
    nodules = {"a": [Place((0, 0, 0), 6.0)]}
    found = {"a": [Place((9, 9, 9), score=1.0), Place((0, 0, 1), score=0.5)]}
    assert froc(nodules, found).at[0.125] < 1
    assert froc(nodules, found, {"a": [Place((9, 9, 9), 5.0)]}).at[0.125] == 1


def test_scans_without_nodules_count_and_no_nodule_at_all_is_undefined() -> None:
    nodules = {"a": [Place((0, 0, 0), 6.0)]}
    miss = [Place((9, 9, 9), score=1.0)]
    found = {"a": [Place((0, 0, 0), score=0.5), *miss], "b": miss, "c": miss, "d": miss}
    alone, with_others = froc(nodules, found), froc({**nodules, "b": [], "c": [], "d": []}, found)
    assert alone.false_positives.max() == with_others.false_positives.max() == 1.0
    with pytest.raises(Undefined):
        froc({"a": []}, found)
    assert froc(nodules, {}).score == 0
