"""Laws of the rasteriser: cylinders keep their mass, and the mask of a tree is one piece."""

import numpy as np
import pytest
from scipy import ndimage

from uhrct.phantom.raster import Lattice, draw_capsules
from uhrct.phantom.scene import Scene

GRID = Lattice((40, 40, 40), (0.7, 0.7, 0.7), (-13.65, -13.65, -13.65))


@pytest.mark.parametrize("radius", [0.1, 0.4, 0.7, 4.0])
@pytest.mark.parametrize("direction", [(1, 0, 0), (1, 0.3, 0.2), (0.4, 1, -0.7)])
def test_a_cylinder_keeps_its_area(radius: float, direction: tuple[float, float, float]) -> None:
    d = np.array(direction) / np.linalg.norm(direction)
    start, end = -60 * d[None] + (0.1, 0.17, 0.23), 60 * d[None] + (0.1, 0.17, 0.23)
    share, _ = draw_capsules(start, end, np.array([radius]), GRID, width_mm=0.7)
    axis = int(np.argmax(np.abs(d)))
    inner = share.take(range(12, 28), axis)
    area = inner.sum() / 16 * 0.49 * abs(d[axis])  # oblique cuts are larger
    assert area == pytest.approx(np.pi * radius**2, rel=0.06)
    assert share.max() <= 1
    assert share.min() >= 0


def test_capsules_at_the_edge_are_those_of_a_larger_slab() -> None:
    rng = np.random.default_rng(3)
    start = rng.uniform(-16, 16, (80, 3))
    end, radius = start + rng.normal(0, 3, (80, 3)), rng.uniform(0.2, 2.5, 80)
    whole, mask = draw_capsules(start, end, radius, GRID, width_mm=0.8, within_mm=0.6)
    part = Lattice((10, 40, 40), GRID.spacing_mm, (-13.65 + 15 * 0.7, -13.65, -13.65))
    share, inside = draw_capsules(start, end, radius, part, width_mm=0.8, within_mm=0.6)
    assert mask is not None
    assert inside is not None
    assert np.allclose(share, whole[15:25], atol=1e-5)
    assert (inside == mask[15:25]).mean() > 0.9999
    assert whole.any()


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (3.0, 1.5, 1.5)])
def test_the_mask_of_a_tree_is_one_piece_that_holds_its_centre_line(
    scene: Scene, spacing: tuple[float, float, float]
) -> None:
    tree = scene.trees["artery"]
    shape = tuple(int(s) for s in np.ceil(np.array((320, 260, 320)) / spacing))
    first = tuple(-(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True))
    lattice = Lattice((shape[0], shape[1], shape[2]), spacing, (first[0], first[1], first[2]))
    start, end = tree.position_mm[tree.parent[1:]], tree.position_mm[1:]
    reach = float(np.linalg.norm(spacing)) / 2
    _, mask = draw_capsules(start, end, tree.radius_mm[1:], lattice, width_mm=1.0, within_mm=reach)
    assert mask is not None
    voxel = np.rint((tree.position_mm - np.array(first)) / spacing).astype(int)
    assert mask[tuple(voxel.T)].all()
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
