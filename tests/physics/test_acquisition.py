import math

import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.physics.acquisition import Acquisition, _right_inverse, correlated_noise, noise_sigma_hu
from uhrct.physics.resampling import apply_in_plane, as_tensor, gaussian_matrix, upsample
from uhrct.training.data.scanners import FLAT

OPERATORS = [
    Acquisition((1, 2, 2)),
    Acquisition((1, 4, 4)),
    Acquisition((1, 3, 2), psf_fwhm=1.2),
    Acquisition((1, 2, 2), psf_fwhm=0.0),
    Acquisition((1, 2, 2), kind="bicubic"),
    Acquisition((1, 4, 4), kind="bicubic"),
    Acquisition((5, 1, 1)),
    Acquisition((5, 2, 2), slice_fwhm=0.3),
    Acquisition((5, 2, 2), slice_thickness=0.6),
    Acquisition((1, 2, 2), psf_fwhm=0.8, sharpening=0.3),
    Acquisition((5, 2, 2), sharpening=1.5),
    Acquisition.from_mm((1, 2, 2), lr_spacing_mm=(2.5, 1.4, 1.4), psf_fwhm_mm=1.0),
]
HR = (10, 24, 36)


@pytest.fixture(params=OPERATORS, ids=str)
def operator(request):
    return request.param


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_adjointness(operator):
    y = random(*HR)
    x = operator.forward(random(*HR, seed=1))
    assert torch.allclose((operator.forward(y) * x).sum(), (y * operator.adjoint(x)).sum(), atol=1e-9)


def test_projection_agrees_with_the_measurement(operator):
    x = operator.forward(random(*HR, seed=1))
    assert torch.allclose(operator.forward(operator.project(random(*HR), x)), x, atol=1e-9)


def test_projection_never_moves_away_from_any_image_that_fits(operator):
    truth, guess = random(*HR, seed=1), random(*HR, seed=2)
    projected = operator.project(guess, operator.forward(truth))
    assert (projected - truth).norm() <= (guess - truth).norm() + 1e-9
    again = operator.project(projected, operator.forward(truth))
    assert torch.allclose(again, projected, atol=1e-9)


@pytest.mark.parametrize("thickness", [0.4, 1.0, 1.6, 2.0])
def test_slabs_are_as_thick_as_told(thickness):
    """An impulse of the object shows in the slabs that cover it, with the share of the slab that it fills."""
    A = Acquisition((5, 1, 1), slice_thickness=thickness)
    y = torch.zeros(45, 1, 1, dtype=torch.float64)
    y[22] = 1  # the middle of LR slice 4
    x = A.forward(y).flatten()
    assert x[4] == pytest.approx(1 / (5 * thickness))
    offset = [abs(k - 4) * 5 for k in range(9)]  # distance of the slab's centre in fine slices
    share = [max(0.0, min(0.5, thickness * 2.5 - d) - max(-0.5, -thickness * 2.5 - d)) for d in offset]
    assert x.tolist() == pytest.approx([v / (5 * thickness) for v in share], abs=1e-9)


def test_overlapping_slabs_project_without_blowing_noise_up():
    A = Acquisition((5, 1, 1), slice_thickness=2.0)
    truth = random(40, 2, 2)
    x = A.forward(truth)
    assert torch.allclose(A.forward(A.project(torch.zeros_like(truth), x)), x, atol=0.1 * x.abs().max())
    assert A.pinv(random(8, 2, 2, seed=4)).abs().max() < 60
    assert not A.slice_by_slice
    assert Acquisition((5, 1, 1), slice_thickness=0.8).slice_by_slice


def test_noise_has_the_deviation_and_correlation_that_is_asked():
    for fwhm in (0.0, 2.0, 3.0):
        n = correlated_noise((4, 200, 200), fwhm, torch.Generator().manual_seed(0))
        assert float(n.std()) == pytest.approx(1, abs=0.03)
        sigma = fwhm / 2.3548
        beside = float((n[..., 1:] * n[..., :-1]).mean())
        assert beside == pytest.approx(0 if not fwhm else math.exp(-1 / (4 * sigma**2)), abs=0.04)


def test_the_inverse_has_no_denormal_numbers_that_slow_a_product_down():
    inverse = as_tensor(_right_inverse(Acquisition((1, 2, 2), psf_fwhm=0.8), 512, 2, 0.01), torch.zeros(0)).abs()
    assert ((inverse == 0) | (inverse >= torch.finfo(torch.float32).tiny)).all()


def test_constants_keep_their_hu(operator):
    assert torch.allclose(operator.forward(torch.full(HR, -1000.0)), torch.tensor(-1000.0), atol=1e-3)


def test_float32_keeps_hu_to_a_thousandth(operator):
    y = 1000 * random(*HR).float()
    assert (operator.forward(y) - operator.forward(y.double())).abs().max() < 2e-3


def test_default_is_a_gaussian_of_six_tenths_pixel_then_the_mean():
    from scipy.ndimage import gaussian_filter

    y = random(40, 40)
    blurred = gaussian_filter(y.numpy(), 0.6 * 2 / 2.354820045, mode="nearest", radius=3)
    expected = blurred.reshape(20, 2, 20, 2).mean((1, 3))
    assert abs(Acquisition((1, 2, 2)).forward(y).numpy() - expected).max() < 1e-6


def test_shapes_that_do_not_divide_and_unknown_kinds_are_refused():
    with pytest.raises(UhrctError, match="multiple"):
        Acquisition((1, 2, 2)).forward(torch.zeros(5, 4))
    with pytest.raises(UhrctError, match="choose from scanner, bicubic"):
        Acquisition((1, 2, 2), kind="magic")


@pytest.mark.parametrize("sigma", [5.0, 20.0, 40.0])
def test_noise_is_measured_beside_edges(sigma):
    image = torch.where(torch.arange(128)[:, None] % 40 < 20, -850.0, 40.0).expand(128, 128)
    estimate = noise_sigma_hu(image + sigma * random(128, 128).float())
    assert abs(float(estimate) / sigma - 1) < 0.15


def phantom(noise_hu):
    """A disc of tissue with small vessels: HR truth, and its LR measurement with noise."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    truth = torch.where(torch.hypot(y - 64, x - 64) < 50, -850.0, 40.0)
    for k in range(8):
        cy, cx, r = 40 + 6 * k, 44 + (17 * k) % 40, 1 + k % 3
        truth = truth + 800 * torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r**2))
    A = Acquisition((1, 2, 2))
    return truth, A.forward(truth) + noise_hu * random(64, 64, seed=3).float(), A


@pytest.mark.parametrize("noise_hu", [0.0, 10.0, 40.0])
@pytest.mark.parametrize("start", ["interpolation", "denoised", "truth"])
def test_auto_consistency_never_loses(noise_hu, start):
    truth, lr, A = phantom(noise_hu)
    guess = {
        "interpolation": upsample(lr, 2, 2),
        "denoised": upsample(A.forward(truth), 2, 2),
        "truth": truth,
    }[start]
    off, auto, hard = (
        float((y - truth).square().mean())
        for y in (guess, A.project_within_noise(guess[None], lr[None])[0], A.project(guess, lr))
    )
    assert auto <= off * 1.01 + 0.02 * noise_hu**2
    if noise_hu == 0 and start != "truth":
        assert auto < 0.9 * off  # clean data: agreeing pays
    if noise_hu == 40 and start != "interpolation":
        assert auto < 0.5 * (hard - off) + off  # noisy data: agreeing exactly imprints the noise


def test_smooth_noise_is_not_imprinted_where_it_is_known():
    """A kernel's noise looks small to an estimate for white noise; what is told of it counts."""
    truth, lr, A = phantom(0.0)
    lr = lr + 40 * correlated_noise(tuple(lr.shape), 1.5, torch.Generator().manual_seed(0))
    assert noise_sigma_hu(lr) < 25
    unaware, told = (
        float((A.project_within_noise(truth[None], lr[None], noise_hu)[0] - truth).square().mean())
        for noise_hu in (0.0, 40.0)
    )
    assert told < 0.5 * unaware


def test_a_wide_psf_does_not_amplify_noise_that_is_stronger_than_told():
    """Noise varies within a slice: in the middle of the body it is stronger than the one number that is told."""
    A = Acquisition((1, 4, 4), psf_fwhm=0.95)
    truth = torch.full((1, 128, 128), 150.0)
    noise = 40 * torch.randn((1, 32, 32), generator=torch.Generator().manual_seed(0))
    lr = A.forward(truth) + noise
    told, exact = (
        float((y - truth).std()) for y in (A.project_within_noise(truth[None], lr[None], 18.0)[0], A.project(truth, lr))
    )
    assert told < 40
    assert exact > 3 * told


def test_a_kernel_adds_detail_and_leaves_flat_parts():
    plain, sharp = Acquisition((1, 2, 2)), Acquisition((1, 2, 2), sharpening=0.5)
    flat = torch.full((1, 16, 16), 40.0, dtype=torch.float64)
    assert torch.allclose(sharp.forward(flat), flat[:, ::2, ::2])
    edge = flat.clone()
    edge[:, :, 8:] = -900.0
    assert sharp.forward(edge).max() > plain.forward(edge).max() + 50
    with pytest.raises(UhrctError, match=r"`sharpening` is -0\.1"):
        Acquisition((1, 2, 2), sharpening=-0.1)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_flat_scanner_is_nearly_bicubic_downsampling(scale):
    blur = as_tensor(gaussian_matrix(32 * scale, scale / 3), random(1))
    hr = apply_in_plane(random(32 * scale, 32 * scale), blur, blur)  # images have more of low frequencies
    psf, sharpening = FLAT
    x, clean, flat = (
        Acquisition((1, scale, scale), kind, psf_fwhm=p, sharpening=s).forward(hr)[..., 4:-4, 4:-4]
        for kind, p, s in (("bicubic", 0.6, 0.0), ("scanner", 0.6, 0.0), ("scanner", psf, sharpening))
    )
    assert (flat - x).norm() < 0.7 * (clean - x).norm()
