"""Laws of the trees: one piece, no loop, Murray's law, calibres, inside the lungs, no contact with other trees."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from uhrct.phantom.anatomy import Anatomy
from uhrct.phantom.contact import closest, near_pairs
from uhrct.phantom.families import Draw
from uhrct.phantom.growth import colonise
from uhrct.phantom.scene import Scene
from uhrct.phantom.tree import Tree, murray
from uhrct.phantom.trees import KINDS, grow_trees


def gap_between(a: Tree, b: Tree) -> float:
    """Smallest distance between two trees' surfaces, from points along the axes, not by the formula of the code."""
    clouds = []
    for tree in (a, b):
        start, end = tree.position_mm[tree.parent[1:]], tree.position_mm[1:]
        clouds.append((np.linspace(start, end, 9).reshape(-1, 3), np.tile(tree.outer_mm[1:], 9)))
    (p, r), (q, s) = clouds
    lookup, least = cKDTree(q), np.inf
    for calibre in np.unique(np.ceil(r)):  # thin capsules have a smaller search radius
        some = np.ceil(r) == calibre
        pairs = lookup.query_ball_point(p[some], calibre + s.max() + 0.5)
        for k, near in zip(np.flatnonzero(some), pairs, strict=True):
            if near:
                least = min(least, (np.linalg.norm(q[near] - p[k], axis=1) - s[near]).min() - r[k])
    return float(least)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_is_one_piece_without_loops(scene: Scene, kind: str) -> None:
    tree = scene.trees[kind]
    n = len(tree.parent)
    assert n > 200
    assert (tree.parent[1:] < np.arange(1, n)).all()
    edges = coo_matrix((np.ones(n - 1), (tree.parent[1:], np.arange(1, n))), (n, n))
    pieces = connected_components(edges, directed=False)[0]
    assert pieces == 1  # b0
    assert edges.nnz - n + pieces == 0  # b1


@pytest.mark.parametrize("kind", KINDS)
def test_murrays_law_holds_at_every_node(scene: Scene, kind: str) -> None:
    tree = scene.trees[kind]
    below = np.zeros(len(tree.parent))
    np.add.at(below, tree.parent[1:], tree.radius_mm[1:] ** 3)
    inner = tree.children > 0
    assert np.allclose(below[inner], tree.radius_mm[inner] ** 3, rtol=1e-9)
    assert (tree.children > 1).sum() > 20
    assert tree.radius_mm.min() >= 0.25
    assert np.allclose(tree.radius_mm[~inner], tree.tip_mm[~inner])
    assert (tree.tip_mm[1:] >= tree.tip_mm[tree.parent[1:]]).all()  # otherwise a cut could widen the rest


def test_airways_reach_half_a_millimetre_and_end_at_many_calibres(scene: Scene) -> None:
    tree = scene.trees["airway"]
    calibre = 2 * tree.radius_mm[tree.children == 0]
    assert 0.5 <= calibre.min() < 0.55
    assert np.median(calibre) < 0.8
    assert calibre.max() > 2 * calibre.min()
    assert (tree.outer_mm > tree.radius_mm).all()  # every lumen has its wall
    assert tree.radius_mm[0] > 10 * tree.radius_mm.min()


def test_the_full_airways_leave_a_trachea_of_human_width() -> None:
    tree = grow_trees(Anatomy(Draw("train", 1)))["airway"]
    assert 6 < tree.radius_mm[0] < 11
    assert (tree.children == 0).sum() > 3000


@pytest.mark.parametrize("pair", combinations(KINDS, 2))
def test_near_pairs_are_all_pairs_that_brute_force_finds(scene: Scene, pair: tuple[str, str]) -> None:
    a, b = (scene.trees[kind] for kind in pair)
    rng = np.random.default_rng(0)
    some = rng.choice(np.arange(1, len(a.parent)), 60, replace=False)
    found = set(zip(*(x.tolist() for x in near_pairs(a, b, 3.0)), strict=True))
    i, j = (x.ravel() for x in np.meshgrid(some, np.arange(1, len(b.parent)), indexing="ij"))
    _, _, distance, _ = closest(a, b, i, j)
    near = distance < a.outer_mm[i] + b.outer_mm[j] + 3.0
    assert near.sum() > 20
    assert set(zip(i[near].tolist(), j[near].tolist(), strict=True)) <= found


def test_arteries_veins_and_airways_never_touch(scene: Scene) -> None:
    for one, other in combinations(KINDS, 2):
        a, b = scene.trees[one], scene.trees[other]
        assert gap_between(a, b) > 0, (one, other)
        assert gap_between(a, replace(b, position_mm=a.position_mm[:1] + b.position_mm - b.position_mm[:1])) < 0


def test_centre_lines_run_in_the_lungs(scene: Scene) -> None:
    for tree in scene.trees.values():
        own = tree.lobe > 0
        distance, _ = scene.anatomy.at_points(tree.position_mm[own])
        assert (distance < -tree.radius_mm[own]).all()
        assert set(tree.lobe[own]) == {1, 2, 3, 4, 5}


def test_labels_follow_the_branchings(scene: Scene) -> None:
    tree = scene.trees["artery"]
    p = tree.parent[1:]
    forked = tree.children[p] > 1
    assert (tree.generation[1:] - tree.generation[p] == forked).all()
    assert ((tree.branch[1:] != tree.branch[p]) == forked).all()
    same = tree.branch[1:] == tree.branch[p]
    assert np.allclose(tree.radius_mm[1:][same], tree.radius_mm[p][same])  # a branch has one calibre


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_lowers_calibres_alone(scene: Scene, kind: str) -> None:
    tree = scene.trees[kind]
    keep = np.ones(len(tree.parent), bool)
    keep[len(keep) // 2] = False
    cut = tree.kept(keep)
    old = {tuple(p): r for p, r in zip(tree.position_mm, tree.radius_mm, strict=True)}
    assert all(r <= old[tuple(p)] + 1e-12 for p, r in zip(cut.position_mm, cut.radius_mm, strict=True))
    assert len(cut.parent) < len(tree.parent)


def test_growth_reaches_what_attracts() -> None:
    points = np.random.default_rng(0).uniform(-20, 20, (300, 3))
    nodes, parent = colonise(np.array([-25.0, 0, 0]), points, step_mm=2.0, kill_mm=2.5)
    assert (cKDTree(nodes).query(points)[0] < 2.5).mean() > 0.95
    assert np.allclose(np.linalg.norm(nodes[1:] - nodes[parent[1:]], axis=1), 2.0)


def test_murray_of_a_chain_and_a_fork() -> None:
    assert np.allclose(murray(np.array([-1, 0, 1, 2, 2]), np.full(5, 0.3)), np.array([2, 2, 2, 1, 1]) ** (1 / 3) * 0.3)
    assert murray(np.array([-1, 0, 0]), np.array([9.0, 0.3, 0.4]))[0] == pytest.approx((0.027 + 0.064) ** (1 / 3))
