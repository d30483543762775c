"""Laws of all segmenters: masks inside the body, nothing depends on the order of axes, on slabs or on the grid."""

from __future__ import annotations

import numpy as np
import pytest
from chest_case import chest, dice
from scipy import ndimage

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import fast_lung_mask
from uhrct.evaluation.lungs import lung_mask
from uhrct.tasks.airways import segment_airways
from uhrct.tasks.lungs import sides
from uhrct.tasks.measure import volume_ml
from uhrct.tasks.segment import TASKS, segment
from uhrct.tasks.vessels import segment_vessels


@pytest.mark.parametrize("task", TASKS)
def test_a_known_chest(task: str) -> None:
    case = chest()
    found = segment(case.volume, task).labels > 0
    assert found.shape == case.volume.shape
    if task == "lungs":
        assert dice(found, case.lungs) > 0.95
    if task == "airways":
        assert dice(found, case.airways) > 0.85
        assert (found & ~ndimage.binary_dilation(case.airways, iterations=2)).sum() < 0.002 * found.sum()  # no leak
        assert (ndimage.binary_dilation(found) & case.airways).sum() > 0.9 * case.airways.sum()
    if task == "vessels":
        assert dice(found, case.vessels) > 0.75
        assert (found & case.vessels).sum() > 0.85 * case.vessels.sum()
        assert not (found & ~fast_lung_mask(case.volume.hu, case.volume.spacing_mm)).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_a_flipped_scan_gives_the_flipped_mask(task: str, axis: int) -> None:
    """The direction of the flipped axis turns too: it is the same patient."""
    volume = chest().volume
    direction = volume.direction.copy()
    direction[:, axis] *= -1
    flipped = Volume(np.ascontiguousarray(np.flip(volume.hu, axis)), volume.spacing_mm, direction=direction)
    a, b = segment(volume, task).labels, np.flip(segment(flipped, task).labels, axis)
    assert np.count_nonzero(a != b) <= 2e-4 * np.count_nonzero(a)  # right stays right


def test_right_and_left_are_those_of_the_patient() -> None:
    volume = chest().volume
    labels = segment(volume, "lungs").labels
    across = np.arange(labels.shape[2])
    middle = {k: (np.count_nonzero(labels == k, axis=(0, 1)) * across).sum() / (labels == k).sum() for k in (1, 2)}
    assert middle[1] < middle[2]  # axis 2 goes to the left


@pytest.mark.parametrize("slab", [7, 16, 1000])
def test_slabs_do_not_matter(slab: int) -> None:
    volume = chest().volume
    usual = segment_vessels(volume.hu, volume.spacing_mm, volume.direction).mask
    other = segment_vessels(volume.hu, volume.spacing_mm, volume.direction, slab=slab).mask
    assert np.count_nonzero(usual != other) <= 1e-4 * usual.sum()


def test_slabs_do_not_matter_for_airways() -> None:
    volume = chest().volume
    usual = segment_airways(volume.hu, volume.spacing_mm, volume.direction).mask
    other = segment_airways(volume.hu, volume.spacing_mm, volume.direction, slab=9).mask
    assert np.count_nonzero(usual != other) <= 1e-4 * usual.sum()


@pytest.mark.parametrize("task", TASKS)
def test_other_spacing_same_volume(task: str) -> None:
    sizes = []
    for spacing in ((1.5, 1.25, 1.25), (1.0, 1.25, 1.0), (2.0, 1.0, 1.0)):
        volume = chest(spacing).volume
        sizes.append(volume_ml(segment(volume, task).labels > 0, spacing))
    assert max(sizes) < 1.25 * min(sizes)


def test_axes_of_a_coronal_array() -> None:
    """Axis 0 goes to the back here. Airways are followed from the head all the same."""
    volume = chest((1.25, 1.25, 1.25)).volume
    direction = volume.direction[:, [1, 0, 2]]
    coronal = Volume(np.ascontiguousarray(volume.hu.transpose(1, 0, 2)), (1.25, 1.25, 1.25), direction=direction)
    a = segment_airways(volume.hu, volume.spacing_mm, volume.direction).mask
    b = segment_airways(coronal.hu, coronal.spacing_mm, coronal.direction).mask.transpose(1, 0, 2)
    assert dice(a, b) > 0.95


@pytest.mark.parametrize("spacing", [(1.25, 1.25, 1.25), (5.0, 0.8, 0.7), (2.5, 1.0, 1.0)])
def test_fast_lungs_lie_within_a_voxel_of_the_slow_ones(spacing: tuple[float, float, float]) -> None:
    volume = chest(spacing).volume
    fast, slow = fast_lung_mask(volume.hu, spacing), lung_mask(volume.hu, spacing)
    assert dice(fast, slow) > 0.97
    beyond_mm = 1.01 * max(2.0, *spacing)
    for a, b in ((fast, slow), (slow, fast)):
        far = ndimage.distance_transform_edt(~b, sampling=spacing)[a] > beyond_mm
        assert far.mean() < 0.005


def test_one_slice() -> None:
    volume = chest().volume
    one = Volume(volume.hu[30:31], volume.spacing_mm)
    assert set(np.unique(segment(one, "lungs").labels)) == {0, 1, 2}
    vessels = segment(one, "vessels")
    assert vessels.labels.any()
    assert any("alone" in line for line in vessels.warnings)
    with pytest.raises(InputRefused, match="1 slices: airways are followed through 10 slices or more"):
        segment(one, "airways")


@pytest.mark.parametrize("axis", [0, 1])
def test_two_pieces_of_one_lung_are_not_right_and_left(axis: int) -> None:
    """A lung that is parted above and below, or in front and behind."""
    lung = np.zeros((40, 60, 60), bool)
    lung[5:35, 10:50, 20:40] = True
    np.moveaxis(lung, axis, 0)[18:30] = False
    assert sides(lung, (2.0, 2.0, 2.0), np.eye(3)[::-1]) is None


def test_half_a_lung() -> None:
    volume = chest().volume
    half = Volume(volume.hu[:20], volume.spacing_mm)  # below the carina
    assert any("the lungs reach the last slice" in line for line in segment(half, "lungs").warnings)
    assert segment(half, "vessels").labels.any()
    with pytest.raises(InputRefused, match="no trachea found"):
        segment(half, "airways")


@pytest.mark.parametrize("task", TASKS)
def test_what_is_no_chest_is_refused(task: str) -> None:
    rng = np.random.default_rng(0)
    head = np.where(np.hypot(*np.mgrid[-40:40, -40:40]) < 30, 40, -1000)
    for hu, words in (
        (rng.integers(0, 4000, (12, 60, 60)), "no chest CT in HU"),
        (np.full((12, 60, 60), -1000), "no chest CT in HU"),
        (np.repeat(head[None], 12, 0), "no lungs found"),
    ):
        with pytest.raises(InputRefused, match=words):
            segment(Volume(hu.astype(np.int16), (2.0, 2.0, 2.0)), task)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(UhrctError, match="`task` 'liver': choose from lungs, airways, vessels"):
        segment(chest().volume, "liver")
