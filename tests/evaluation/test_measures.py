"""All metrics of a slice: equal to other implementations, with reasons where undefined, and laws on real slices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from uhrct.core.errors import UhrctError
from uhrct.core.hu import METRIC_WINDOWS_HU
from uhrct.evaluation.measures import MEASURES, constants, score_all
from uhrct.evaluation.protocol import score
from uhrct.physics.acquisition import Acquisition

A = Acquisition((1, 2, 2))
#: On CT_small no vessel reaches the fixed thresholds: the vessel metrics have no value there.
VESSELS = [n for n in MEASURES if n.startswith("cldice")]


def all_of(pair, test):
    return score_all(pair.reference, test, pair.spacing_mm, lung=pair.lungs, lr=pair.lr, acquisition=A)


@pytest.fixture(scope="module")
def scores(pair):
    """Of the interpolated image."""
    return all_of(pair, pair.test)


def test_it_is_a_superset_of_the_cheap_score_with_the_same_values(pair, scores):
    cheap = score(pair.reference, pair.test, pair.spacing_mm)
    assert {k: scores.values[k] for k in cheap} == pytest.approx(cheap, rel=1e-6)
    assert list(scores.values) == list(MEASURES)
    assert set(scores.reasons) == {k for k, v in scores.values.items() if v is None}
    assert all(v is None or np.isfinite(v) for v in scores.values.values())


def test_psnr_and_ssim_equal_torchmetrics(pair, scores):
    low, high = METRIC_WINDOWS_HU["wide"]
    a, b = (torch.from_numpy((x.clip(low, high) - low) / (high - low))[None, None] for x in (pair.reference, pair.test))
    assert scores.values["psnr_wide"] == pytest.approx(float(peak_signal_noise_ratio(b, a, data_range=1.0)), abs=1e-4)
    _, full = structural_similarity_index_measure(
        b, a, sigma=1.5, kernel_size=11, data_range=1.0, return_full_image=True
    )
    # torchmetrics averages over its padded rim too
    assert scores.values["ssim_wide"] == pytest.approx(float(full[0, 0, 5:-5, 5:-5].mean()), abs=1e-9)


def test_identity(pair):
    scores = all_of(pair, pair.reference)
    for name, value in scores.values.items():
        if name.startswith("psnr"):
            assert value is None
            assert "no difference" in scores.reasons[name]
        elif name == "vessel_mm":
            assert value >= 0
        elif name == "consistency_hu":
            assert value < 1e-6
        elif value is None:
            assert name in VESSELS
            assert scores.reasons[name] == "no vessel in the reference"
        else:
            perfect = {"higher": 1, "1": 1, "lower": 0}[MEASURES[name].better]
            assert value == pytest.approx(perfect, abs=1e-6), name


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_growing_blur_and_noise_are_never_better(pair, kind):
    """Every metric of fidelity gets worse from step to step; blur breaks vessels and noise invents them."""
    rng = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=pair.reference.shape), 0.7)
    rng /= rng.std()
    if kind == "blur":
        tests = [ndimage.gaussian_filter(pair.reference, s) for s in (0.5, 2.0)]
    else:
        tests = [pair.reference + sd * rng for sd in (20, 180)]
    rows = [all_of(pair, t).values for t in tests]
    names = [n for n in MEASURES if n.startswith(("psnr", "rmse", "mae", "ssim", "vif", "smse", "consistency"))]
    names += ["cldice_10", "cldice_25"] if kind == "blur" else []
    for name in names:
        values = [r[name] for r in rows]
        if None in values:
            assert name in VESSELS
            continue
        steps = np.diff(values)
        assert (steps < 0).all() if MEASURES[name].better == "higher" else (steps > 0).all(), (name, values)
    fine = [r["texture_1"] for r in rows]
    assert (np.diff(fine) < 0).all() if kind == "blur" else (np.diff(fine) > 0).all()
    lengths = [r["broken_mm" if kind == "blur" else "invented_mm"] for r in rows]
    assert lengths[-1] > lengths[0]


def test_a_flip_changes_only_what_thinning_and_crops_move(pair, scores):
    a, b, lung, lr = (np.flip(x, 0).copy() for x in (pair.reference, pair.test, pair.lungs, pair.lr))
    flipped = score_all(a, b, pair.spacing_mm, lung=lung, lr=lr, acquisition=A).values
    for name, value in scores.values.items():
        if value is None:
            assert flipped[name] is None
        elif name.startswith(("cldice", "vif")):
            assert flipped[name] == pytest.approx(value, abs=0.05), name
        elif name.endswith("_mm"):
            assert flipped[name] == pytest.approx(value, rel=0.2, abs=3), name
        else:
            assert flipped[name] == pytest.approx(value, rel=1e-4, abs=1e-9), name


def test_padding_has_no_truth_and_its_rim_is_forgiven():
    hu = np.random.default_rng(0).normal(-500, 100, (64, 64))
    a, b = hu.copy(), hu + 10
    a[:8], b[:8] = -3024, -1024
    seen = score_all(a, b, (1, 1)).values["rmse_hu"]
    assert seen == pytest.approx(10 * np.sqrt(56 / 64))
    b[:8] = 40  # anything drawn outside the field of view
    assert score_all(a, b, (1, 1)).values["rmse_hu"] == pytest.approx(seen)
    b[:10] = -2000  # two lines of the rim
    assert score_all(a, b, (1, 1)).values["rmse_hu"] == pytest.approx(10 * np.sqrt(54 / 64))
    b[30:40] = -2000  # padding where there is a patient
    assert score_all(a, b, (1, 1)).values["rmse_hu"] > 150
    assert score_all(hu, np.full((64, 64), -2000.0), (1, 1)).values["rmse_hu"] > 400


def test_bad_slices_have_reasons_and_no_values():
    good, nan = np.random.default_rng(0).normal(-500, 100, (64, 64)), np.full((64, 64), 40.0)
    nan[3, 3] = np.nan
    for a, b, who in ((good, nan, "test"), (nan, good, "reference"), (nan, nan, "reference and the test")):
        scores = score_all(a, b, (1, 1), lr=np.zeros((32, 32)), acquisition=A)
        assert list(scores.values) == list(MEASURES)
        assert set(scores.values.values()) == {None}
        assert set(scores.reasons.values()) == {f"NaN or infinite values in the {who}"}
    constant = score_all(np.full((64, 64), 40.0), good, (1, 1))
    assert "consistency_hu" not in constant.values  # no LR was given
    assert constant.values["rmse_hu"] > 100
    assert "constant" in constant.reasons["vif_wide"]
    assert "constant" in constant.reasons["texture_1"]
    assert constant.reasons["broken_mm"] == constant.reasons["betti0_error"] == "no lung in the reference"
    tiny = score_all(good[:8, :8], good[:8, :8] + 1, (1, 1))
    assert tiny.values["rmse_hu"] == pytest.approx(1)
    assert "11 x 11" in tiny.reasons["ssim_wide"]
    assert "41 x 41" in tiny.reasons["vif_wide"]
    one = score_all(good[:1, :1], good[:1, :1] + 1, (1, 1))
    assert one.values["mae_hu"] == pytest.approx(1)
    mad = score_all(good, good, (1, 1), lr=np.zeros((7, 7)), acquisition=A)
    assert "not (1, 2, 2) times" in mad.reasons["consistency_hu"]


def test_shapes_that_differ_are_refused():
    a = np.zeros((64, 64))
    for reference, test in ((a, a[:63]), (a[None], a[None]), (a[:0], a[:0])):
        with pytest.raises(UhrctError):
            score_all(reference, test, (1, 1))


def test_the_lungs_may_be_given(pair, scores):
    none = score_all(pair.reference, pair.test, pair.spacing_mm, lung=np.zeros(pair.reference.shape, bool))
    assert none.reasons["cldice_25"] == "no lung in the reference"
    everywhere = score_all(pair.reference, pair.test, pair.spacing_mm, lung=np.ones(pair.reference.shape, bool))
    assert everywhere.values["vessel_mm"] > scores.values["vessel_mm"]


def test_constants_are_json():
    assert json.loads(json.dumps(constants())) == constants()
