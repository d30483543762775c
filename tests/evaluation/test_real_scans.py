import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.real_scans import agreement, edge_gradient, noise_hu, overshoot_hu, overshoot_ratio
from uhrct.physics.resampling import upsample

FINE_MM = (0.35, 0.35)


@pytest.fixture(scope="module")
def measured() -> np.ndarray:
    """A body with a lung, ribs and noise, (128, 128) at 0.7 mm."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] - 63.5
    hu = np.where(np.hypot(y, x) < 58, 40.0, -1000.0)
    hu[np.hypot(y, x - 20) < 24] = -850
    hu[np.hypot(y - 40, x - 30) < 4] = 900
    return hu + rng.normal(0, 12, hu.shape)


@pytest.fixture(scope="module")
def bicubic(measured: np.ndarray) -> np.ndarray:
    return upsample(torch.from_numpy(measured), 2, 2).numpy()


def box_blurred(image: np.ndarray) -> np.ndarray:
    return sum(np.roll(image, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9


def test_bicubic_against_itself_is_one(measured, bicubic):
    for ours, theirs in (noise_hu(bicubic, bicubic, 2), edge_gradient(bicubic, bicubic)):
        assert ours == theirs > 0
    ours, theirs = overshoot_hu(bicubic, bicubic, measured, FINE_MM)
    assert overshoot_ratio(ours, theirs) == 1
    assert agreement(bicubic, bicubic, FINE_MM) == pytest.approx({"structure": 1, "edges": 1})


def test_blur_has_less_noise_and_softer_edges(bicubic):
    ours, theirs = noise_hu(box_blurred(bicubic), bicubic, 2)
    assert ours < 0.95 * theirs
    ours, theirs = edge_gradient(box_blurred(bicubic), bicubic)
    assert ours < 0.95 * theirs


def test_noise_is_that_of_the_tissue_whatever_its_trend(bicubic):
    y, x = np.mgrid[: bicubic.shape[0], : bicubic.shape[1]] / 100
    with_trend = bicubic + 20 * y - 10 * x * x
    assert noise_hu(with_trend, bicubic, 2)[0] == pytest.approx(noise_hu(bicubic, bicubic, 2)[0], rel=0.02)


def test_sharpening_raises_noise_edges_and_overshoot(measured, bicubic):
    sharpened = bicubic + 1.5 * (bicubic - box_blurred(box_blurred(bicubic)))
    assert np.divide(*noise_hu(sharpened, bicubic, 2)) > 1.1
    assert np.divide(*edge_gradient(sharpened, bicubic)) > 1.1
    assert overshoot_ratio(*overshoot_hu(sharpened, bicubic, measured, FINE_MM)) > 1.3


def test_overshoot_is_the_height_of_a_rim_beside_an_edge():
    measured = np.full((64, 64), 40.0)
    measured[:, 32:] = 700
    fine = np.kron(measured, np.ones((2, 2)))
    rim = fine.copy()
    rim[:, 60:64] -= 150
    ours, theirs = overshoot_hu(rim, fine, measured, FINE_MM)
    assert ours == pytest.approx(150)
    assert theirs == 0
    assert overshoot_ratio(ours, theirs) == pytest.approx(150)
    far = fine.copy()
    far[:, 20:24] -= 150  # far from the edge: no overshoot
    assert overshoot_hu(far, fine, measured, FINE_MM)[0] == 0


def test_padding_makes_no_overshoot(measured):
    padded = measured.copy()
    padded[:, :20] = -2000
    fine = upsample(torch.from_numpy(padded.clip(-1024)), 2, 2).numpy()
    with_step = fine.copy()
    with_step[:, 36:44] = 3000  # at the border of the padding
    assert overshoot_hu(with_step, fine, padded, FINE_MM) == overshoot_hu(fine, fine, padded, FINE_MM)


def test_a_thin_table_in_air_makes_no_overshoot():
    y, x = np.mgrid[:128, :128]
    measured = np.where(np.hypot(y - 50, x - 64) < 40, 40.0, -1000.0)
    measured[120, 20:100] = 0
    fine = upsample(torch.from_numpy(measured), 2, 2).numpy()
    restored = fine.copy()
    restored[240, 40:200] = 900  # thinner and higher than any pixel of the input
    assert overshoot_hu(restored, fine, measured, FINE_MM) == overshoot_hu(fine, fine, measured, FINE_MM)


def test_agreement_falls_with_blur_and_noise(bicubic):
    rng = np.random.default_rng(1)
    blurred, noisy = box_blurred(box_blurred(bicubic)), bicubic + rng.normal(0, 60, bicubic.shape)
    for worse in (blurred, noisy):
        found = agreement(worse, bicubic, FINE_MM)
        assert found["edges"] < 0.99
        assert found["structure"] < 0.9999


def test_what_has_no_value_says_so(measured, bicubic):
    with pytest.raises(Undefined, match="soft tissue"):
        noise_hu(bicubic - 2000, bicubic - 2000, 2)
    with pytest.raises(Undefined, match="smaller"):
        noise_hu(bicubic[:20, :20], bicubic[:20, :20], 2)
    with pytest.raises(UhrctError, match="same"):
        edge_gradient(bicubic, measured)
    with pytest.raises(UhrctError, match="divide"):
        overshoot_hu(bicubic, bicubic, measured[:100], FINE_MM)
