"""The standard test: the input of a method, and the scores of perfect and simple methods."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from uhrct.core.hu import METRIC_WINDOWS_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.fidelity import psnr
from uhrct.evaluation.protocol import CONTEXT, Restore, degraded_stack, evenly_spaced, means, score, score_slices
from uhrct.evaluation.rim import padding_and_rim
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample, upsample_stack

A = Acquisition((1, 2, 2))


@pytest.fixture
def volume(slice_hu: np.ndarray) -> Volume:
    """Four slices with odd sides: the far line and column are cropped."""
    hu = np.stack([np.roll(slice_hu, k, 1)[:95, :79] for k in range(4)])
    return Volume(hu, (2.0, 0.7, 0.8))


def bicubic(lr: Tensor, _: tuple[float, float, float]) -> Tensor:
    return upsample(lr[CONTEXT], 2, 2)[None]


def test_evenly_spaced_holds_both_ends() -> None:
    assert evenly_spaced(1, 24) == [0]
    assert evenly_spaced(5, 24) == [0, 1, 2, 3, 4]
    for n, count in ((100, 24), (25, 24), (24, 24), (275, 8)):
        chosen = evenly_spaced(n, count)
        assert len(set(chosen)) == len(chosen) == count
        assert (chosen[0], chosen[-1]) == (0, n - 1)
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1


def test_the_truth_scores_without_error(volume: Volume) -> None:
    truth = iter(torch.from_numpy(volume.hu[:, :94, :78]).float().clamp(min=-1024))
    rows = score_slices(volume, {"oracle": lambda lr, spacing: next(truth)[None]}, A, 3)
    assert [r["slice"] for r in rows] == [0, 2, 3]
    first = rows[0]
    assert all(first[f"psnr_{w}"] == math.inf for w in METRIC_WINDOWS_HU)
    assert first["rmse_hu"] == first["mae_hu"] == first["smse_frangi"] == first["smse_vc"] == 0
    assert first["consistency_hu"] == pytest.approx(0, abs=1e-4)
    # The second call restores slice 2 but the oracle returns slice 1: the scores must show it.
    assert rows[1]["rmse_hu"] > 10


def test_bicubic_scores_like_by_hand(volume: Volume) -> None:
    [row] = score_slices(volume, {"bicubic": bicubic}, A, 1)
    hr = torch.from_numpy(volume.hu[0, :94, :78]).float().clamp(min=-1024)
    sr = upsample(A.forward(hr), 2, 2)
    assert row["consistency_hu"] == pytest.approx(float((A.forward(sr) - A.forward(hr)).abs().mean()), rel=1e-4)
    rim = torch.from_numpy(padding_and_rim(volume.hu[0, :94, :78]))
    assert 0 < rim.float().mean() < 0.2
    hr, sr = (torch.where(rim, -1024.0, image) for image in (hr, sr))
    assert row["method"] == "bicubic"
    assert row["rmse_hu"] == pytest.approx(float((sr - hr).square().mean().sqrt()), rel=1e-4)
    assert row["mae_hu"] == pytest.approx(float((sr - hr).abs().mean()), rel=1e-4)
    for name, window in METRIC_WINDOWS_HU.items():
        assert row[f"psnr_{name}"] == psnr(hr.numpy(), sr.numpy(), window_hu=window)
    assert 10 < row["psnr_wide"] < 60
    assert row["smse_frangi"] > 0


def test_a_method_gets_the_low_resolution_slice_and_its_spacing(volume: Volume) -> None:
    seen = []

    def method(lr: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        seen.append((tuple(lr.shape), spacing_mm, float(lr.min())))
        return bicubic(lr, spacing_mm)

    score_slices(volume, {"a": method}, A, 2)
    shape, spacing, lowest = seen[0]
    assert shape == (2 * CONTEXT + 1, 47, 39)
    assert spacing == pytest.approx((2.0, 1.4, 1.6))
    assert lowest >= -1024.001  # padding counts as air


def test_projection_lowers_the_difference_from_the_data(volume: Volume) -> None:
    def projected(lr: Tensor, spacing: tuple[float, float, float]) -> Tensor:
        return A.project(bicubic(lr, spacing), lr[None, CONTEXT])

    mean = means(score_slices(volume, {"bicubic": bicubic, "projected": projected}, A, 2))
    assert mean["projected"]["consistency_hu"] < 0.01 < mean["bicubic"]["consistency_hu"]
    assert mean["projected"]["psnr_wide"] > mean["bicubic"]["psnr_wide"]


def test_spacing_reaches_the_structure_error(volume: Volume) -> None:
    hr = volume.hu[0].astype(np.float32)
    sr = np.roll(hr, 1, 1)
    assert score(hr, sr, (0.7, 0.8))["smse_frangi"] != score(hr, sr, (0.35, 0.4))["smse_frangi"]


def test_means_are_per_method() -> None:
    rows = [
        {"method": "a", "slice": 0, "mae_hu": 1.0},
        {"method": "b", "slice": 0, "mae_hu": 10.0},
        {"method": "a", "slice": 5, "mae_hu": 3.0},
        {"method": "b", "slice": 5, "mae_hu": 20.0},
    ]
    assert means(rows) == {"a": {"mae_hu": 2.0}, "b": {"mae_hu": 15.0}}
    assert means([]) == {}


def test_through_plane_every_fine_slice_is_scored_once() -> None:
    hu = np.random.default_rng(0).normal(-500, 100, (23, 30, 31)).astype(np.float32)
    volume = Volume(hu, (1.0, 0.7, 0.7))
    A5 = Acquisition((5, 2, 2))
    seen = []

    def method(lr: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        seen.append(spacing_mm)
        return upsample_stack(lr, A5.scale)

    rows = score_slices(volume, {"cubic": method}, A5)
    assert [r["slice"] for r in rows] == list(range(20))  # the last three thin slices fill no thick one
    assert seen[0] == pytest.approx((5.0, 1.4, 1.4))
    hr, lr = degraded_stack(volume, A5, 1)
    assert np.array_equal(hr.numpy(), hu[5:10, :, :30])
    assert torch.allclose(lr[CONTEXT], A5.forward(hr)[0], atol=1e-3)
    assert torch.equal(lr[0], lr[1])  # slice 0 is repeated below


def test_overlapping_slabs_see_their_neighbours() -> None:
    hu = np.random.default_rng(0).normal(-500, 100, (40, 8, 8)).astype(np.float32)
    thick = Acquisition((5, 1, 1), slice_thickness=2.0)
    _, lr = degraded_stack(Volume(hu, (1.0, 1.0, 1.0)), thick, 4)
    whole = thick.forward(torch.from_numpy(hu))
    assert torch.allclose(lr, whole[2:7], atol=1e-3)
    cubic = {"cubic": lambda lr, _: upsample_stack(lr, (5, 1, 1))}
    [row, *_] = score_slices(Volume(hu, (1.0, 1.0, 1.0)), cubic, thick, 2)
    assert "consistency_hu" not in row


def test_added_noise_is_the_slices_own() -> None:
    volume = Volume(np.full((6, 40, 40), -800, np.int16), (1.0, 1.0, 1.0))
    _, a = degraded_stack(volume, A, 2, noise_hu=20.0)
    _, b = degraded_stack(volume, A, 3, noise_hu=20.0)
    assert torch.equal(a[1:], b[:-1])  # a slice has the same noise in every stack
    assert float(a.std()) == pytest.approx(20, rel=0.1)
    assert (a[1] - a[2]).abs().max() > 10


def test_the_rim_beside_padding_does_not_count() -> None:
    hu = np.full((1, 64, 64), 40, np.int16)
    hu[:, :16] = -2000
    truth = np.maximum(hu[0], -1024).astype(np.float32)
    wrong_in_the_rim = truth.copy()
    wrong_in_the_rim[:24] += 500
    wrong_inside = truth.copy()
    wrong_inside[30] += 500

    def always(image: np.ndarray) -> Restore:
        return lambda lr, spacing: torch.from_numpy(image)[None]

    methods = {"rim": always(wrong_in_the_rim), "inside": always(wrong_inside)}
    rim, inside = score_slices(Volume(hu, (1.0, 0.7, 0.7)), methods, A, 1)
    assert rim["rmse_hu"] == 0 < inside["rmse_hu"]
