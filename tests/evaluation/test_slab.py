"""Slabs: vessels as lines in space, and the same values as in the comparison of volumes."""

from __future__ import annotations

import numpy as np
import pytest

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.compare import compare
from uhrct.evaluation.slab import SLAB_MEASURES, score_slab

SPACING = (1.0, 0.7, 0.7)
LUNG = np.ones((16, 64, 64), bool)


def vessels() -> np.ndarray:
    """Noisy lung, one vessel across the slices and one within a slice; a slab of soft tissue at the edge."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 8, (16, 64, 64))
    z, y, x = np.indices(hu.shape)
    hu += 850 * np.exp(-((y - 12) ** 2 + (x - 12) ** 2) / 6)
    hu += 850 * np.exp(-((y - 28) ** 2 + 4 * (z - 8) ** 2) / 6)
    hu[:, 36:] = rng.normal(40, 8, hu[:, 36:].shape)
    return hu


def test_identity() -> None:
    hu = vessels()
    values = score_slab(hu, hu, SPACING, LUNG).values
    assert values.keys() == SLAB_MEASURES.keys()
    assert values["vessel_mm_3d"] > 30
    for name, m in SLAB_MEASURES.items():
        if m.better:
            assert values[name] == (1.0 if m.better == "higher" else 0.0), name


def test_a_gap_along_z_is_broken_and_a_new_vessel_invented() -> None:
    """Each vessel is a disc in every slice, and a line only in space."""
    hu = vessels()
    gap, more = hu.copy(), hu.copy()
    gap[3:8, 5:20, 5:20] = -850
    y, x = np.indices(hu.shape[1:])
    more += 850 * np.exp(-((y - 12) ** 2 + (x - 28) ** 2) / 6)
    broken, invented = (score_slab(hu, test, SPACING, LUNG).values for test in (gap, more))
    assert broken["broken_mm_3d"] == pytest.approx(3.0, abs=0.5)  # five slices of 1 mm, one at each end is tolerated
    assert broken["invented_mm_3d"] == 0
    assert broken["betti0_error_3d"] == 1
    assert invented["invented_mm_3d"] == pytest.approx(15.0, abs=1.5)
    assert invented["broken_mm_3d"] == 0
    assert max(broken["cldice_25_3d"], invented["cldice_25_3d"]) < 0.99


def test_the_same_as_of_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    hu = vessels()
    test = hu + np.random.default_rng(1).normal(0, 60, hu.shape)
    test[3:8, 5:20, 5:20] = -850
    a, b = Volume(hu.astype(np.float32), SPACING), Volume(test.astype(np.float32), SPACING)
    monkeypatch.setattr("uhrct.evaluation.compare.lung_mask", lambda *_, **__: LUNG)  # this is no whole chest
    expected = compare(a, b).volume
    got = score_slab(a.hu, b.hu, SPACING, LUNG)
    for name, value in expected.values.items():
        assert got.values[name] == pytest.approx(value), name
    assert expected.values["betti0_error_3d"] > 0
    assert expected.values["flicker"] > 1.05


def test_what_is_undefined_says_why() -> None:
    hu = vessels()
    nowhere = score_slab(hu, hu, SPACING, np.zeros_like(LUNG))
    assert nowhere.reasons["betti0_error_3d"] == "no lung in the reference"
    assert nowhere.values["flicker"] == 0
    bad = hu.copy()
    bad[3, 4, 5] = np.nan
    holes = score_slab(hu, bad, SPACING, LUNG)
    assert set(holes.values.values()) == {None}
    assert all("NaN" in reason for reason in holes.reasons.values())
    alone = score_slab(hu[:1], hu[:1], SPACING, LUNG[:1])
    assert alone.reasons["flicker"] == "one slice has no neighbour"
    with pytest.raises(UhrctError, match="equal slabs"):
        score_slab(hu, hu[1:], SPACING, LUNG)
