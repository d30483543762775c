"""Zooms lie on the worst places inside the body: never in table, skin, padding or room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from uhrct import io
from uhrct.core.hu import PADDING_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.lungs import body_mask
from uhrct.evaluation.places import DEPTH_MM, worst_places

SPACING = (2.0, 0.8, 0.9)


def trunk(slices: int = 6) -> Volume:
    """A round trunk with a lung on a table, padding outside the field of view."""
    _, y, x = np.mgrid[:slices, :160, :160]
    hu = np.where(np.hypot(y - 70, x - 80) < 55, 40.0, -1000.0)
    hu[np.hypot(y - 70, x - 80) < 30] = -850
    hu[:, 126:128, 20:140] = 300  # a thin shell
    hu[np.hypot(y - 80, x - 80) > 85] = -2000
    return Volume(hu.astype(np.float32), SPACING)


def changed(volume: Volume, *places: tuple[int, int, int, float]) -> Volume:
    hu = volume.hu.copy()
    for z, y, x, by in places:
        hu[z, y - 2 : y + 3, x - 2 : x + 3] += by
    return volume.on_grid(volume.grid, hu)


def test_errors_outside_do_not_count() -> None:
    reference = trunk()
    skin, table, room, padding = (2, 17, 80, -700), (2, 126, 40, -700), (3, 130, 30, 900), (3, 3, 3, 1500)
    inside = (1, 70, 80, 60)
    [place] = worst_places(reference, changed(reference, skin, table, room, padding, inside))
    assert (place.z, place.y, place.x) == (1, 70, 80)
    assert 30 < place.error_hu <= 60


def test_the_worst_come_first_and_lie_apart() -> None:
    reference = trunk()
    errors = [(0, 70, 80, -200), (1, 71, 81, -190), (2, 50, 110, 150), (5, 95, 50, 100), (4, 100, 95, 50)]
    found = worst_places(reference, changed(reference, *errors), apart_mm=25)
    assert [(p.z, p.y, p.x) for p in found] == [(0, 70, 80), (2, 50, 110), (5, 95, 50)]  # slice 1 is too near
    assert found[0].error_hu < 0 < found[1].error_hu
    for k, p in enumerate(found):
        for q in found[:k]:
            assert np.linalg.norm(np.multiply((p.z - q.z, p.y - q.y, p.x - q.x), SPACING)) >= 25
    assert len(worst_places(reference, changed(reference, *errors), count=1)) == 1


def test_the_ends_can_be_left_out() -> None:
    reference = trunk()
    test = changed(reference, (0, 70, 80, 300), (3, 70, 80, 50))
    assert [p.z for p in worst_places(reference, test, count=1)] == [0]
    assert [p.z for p in worst_places(reference, test, count=1, ends=1)] == [3]
    assert [p.z for p in worst_places(reference, test, count=1, ends=3)] == [0]  # nothing else would be left


def test_one_noisy_voxel_is_no_place() -> None:
    reference = trunk(1)
    test = changed(reference, (0, 90, 80, 100))
    test.hu[0, 60, 80] += 250
    assert worst_places(reference, test, count=1)[0].y == 90


@pytest.mark.parametrize("equal", [True, False])
def test_nothing_to_show(equal: bool) -> None:
    reference = trunk(2) if equal else Volume(np.full((2, 64, 64), -1000, np.float32), SPACING)
    test = reference if equal else reference.on_grid(reference.grid, reference.hu + 100)
    assert worst_places(reference, test) == []


def test_on_a_real_chest_every_place_is_deep_in_the_body(shared_ct: Path) -> None:
    reference = io.read(sorted((shared_ct / "validation" / "rider0117").glob("*.dcm"))[40])
    rng = np.random.default_rng(0)
    noisy = reference.on_grid(reference.grid, reference.hu + rng.normal(0, 200, reference.shape).astype(np.float32))
    found = worst_places(reference, noisy, count=5, apart_mm=20)
    assert found
    body = body_mask(reference.hu[0], (reference.spacing_mm[1], reference.spacing_mm[2]))
    assert 0.3 < body.mean() < 0.9
    y, x = np.mgrid[: reference.shape[1], : reference.shape[2]]
    outside = ~body | (reference.hu[0] <= PADDING_HU)
    for p in found:
        distance = np.hypot((y - p.y) * reference.spacing_mm[1], (x - p.x) * reference.spacing_mm[2])
        assert distance[outside].min() > DEPTH_MM
