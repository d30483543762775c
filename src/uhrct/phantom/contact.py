"""Exact distances between the capsules of two trees."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from uhrct.phantom.tree import Tree


BANDS_MM = (1.75, 2.2, 3.2, 6.0)  # classes of a capsule's reach: half its length plus its radius


def near_pairs(a: Tree, b: Tree, gap_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j) of capsules whose surfaces can be within `gap_mm`, by the index of their end node."""
    from scipy.spatial import cKDTree

    middle_a, half_a = _middles(a)
    middle_b, half_b = _middles(b)
    reach_a, reach_b = half_a + a.outer_mm[1:], half_b + b.outer_mm[1:]
    found = []
    # Search by thickness: otherwise every twig would search as far as the widest trunk reaches.
    bins = [0.0, *BANDS_MM, np.inf]
    groups_a, groups_b = (
        [np.flatnonzero((reach > low) & (reach <= high)) for low, high in pairwise(bins)]
        for reach in (reach_a, reach_b)
    )
    trees_b = [cKDTree(middle_b[some]) for some in groups_b]
    for some_a in groups_a:
        lookup = cKDTree(middle_a[some_a])
        for some_b, other in zip(groups_b, trees_b, strict=True):
            if not (len(some_a) and len(some_b)):
                continue
            far = reach_a[some_a].max() + reach_b[some_b].max() + gap_mm
            pairs = lookup.sparse_distance_matrix(other, far, output_type="ndarray")
            i, j = some_a[pairs["i"]], some_b[pairs["j"]]
            close = pairs["v"] < reach_a[i] + reach_b[j] + gap_mm
            found.append((i[close] + 1, j[close] + 1))
    i, j = (np.concatenate(x) for x in zip(*found, strict=True))
    return i, j


def _middles(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    start, end = tree.position_mm[tree.parent[1:]], tree.position_mm[1:]
    return (start + end) / 2, np.linalg.norm(end - start, axis=1) / 2


def closest(a: Tree, b: Tree, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Closest points of the axes of capsules i of `a` and j of `b`.

    Returns
    -------
    s, t : positions on the axes (0 at the parent, 1 at the node)
    distance_mm : between the axes
    away : (n, 3), unit vector from b to a

    References
    ----------
    Ericson, Real-Time Collision Detection, 2004, section 5.1.9.
    """
    p1, q1 = a.position_mm[a.parent[i]], a.position_mm[i]
    p2, q2 = b.position_mm[b.parent[j]], b.position_mm[j]
    d1, d2, r = q1 - p1, q2 - p2, p1 - p2
    dot = lambda u, v: np.einsum("ij,ij->i", u, v)  # noqa: E731
    aa, ee, ff, cc, bb = dot(d1, d1) + 1e-12, dot(d2, d2) + 1e-12, dot(d2, r), dot(d1, r), dot(d1, d2)
    denominator = aa * ee - bb * bb
    s = np.where(denominator > 1e-9, np.clip((bb * ff - cc * ee) / np.maximum(denominator, 1e-9), 0, 1), 0.0)
    t = (bb * s + ff) / ee
    s = np.where(t < 0, np.clip(-cc / aa, 0, 1), np.where(t > 1, np.clip((bb - cc) / aa, 0, 1), s))
    t = np.clip(t, 0, 1)
    gap = (p1 + s[:, None] * d1) - (p2 + t[:, None] * d2)
    distance = np.linalg.norm(gap, axis=1)
    return s, t, distance, gap / np.maximum(distance, 1e-9)[:, None]
