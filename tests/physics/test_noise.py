import numpy as np
import pytest
import torch

from uhrct.physics.kernels import Kernel
from uhrct.physics.noise import (
    DIRECTIONS,
    add_noise,
    directional_noise_map,
    noise_amplitude,
    noise_field,
    noise_map,
    noise_power,
)

B30, B40, LUNG = Kernel(3.5, 5.9), Kernel(4.4, 7.2), Kernel(7.5, 9.45, 0.41)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def correlation(noise, lag):
    products = (noise[..., lag:] * noise[..., :-lag]).mean() + (noise[..., lag:, :] * noise[..., :-lag, :]).mean()
    return float(products / 2 / noise.square().mean())


def thorax(with_shoulders=False):
    """Water in air, 400 x 250 mm at 3.2 mm; with two discs of bone on the horizontal through the middle."""
    y, x = (np.mgrid[:128, :128] - 63.5) * 3.2
    hu = np.where((x / 200) ** 2 + (y / 125) ** 2 < 1, 40.0, -1000.0)
    for side in (-120, 120) if with_shoulders else ():
        hu[np.hypot(x - side, y) < 28] = 900
    return hu


SPACING = (3.2, 3.2)


@pytest.mark.parametrize("shape", [(6, 64, 64), (6, 63, 65), (2, 3, 48, 80)])
@pytest.mark.parametrize("kernel", [B30, LUNG])
def test_field_has_unit_variance_and_no_mean(shape, kernel):
    noise = noise_field(shape, (0.7, 0.7), kernel, generator())
    assert noise.shape == shape
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert float(noise.mean((-2, -1)).abs().max()) < 1e-5


def test_field_depends_on_its_generator_alone():
    a, b, c = (noise_field((32, 32), (0.7, 0.7), B30, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


@pytest.mark.parametrize("kernel", [B30, LUNG])
def test_spectrum_is_ramp_times_squared_mtf(kernel):
    """Where nothing folds back: small pixels."""
    spacing = 0.3
    noise = noise_field((64, 96, 96), (spacing, spacing), kernel, generator())
    power = (torch.fft.fft2(noise).abs() ** 2).mean(0).numpy()
    f = 10 * np.fft.fftfreq(96, spacing)
    radius = np.hypot(f[:, None], f[None])
    for low in np.arange(0.5, kernel.mtf10_lp_cm):
        ring = (radius > low) & (radius < low + 0.7)
        expected = noise_power(radius[ring], kernel).mean() / noise_power(radius, kernel).mean()
        assert power[ring].mean() / power.mean() == pytest.approx(expected, rel=0.12, abs=0.02)


def test_spectrum_of_the_grid_is_the_spectrum_of_the_field():
    noise = noise_field((256, 32, 33), (0.7, 0.9), LUNG, generator())
    power = torch.fft.rfft2(noise).abs().square().mean(0).numpy() / (32 * 33)
    expected = noise_amplitude((32, 33), (0.7, 0.9), LUNG) ** 2
    assert np.allclose(power, expected, rtol=0.45, atol=0.02)
    assert power[1:].mean() == pytest.approx(expected[1:].mean(), rel=0.02)


@pytest.mark.parametrize(
    ("kernel", "spacing_mm", "one", "two"),
    [
        (B30, 0.7, 0.57, 0.04),  # measured on a real B30s
        (B40, 0.66, 0.47, -0.04),  # a real B40f
        (Kernel(4.2, 7.2), 0.66, 0.50, 0.07),  # a real GE STANDARD
        (Kernel(6.2, 8.5, 0.3), 0.69, 0.28, -0.14),  # a real FC51
    ],
)
def test_correlation_is_like_that_of_real_scans(kernel, spacing_mm, one, two):
    noise = noise_field((8, 128, 128), (spacing_mm, spacing_mm), kernel, generator())
    assert correlation(noise, 1) == pytest.approx(one, abs=0.08)
    assert correlation(noise, 2) == pytest.approx(two, abs=0.14)
    assert abs(correlation(noise, 5)) < 0.06


def test_map_is_relative_and_strongest_in_the_middle():
    relative = noise_map(thorax(), SPACING).numpy()
    tissue = thorax() > -150
    assert relative.shape == (128, 128)
    assert relative[tissue].mean() == pytest.approx(1, abs=1e-3)
    assert relative[64, 64] == pytest.approx(relative[tissue].max(), rel=0.05)
    assert relative[64, 64] > 1.15 * relative[64, 5]


def test_dense_bone_makes_noise_along_the_rays_that_pass_it():
    """Of the views along the line through both shoulders; other views hardly change."""
    plain, shoulders = (directional_noise_map(thorax(bone), SPACING)[:, 64, 64] for bone in (False, True))
    through = DIRECTIONS // 2  # horizontal rays: noise of vertical frequency
    ratio = shoulders / plain
    assert ratio[through] > 1.15
    assert ratio[through] == ratio.max()
    assert abs(ratio[0] - 1) < 0.1


def test_noise_between_shoulders_is_streaked_along_them():
    """Across the streaks noise changes faster than along them."""
    hu = torch.from_numpy(thorax(with_shoulders=True)).float()
    directional = directional_noise_map(hu.numpy(), SPACING)
    noises = [add_noise(hu, SPACING, 20, Kernel(1.0, 1.7), generator(k), directional) - hu for k in range(12)]
    middle = torch.stack(noises)[:, 56:72, 56:72]
    along = (middle[..., 2:] * middle[..., :-2]).mean()
    across = (middle[..., 2:, :] * middle[..., :-2, :]).mean()
    assert along > across + 0.05 * middle.square().mean()


def test_added_noise_has_the_asked_size_in_soft_tissue():
    hu = torch.from_numpy(thorax()).float()
    directional = directional_noise_map(hu.numpy(), SPACING)
    assert directional.shape == (DIRECTIONS, 128, 128)
    noise = torch.stack([add_noise(hu, SPACING, 25, B30, generator(k), directional) for k in range(8)]) - hu
    tissue = hu > -150
    assert float(noise[:, tissue].std()) == pytest.approx(25, rel=0.06)
    local = noise.square().mean(0)
    centre, skin = local[54:74, 54:74].mean().sqrt(), local[54:74, 3:12].mean().sqrt()
    assert centre > 1.1 * skin


def test_a_slice_of_air_or_padding_alone_has_a_finite_map():
    for value in (-1000.0, -3024.0):
        assert torch.isfinite(noise_map(np.full((40, 50), value), (0.7, 0.8))).all()
