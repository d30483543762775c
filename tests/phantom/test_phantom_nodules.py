"""Nodules have the place and the attachment that the list gives."""

import numpy as np
import pytest

from uhrct.phantom.nodules import ATTACHMENTS, KINDS, THICK_MM, Nodule
from uhrct.phantom.scene import Imager, Scene, View


def vessel_gap(scene: Scene, nodule: Nodule) -> float:
    """Distance (mm) from the nodule's centre to the nearest surface of a vessel that counts."""
    least = np.inf
    for kind in ("artery", "vein"):
        t = scene.trees[kind]
        some = np.flatnonzero((t.radius_mm >= THICK_MM) & (t.lobe > 0))
        line = np.linspace(t.position_mm[t.parent[some]], t.position_mm[some], 12)
        least = min(least, (np.linalg.norm(line - nodule.centre_mm, axis=2) - t.radius_mm[some]).min())
    return float(least)


def test_there_is_every_kind_and_every_attachment(scene: Scene) -> None:
    assert {n.kind for n in scene.nodules} == set(KINDS)
    assert {n.attachment for n in scene.nodules} == set(ATTACHMENTS)
    assert len({(n.kind, n.attachment) for n in scene.nodules}) >= 8


def test_attachments_are_what_they_say(scene: Scene) -> None:
    for n in scene.nodules:
        r, gap = n.diameter_mm / 2, vessel_gap(scene, n)
        distance, lobe = scene.anatomy.at_points(np.array([n.centre_mm]))
        assert lobe[0] == n.lobe
        if n.attachment == "free":
            assert -distance[0] > r + 1.5
            assert gap > r + 1
        elif n.attachment == "juxta-vascular":
            assert 0.3 * r < gap < r
        else:
            assert 0.5 * r < -distance[0] < r


@pytest.mark.parametrize("k", range(3))
def test_a_nodule_is_in_image_and_mask_where_the_list_says(scene: Scene, k: int) -> None:
    n = scene.nodules[k]
    view = View((13, 31, 31), (1.0, 1.0, 1.0), centre_mm=n.centre_mm)
    slab = Imager(scene, view).slab(0, 13)
    own = slab.nodules == k + 1
    assert own[6, 15, 15]
    z, y, x = (view.axis_mm(a) for a in range(3))
    away = np.sqrt(
        (z[:, None, None] - n.centre_mm[0]) ** 2 + (y[None, :, None] - n.centre_mm[1]) ** 2 + (x - n.centre_mm[2]) ** 2
    )
    assert own[(away < 0.12 * n.diameter_mm)].all()
    assert not own[away > 0.75 * n.diameter_mm].any()
    middle = np.median(slab.hu[own & (away < max(1.3, 0.15 * n.diameter_mm))])
    assert {"solid": -10 < middle < 70, "part-solid": -40 < middle < 70, "ground-glass": -720 < middle < -500}[n.kind]
