"""Arteries, veins and airways: grown lobe by lobe, with calibres by Murray's law, and without contact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uhrct.phantom.anatomy import LOBES, Anatomy
from uhrct.phantom.contact import closest, near_pairs
from uhrct.phantom.families import Draw
from uhrct.phantom.growth import colonise
from uhrct.phantom.tree import Tree, murray

KINDS = ("artery", "vein", "airway")
GAP_MM = 0.25  # between the surfaces of different trees
STEP_MM = 2.6
WIDEST_TIP = 1.4  # an airway tip can be wider than the thinnest one by this share

#: Central parts (z, y, x) in mm: the stem, and the way to the hilum of each lung.
_STEM = {
    "artery": [(-22, -34, 14), (-8, -32, 14), (4, -24, 13), (13, -14, 12)],
    "vein": [(-24, 16, 4), (-18, 15, 2)],
    "airway": [(175, 14, 0), (140, 12, 0), (100, 8, 0), (60, 8, -2), (34, 9, -3)],
}
_RIGHT = {
    "artery": [(13, -9, 0), (11, -5, -16), (8, -4, -32), (6, -4, -40)],
    "vein": [(-18, 11, -14), (-18, 6, -28), (-18, 2, -40)],
    "airway": [(26, 12, -12), (19, 14, -24), (14, 15, -36)],
}
_LEFT = {
    "artery": [(18, -8, 20), (18, -3, 30), (16, 0, 40)],
    "vein": [(-18, 11, 18), (-18, 6, 30), (-18, 2, 40)],
    "airway": [(26, 12, 8), (16, 15, 20), (6, 15, 32), (2, 15, 40)],
}


def grow_trees(anatomy: Anatomy, *, density: float = 1.0) -> dict[str, Tree]:
    """The three trees of a chest, without contact.

    Parameters
    ----------
    density : share of the full number of tips, for quick tests
    """
    draw = anatomy.draw
    rng = draw.stream("attractors")
    points = rng.uniform((-150, -120, -170), (140, 120, 170), (int(240_000 * max(density, 0.1)), 3))
    points = points[np.abs(points[:, 2]) > 8]
    distance, lobe = anatomy.at_points(points)
    inside = (distance < -2.5) & (lobe > 0)
    points, distance, lobe = points[inside], distance[inside], lobe[inside]
    tips = {"artery": 24000 * density, "vein": 24000 * density, "airway": 11000 * density}
    chosen = {kind: rng.permutation(len(points))[: int(tips[kind])] for kind in ("artery", "vein")}
    # Bronchi run beside arteries: they grow to the same points, with a small shift.
    chosen["airway"] = chosen["artery"][: int(tips["airway"])]
    taken: dict[int, list[np.ndarray]] = {k: [] for k in LOBES}
    trees = {}
    for kind in ("airway", "artery", "vein"):
        shift = np.array([1.5, 3.0, 1.5]) if kind == "airway" else np.zeros(3)
        trees[kind] = _grow(kind, anatomy, points, distance, lobe, chosen[kind], shift, taken)
    return _apart(anatomy, {k: trees[k] for k in KINDS})


def _grow(
    kind: str,
    anatomy: Anatomy,
    points: np.ndarray,
    distance: np.ndarray,
    lobe: np.ndarray,
    own: np.ndarray,
    shift: np.ndarray,
    taken: dict[int, list[np.ndarray]],
) -> Tree:
    scale = np.array([1.0, *reversed(anatomy.size)])
    position, parent = [np.array(_STEM[kind][0]) * scale], [-1]
    label = [0]

    def along(nodes: np.ndarray, at: int, lobe_number: int) -> int:
        for p in nodes:
            position.append(p)
            parent.append(at)
            label.append(lobe_number)
            at = len(parent) - 1
        return at

    stem = along(_fine(np.array(_STEM[kind]) * scale)[1:], 0, 0)
    for side, lobes in ((_RIGHT, (1, 2, 3)), (_LEFT, (4, 5))):
        way = _fine(np.concatenate([position[stem][None], np.array(side[kind]) * scale]))[1:]
        hilum = along(way, stem, 0)
        for k in lobes:
            candidates = points[(lobe == k) & (distance < -7)]
            cost = np.linalg.norm(candidates - position[hilum], axis=1)
            for other in taken[k]:  # the trees enter a lobe beside each other
                cost += 60.0 * (np.linalg.norm(candidates - other, axis=1) < 14)
            entry = candidates[np.argmin(cost)]
            taken[k].append(entry)
            at = along(_fine(np.stack([position[hilum], entry]))[1:], hilum, 0)
            nodes, above = colonise(entry, points[own[lobe[own] == k]] + shift, step_mm=STEP_MM, kill_mm=2.7)
            first = len(parent) - 1  # node j of the lobe becomes node first + j of the tree
            position.extend(nodes[1:])
            parent.extend(np.where(above[1:] == 0, at, first + above[1:]).tolist())
            label.extend([k] * (len(nodes) - 1))
    above = np.array(parent)
    tip_mm = _tips(anatomy.draw, kind, above)
    tree = Tree(kind, np.array(position), above, murray(above, tip_mm), np.array(label), tip_mm)
    return replace(tree, position_mm=_smoothed(tree))


def _tips(draw: Draw, kind: str, parent: np.ndarray) -> np.ndarray:
    """Radius (mm) of every node if it were a tip. It is never larger than a tip beyond it, so a cut only thins a tree.

    Vessels end at one calibre. Airways end at many: a trachea of true width feeds some 30 000 bronchioles of 0.5 mm,
    more than can be drawn. So most of the drawn tips stand for several bronchioles, and are as wide as these together.
    """
    if kind != "airway":
        return np.full(len(parent), draw["vessel_tip_mm"])
    spread = draw.stream("airway", "tips").random(len(parent))
    tip_mm = draw["airway_tip_mm"] * (1 + WIDEST_TIP * spread**2)
    for i in range(len(parent) - 1, 0, -1):
        tip_mm[parent[i]] = min(tip_mm[parent[i]], tip_mm[i])
    return tip_mm


def _fine(corners: np.ndarray) -> np.ndarray:
    """A polyline in pieces of about 4 mm."""
    parts = [corners[:1]]
    for a, b in zip(corners[:-1], corners[1:], strict=True):
        n = max(1, round(float(np.linalg.norm(b - a)) / 4))
        parts.append(a + (b - a) * (np.arange(1, n + 1) / n)[:, None])
    return np.concatenate(parts)


def _smoothed(tree: Tree, rounds: int = 3) -> np.ndarray:
    """Positions without the kinks of growth. Root and tips stay."""
    p = tree.position_mm.copy()
    count = tree.children
    movable = (count > 0) & (tree.parent >= 0)
    for _ in range(rounds):
        below = np.zeros_like(p)
        np.add.at(below, tree.parent[1:], p[1:])
        middle = (p[tree.parent] + below / np.maximum(count, 1)[:, None]) / 2
        p[movable] += 0.5 * (middle - p)[movable]
    return p


def _apart(anatomy: Anatomy, trees: dict[str, Tree]) -> dict[str, Tree]:
    """Push the trees apart, then cut off every part that still touches another tree or leaves its lung.

    By Murray's law a cut only lowers calibres, so no new contact can appear.
    """
    pairs = (("artery", "vein"), ("artery", "airway"), ("vein", "airway"))
    for _ in range(8):
        move = {kind: np.zeros_like(tree.position_mm) for kind, tree in trees.items()}
        for one, other in pairs:
            _push(trees[one], trees[other], move[one], move[other])
        for kind, tree in trees.items():
            p = tree.position_mm + np.clip(move[kind], -2.5, 2.5)
            trees[kind] = replace(tree, position_mm=p)
    for kind, tree in trees.items():
        distance, _ = anatomy.at_points(tree.position_mm)
        trees[kind] = tree.kept((tree.lobe == 0) | (distance < -tree.outer_mm - 0.3))
    for one, other in pairs:
        for _ in range(20):
            a, b = trees[one], trees[other]
            i, j = near_pairs(a, b, GAP_MM)
            _, _, d, _ = closest(a, b, i, j)
            hit = d < a.outer_mm[i] + b.outer_mm[j] + GAP_MM
            if not hit.any():
                break
            i, j = i[hit], j[hit]
            weaker = a.radius_mm[i] <= b.radius_mm[j]
            keep_a, keep_b = np.ones(len(a.parent), bool), np.ones(len(b.parent), bool)
            keep_a[i[weaker]] = False
            keep_b[j[~weaker]] = False
            trees[one], trees[other] = a.kept(keep_a), b.kept(keep_b)
    return trees


def _push(a: Tree, b: Tree, move_a: np.ndarray, move_b: np.ndarray) -> None:
    i, j = near_pairs(a, b, 2 * GAP_MM)
    s, t, d, away = closest(a, b, i, j)
    lack = a.outer_mm[i] + b.outer_mm[j] + 2 * GAP_MM - d
    hit = lack > 0
    i, j, s, t, away, lack = i[hit], j[hit], s[hit], t[hit], away[hit], lack[hit]
    # The thinner capsule moves more; roots stay.
    thin = b.radius_mm[j] / (a.radius_mm[i] + b.radius_mm[j])
    for tree, k, u, share, sign, move in ((a, i, s, thin, 1, move_a), (b, j, t, 1 - thin, -1, move_b)):
        push = sign * (share * lack)[:, None] * away
        for node, weight in ((k, u), (tree.parent[k], 1 - u)):
            free = node > 0
            np.add.at(move, node[free], 0.6 * (weight[:, None] * push)[free])
