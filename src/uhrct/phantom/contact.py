"""How near the capsules of two trees come to each other, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from uhrct.phantom.trees import Tree


def near_pairs(a: Tree, b: Tree, gap_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (i, j): every pair of capsules whose surfaces may come within `gap_mm`; a node names its capsule."""
    from scipy.spatial import cKDTree

    middle_a, half_a = _middles(a)
    middle_b, half_b = _middles(b)
    reach_a, reach_b = half_a + a.outer_mm[1:], half_b + b.outer_mm[1:]
    found_i, found_j = [], []
    # thick trunks are few: looked up apart, or every twig would be asked about everything as far as a trunk is wide
    for low, high in ((0.0, 2.2), (2.2, 3.2), (3.2, 6.0), (6.0, np.inf)):
        some = np.flatnonzero((reach_b > low) & (reach_b <= high))
        if not len(some):
            continue
        lists = cKDTree(middle_b[some]).query_ball_point(middle_a, reach_a + reach_b[some].max() + gap_mm)
        counts = np.fromiter((len(x) for x in lists), int, len(lists))
        found_i.append(np.repeat(np.arange(len(middle_a)), counts))
        found_j.append(some[np.concatenate([np.asarray(x, int) for x in lists])])
    i, j = np.concatenate(found_i), np.concatenate(found_j)
    close = np.linalg.norm(middle_a[i] - middle_b[j], axis=1) < reach_a[i] + reach_b[j] + gap_mm
    return i[close] + 1, j[close] + 1


def _middles(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    start, end = tree.position_mm[tree.parent[1:]], tree.position_mm[1:]
    return (start + end) / 2, np.linalg.norm(end - start, axis=1) / 2


def closest(a: Tree, b: Tree, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Closest points of the axes of capsules i of `a` and j of `b`.

    Returns
    -------
    s, t : where on the axes (0 at the parent, 1 at the node)
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
