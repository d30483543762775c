"""The lung mask: known chests, laws, and real scans."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.evaluation.lungs import lung_mask

SPACING = (0.8, 0.8)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def chest(size=256):
    """(HU, truth): two lungs with vessels and a nodule at the pleura, trachea, table, blanket, padding."""
    y, x = np.mgrid[:size, :size]
    hu = np.full((size, size), -1000.0)
    hu[np.hypot((y - 120) / 0.75, x - 128) < 110] = 40
    lungs = (np.hypot((y - 115) / 1.4, x - 75) < 38) | (np.hypot((y - 115) / 1.4, x - 181) < 38)
    hu[lungs] = -860
    for cy, cx, r in ((100, 70, 3), (130, 85, 5), (110, 185, 4), (90, 175, 2)):
        hu[np.hypot(y - cy, x - cx) < r] = 60
    hu[(np.hypot(y - 115, x - 38) < 5) & lungs] = 40  # a nodule at the pleura
    hu[np.hypot(y - 90, x - 128) < 9] = -1000  # the trachea
    hu[218:222] = -100  # the table's sheet, and foam below it
    hu[222:240] = -900
    hu[(np.abs(np.hypot((y - 120) / 0.75, x - 128) - 118) < 3) & (y < 120)] = -700  # a blanket
    hu[np.hypot(y - 128, x - 128) > 132] = -2000
    return ndimage.gaussian_filter(hu, 0.5) * (hu > -1500) + np.where(hu > -1500, 0, -2000), lungs


def test_a_known_chest():
    hu, truth = chest()
    mask = lung_mask(hu, SPACING)
    assert dice(mask, truth) > 0.98
    assert mask[130, 85]  # vessels and
    assert mask[115, 42]  # the nodule at the pleura belong to it
    assert not mask[80:100, 118:138].any()  # the trachea does not
    assert not mask[210:].any()  # nor the table
    assert not mask[:35].any()


@pytest.mark.parametrize("sd", [100, 250])
def test_noise_does_not_matter(sd):
    hu, truth = chest()
    noisy = hu + sd * np.random.default_rng(0).normal(size=hu.shape) * (hu > -1500)
    assert dice(lung_mask(noisy, SPACING), truth) > 0.97


@pytest.mark.parametrize("spacing", [(0.8, 0.8), (0.8, 1.6), (1.6, 0.8)])
def test_pixels_need_not_be_square(spacing):
    hu, truth = chest()
    steps = tuple(slice(None, None, round(s / 0.8)) for s in spacing)
    assert dice(lung_mask(hu[steps], spacing), truth[steps]) > 0.95


def test_a_volume_drops_what_is_small_beside_the_lungs():
    hu, truth = chest()
    volume = np.stack([hu] * 4)
    y, x = np.mgrid[:256, :256]
    stool = np.hypot(y - 180, x - 128) < 8
    volume[0, stool] = -700  # alone in its slice it could be the tip of a lung
    mask = lung_mask(volume, (2.5, *SPACING))
    assert not mask[:, stool].any()
    assert all(dice(m, truth) > 0.98 for m in mask)
    assert (lung_mask(volume[1:2], (2.5, *SPACING))[0] == lung_mask(hu, SPACING)).all()


def test_a_main_bronchus_that_opens_into_the_lung_is_cut_off():
    hu, truth = chest()
    y, x = np.mgrid[:256, :256]
    bronchus = np.hypot(y - 115, x - 124) < 8
    hu[bronchus | ((np.abs(y - 115) < 2) & (x > 110) & (x < 120))] = -1000
    mask = lung_mask(hu, SPACING)
    assert mask[bronchus].mean() < 0.05
    assert dice(mask, truth) > 0.97


def test_the_dome_of_the_liver_is_no_hole():
    hu, _ = chest()
    y, x = np.mgrid[:256, :256]
    dome, nodule = np.hypot(y - 120, x - 75) < 26, np.hypot(y - 90, x - 181) < 14
    hu[dome | nodule] = 60
    mask = lung_mask(hu, SPACING)
    assert mask[dome].mean() < 0.1
    assert mask[nodule].all()


def test_a_lung_that_the_field_of_view_cuts():
    hu, truth = chest()
    y, x = np.mgrid[:256, :256]
    outside = np.hypot(y - 128, x - 150) > 106  # through the wall beside the right lung, and a little of that
    hu[outside] = -2000
    seen = truth & ~outside
    assert seen.sum() < truth.sum() - 20
    mask = lung_mask(hu, SPACING)
    assert dice(mask, seen) > 0.97
    assert not mask[outside].any()


def test_foam_under_a_body_that_fills_the_field_of_view():
    hu, truth = chest()
    y, x = np.mgrid[:256, :256]
    hu[(y > 40) & (y < 190) & (hu < -300) & ~truth & (np.hypot(y - 90, x - 128) > 12)] = 40  # wide as the image
    hu[190:] = -900  # foam to the end
    hu[np.hypot(y - 128, x - 128) > 126] = -2000
    mask = lung_mask(hu, SPACING)
    assert not mask[190:].any()
    assert dice(mask, truth) > 0.97


def test_the_room_behind_a_narrow_opening():
    hu, truth = chest()
    y, x = np.mgrid[:256, :256]
    hu[~truth & (np.hypot(y - 90, x - 128) > 12)] = 40
    hu[204:236, 60:200] = -1000  # air under the arm, with a tube in it, that reaches the edge in one place
    hu[214:222, 100:160] = 200
    hu[236:, 120:124] = -1000
    mask = lung_mask(hu, SPACING)
    assert not mask[200:].any()
    assert dice(mask, truth) > 0.97


def test_bowel_gas_is_no_lung():
    hu, truth = chest()
    y, x = np.mgrid[:256, :256]
    gas = np.hypot(y - 172, x - 128) < 22  # 10 cm², more than an airway
    hu[gas] = -1000
    mask = lung_mask(hu, SPACING)
    assert not mask[gas].any()
    assert dice(mask, truth) > 0.98


def test_no_lung_no_mask():
    for hu in (
        np.full((64, 64), -1000.0),
        np.full((64, 64), 40.0),
        np.full((64, 64), -2000.0),
        np.full((64, 64), np.nan),
    ):
        assert not lung_mask(hu, SPACING).any()
    assert not lung_mask(np.full((1, 1), -850.0), SPACING).any()


def test_nan_counts_as_air_outside():
    hu, _ = chest()
    nan = np.where(hu <= -1500, np.nan, hu)
    assert (lung_mask(nan, SPACING) == lung_mask(hu, SPACING)).all()


def test_a_turned_real_slice_has_the_turned_mask(whole_pair):
    hu, mask = whole_pair.reference, whole_pair.lungs
    assert 0.05 < mask.mean() < 0.5
    turned = lung_mask(np.rot90(hu), whole_pair.spacing_mm[::-1])
    assert np.array_equal(np.rot90(turned, -1), mask)


def test_degraded_real_slices_have_the_same_lungs(whole_pair):
    hu, mask, spacing = whole_pair.reference, whole_pair.lungs, whole_pair.spacing_mm
    noisy = hu + 40 * np.random.default_rng(0).normal(size=hu.shape)
    for worse in (whole_pair.test + 15, noisy):
        assert dice(lung_mask(worse, spacing), mask) > 0.97
    lr = lung_mask(whole_pair.lr, tuple(2 * s for s in spacing))
    assert dice(np.kron(lr, np.ones((2, 2), bool)), mask) > 0.95


def test_real_masks_hold_lung_and_no_room(whole_pair):
    """Lung is dark inside a chest. It is found here without the mask's own thresholds."""
    hu, mask = whole_pair.reference, whole_pair.lungs
    assert -950 < np.median(hu[mask]) < -650
    lung_hu = (hu > -920) & (hu < -700)
    inner = ndimage.binary_opening(lung_hu, iterations=3)
    pieces, _ = ndimage.label(inner)
    sizes = np.bincount(pieces.ravel())[1:]
    largest = pieces == 1 + sizes.argmax()
    assert mask[largest].mean() > 0.97


#: Litres of the masks that were looked at (the picture in docs/evaluation.md). Look again if a change moves them.
LITRES = {"train/cmbcrc01068": 4.46, "validation/rider0117": 1.98}


@pytest.mark.parametrize("name", LITRES)
def test_whole_scans(shared_ct, name):
    folder = shared_ct / name
    if not folder.is_dir():
        pytest.skip(f"real CT not here: {name} is missing in ../shared/ct")
    files = sorted(folder.glob("*.dcm"))
    spacing_mm = io.read(files[0]).spacing_mm[1:]
    z_mm = {"cmbcrc01068": 2.5, "rider0117": 0.8}[folder.name]
    hu = np.concatenate([io.read(file).hu for file in files[::10]])  # every tenth slice, to save time
    thick = (10 * z_mm, *spacing_mm)
    mask = lung_mask(hu, thick)
    assert mask.sum() * np.prod(thick) / 1e6 == pytest.approx(LITRES[name], rel=0.06)
    pieces, _ = ndimage.label(mask)
    largest = np.sort(np.bincount(pieces.ravel())[1:])[::-1]
    assert largest[:2].sum() > 0.95 * mask.sum()  # two lungs, or one where they touch
    assert (hu[mask] > -1500).all()


def test_what_does_not_fit_is_refused():
    hu = np.zeros((16, 16))
    bad = (hu, (1,)), (hu, (1, 1, 1)), (hu, (1, 0)), (hu, (1, float("nan")))
    for image, spacing in (*bad, (hu[0], (1,)), (hu[:0], (1, 1)), (hu[None, None], (1, 1, 1, 1))):
        with pytest.raises(UhrctError):
            lung_mask(image, spacing)
