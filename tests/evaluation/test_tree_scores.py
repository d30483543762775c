"""Scores of trees: laws, and trees whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.evaluation.trees import DIAMETERS_MM, CentreLine, TreeReference, score_tree
from uhrct.structure.vessels import cldice

SPACING_MM = (1.0, 1.0, 1.0)
THIN = DIAMETERS_MM.index(1.0)


def fork() -> np.ndarray:
    """A stem that divides into two branches, three voxels wide."""
    mask = np.zeros((9, 60, 60), bool)
    mask[3:6, 5:30, 29:32] = True
    for step in range(25):
        mask[3:6, 30 + step, 29 - step : 32 - step] = mask[3:6, 30 + step, 29 + step : 32 + step] = True
    return mask


@pytest.fixture(scope="module")
def reference() -> TreeReference:
    return TreeReference.of(fork(), SPACING_MM)


def test_the_tree_itself_has_full_scores(reference: TreeReference) -> None:
    scores = score_tree(fork(), reference)
    leak = scores.values.pop("leak_ml")
    thin = scores.values.pop("recall_1_2")
    assert leak == 0
    assert thin is None  # the branches are three or four voxels wide
    assert scores.values == dict.fromkeys(scores.values, 1.0)
    assert scores.found_mm == scores.whole_mm
    assert sum(scores.whole_mm) == pytest.approx(reference.length_mm.sum(), abs=0.5)


def test_nothing_found_has_no_precision_and_nothing_else(reference: TreeReference) -> None:
    scores = score_tree(np.zeros_like(fork()), reference)
    assert scores.values["precision"] is None
    assert [scores.values[k] for k in ("dice", "cldice", "sensitivity", "length_detected", "branches_detected")] == [
        0
    ] * 5
    assert sum(scores.found_mm) == 0


def test_a_branch_counts_from_four_fifths_of_its_length(reference: TreeReference) -> None:
    assert reference.branches.max() == 3
    rows = np.arange(60)[:, None]
    most, half = (fork() & ((rows < stop) | (np.arange(60) < 29)) for stop in (53, 40))
    assert score_tree(most, reference).values["branches_detected"] == 1
    scores = score_tree(half, reference)
    assert scores.values["branches_detected"] == pytest.approx(2 / 3, abs=1e-4)
    assert scores.values["length_detected"] < 0.9
    assert scores.values["precision"] == 1


def test_a_leak_has_its_volume_and_a_thick_wall_is_none(reference: TreeReference) -> None:
    leaking = fork()
    leaking[2:7, 5:15, 2:12] = True
    assert score_tree(leaking, reference).values["leak_ml"] == pytest.approx(0.5)
    thick = fork() | np.roll(fork(), 1, 2)
    assert score_tree(thick, reference).values["leak_ml"] == 0


def test_ignored_voxels_are_neither_right_nor_wrong() -> None:
    tree, other = fork(), np.zeros_like(fork())
    other[3:6, 5:25, 5:8] = True
    marked = tree | other
    plain = score_tree(tree, TreeReference.of(tree, SPACING_MM))
    assert score_tree(marked, TreeReference.of(tree, SPACING_MM, ignored=other)) == plain
    assert score_tree(marked, TreeReference.of(tree, SPACING_MM)).values["precision"] < 1


def test_cldice_is_that_of_the_other_metrics(reference: TreeReference) -> None:
    other = np.roll(fork(), 2, 2) & (np.arange(60) < 50)
    assert score_tree(other, reference).values["cldice"] == pytest.approx(cldice(fork(), other), abs=1e-4)


def test_recall_follows_the_diameters_that_are_given() -> None:
    """Of a thin branch a half is found, of a wide one everything; points may lie a voxel beside the mask."""
    mask = np.zeros((5, 30, 30), bool)
    mask[2, 5, :20] = mask[2, 20, :20] = True
    points = CentreLine(
        np.array([(2, y, x) for y in (6, 20) for x in range(20)]),
        np.full(40, 0.5),
        np.repeat([1.5, 5.0], 20),
    )
    found = mask.copy()
    found[2, 5, 9:] = False  # up to the tenth point is within one voxel
    scores = score_tree(found, TreeReference.of(mask, SPACING_MM, points=points))
    wide = next(k for k, low in enumerate(DIAMETERS_MM) if low == 4.0)
    assert (scores.found_mm[THIN], scores.whole_mm[THIN]) == (5, 10)
    assert (scores.found_mm[wide], scores.whole_mm[wide]) == (10, 10)
    assert scores.values["recall_1_2"] == 0.5


def test_what_cannot_be_scored_is_refused(reference: TreeReference) -> None:
    with pytest.raises(UhrctError, match="does not fit"):
        score_tree(np.zeros((3, 3, 3), bool), reference)
    with pytest.raises(UhrctError, match="empty"):
        TreeReference.of(np.zeros((3, 3, 3), bool), SPACING_MM)
