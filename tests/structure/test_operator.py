"""Laws of the operator as a whole, for every kind, polarity and dimension."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from uhrct.core.errors import UhrctError
from uhrct.structure import KINDS, POLARITIES, StructureOperator

LUNG_HU = -850.0
CASES = [*itertools.product(KINDS, POLARITIES, (2, 3))]
SHAPE = {2: (40, 44), 3: (14, 18, 16)}
SPACING = {2: (0.7, 0.9), 3: (1.2, 0.7, 0.9)}


def tissue(ndim, seed=0, dtype=torch.float64, shape=None):
    """Smooth structures of a few pixels over lung, several hundred HU strong, bright and dark."""
    noise = np.random.default_rng(seed).normal(size=shape or SHAPE[ndim])
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return torch.from_numpy(LUNG_HU + 250 * smooth / smooth.std()).to(dtype)


def line(contrast_hu, n=48, sigma_px=1.5):
    x = torch.arange(n, dtype=torch.float64) - n // 2
    return (LUNG_HU + contrast_hu * torch.exp(-0.5 * (x / sigma_px) ** 2)).expand(n, n)


@pytest.mark.parametrize(("kind", "polarity", "ndim"), CASES)
def test_range_shape_and_dtype(kind, polarity, ndim):
    op = StructureOperator(kind, polarity=polarity, ndim=ndim)
    assert op(tissue(ndim, dtype=torch.float16), SPACING[ndim]).dtype == torch.float32
    single, double = (op(tissue(ndim, dtype=dtype), SPACING[ndim]) for dtype in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0)
    assert double.shape == SHAPE[ndim]
    assert double.min() >= 0
    assert double.max() <= 1
    assert double.std() > 0.05


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_offset_in_hu_changes_nothing_even_in_single_precision(ndim):
    image = tissue(ndim).round().float()  # whole HU, so that the shift itself is exact
    op = StructureOperator(ndim=ndim)
    torch.testing.assert_close(op(image + 2**18, SPACING[ndim]), op(image, SPACING[ndim]), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("kind", "polarity", "ndim"), CASES)
def test_dark_is_bright_of_the_negative(kind, polarity, ndim):
    image, other = tissue(ndim), {"bright": "dark", "dark": "bright"}[polarity]
    a = StructureOperator(kind, polarity=polarity, ndim=ndim)(image, SPACING[ndim])
    b = StructureOperator(kind, polarity=other, ndim=ndim)(-image, SPACING[ndim])
    torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    assert (a - StructureOperator(kind, polarity=other, ndim=ndim)(image, SPACING[ndim])).abs().max() > 0.3


@pytest.mark.parametrize(("kind", "polarity", "ndim"), CASES)
def test_rotation_by_90_degrees_and_flips_of_image_and_map_agree(kind, polarity, ndim):
    op, image, spacing = StructureOperator(kind, polarity=polarity, ndim=ndim), tissue(ndim), SPACING[ndim]
    structure = op(image, spacing)
    for axes in itertools.combinations(range(ndim), 2):
        turned = list(spacing)
        turned[axes[0]], turned[axes[1]] = spacing[axes[1]], spacing[axes[0]]
        expected = structure.rot90(1, axes)
        torch.testing.assert_close(op(image.rot90(1, axes), tuple(turned)), expected, atol=1e-6, rtol=0)
    for axis in range(ndim):
        expected = structure.flip(axis)
        torch.testing.assert_close(op(image.flip(axis), spacing), expected, atol=1e-6, rtol=0)


@settings(max_examples=12, deadline=None)
@given(order=st.permutations([0.6, 1.0, 1.7, 2.4]), kind=st.sampled_from(KINDS))
def test_order_of_scales_does_not_matter_and_each_one_counts(order, kind):
    image = tissue(2, seed=3)
    expected = StructureOperator(kind, sigma_mm=(0.6, 1.0, 1.7, 2.4))(image, (0.7, 0.7))
    assert torch.equal(StructureOperator(kind, sigma_mm=tuple(order))(image, (0.7, 0.7)), expected)
    alone = [StructureOperator(kind, sigma_mm=(s,))(image, (0.7, 0.7)) for s in order]
    assert torch.equal(torch.stack(alone).amax(0), expected)


@pytest.mark.parametrize(("kind", "polarity", "ndim"), CASES)
def test_constants_and_ramps_are_zero(kind, polarity, ndim):
    op = StructureOperator(kind, sigma_mm=(0.7, 1.2), polarity=polarity, ndim=ndim)
    shape, spacing = ((48, 48), (0.7, 0.9)) if ndim == 2 else ((24, 24, 24), (0.9, 0.8, 0.9))
    inside = (slice(8, -8),) * ndim  # replicated edges bend a ramp
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    ramp = LUNG_HU + sum(slope * axis for slope, axis in zip((40.0, -25.0, 12.5), axes, strict=False))
    assert op(torch.full(shape, LUNG_HU), spacing).max() < 1e-9
    assert op(ramp, spacing)[inside].max() < 1e-6
    bend = -0.5 if polarity == "bright" else 0.5
    bent = op(ramp + bend * sum(50 * (axis - 12) ** 2 for axis in axes), spacing)
    assert bent[inside].min() > 0.01  # the same place does see a curvature


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", [(0.4, 0.4), (0.8, 0.4), (0.2, 0.4)])
def test_same_object_on_a_finer_or_anisotropic_grid_gives_the_same_map(kind, sampling):
    """One physical scene, sampled at 0.8 mm and at other spacings; compared at the points that they share."""

    def scene(spacing):
        y, x = torch.meshgrid(*[torch.arange(0, 48, s, dtype=torch.float64) for s in spacing], indexing="ij")
        vessel = torch.exp(-0.5 * (((x - 0.5 * y) / 1.25**0.5 - 6) / 1.2) ** 2)
        nodule = torch.exp(-0.5 * ((x - 36) ** 2 + (y - 14) ** 2) / 1.8**2)
        oval = torch.exp(-0.5 * (((x - 12) / 3) ** 2 + ((y - 36) / 1.2) ** 2))
        return LUNG_HU + 400 * vessel + 300 * nodule + 500 * oval

    op = StructureOperator(kind, sigma_mm=(1.2, 2.0))
    coarse, fine = op(scene((0.8, 0.8)), (0.8, 0.8)), op(scene(sampling), sampling)
    step = [round(0.8 / s) for s in sampling]
    shared = (slice(12, -12),) * 2  # replicated edges begin half a sample further out on the coarse grid
    torch.testing.assert_close(fine[:: step[0], :: step[1]][shared], coarse[shared], atol=0.02, rtol=0)
    wrong_unit = op(scene(sampling), (0.8, 0.8))[:: step[0], :: step[1]]  # sigma in pixels would do this
    assert (wrong_unit - coarse)[shared].abs().max() > 0.2


def test_same_volume_on_anisotropic_voxels_gives_the_same_map():
    def scene(spacing):
        z, y, x = torch.meshgrid(*[torch.arange(0, 24, s, dtype=torch.float64) for s in spacing], indexing="ij")
        tube = torch.exp(-0.5 * (((x - 0.5 * z - 6) ** 2) + (y - 12) ** 2) / 1.5**2)
        return LUNG_HU + 600 * tube

    op = StructureOperator("vc", sigma_mm=(1.5,), ndim=3)
    fine, thick = op(scene((0.75, 0.75, 0.75)), (0.75,) * 3), op(scene((1.5, 0.75, 0.75)), (1.5, 0.75, 0.75))
    inside = (slice(4, -4),) * 3
    torch.testing.assert_close(thick[inside], fine[::2][inside], atol=0.03, rtol=0)
    assert thick[inside].max() > 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", [0.8])
@pytest.mark.parametrize(("noise_hu", "mean_below", "p99_below"), [(10, 0.002, 0.01), (40, 0.03, 0.1)])
def test_quiet_on_quantum_noise_in_lung(kind, spacing, noise_hu, mean_below, p99_below):
    """Noise correlated as by a soft kernel (0.5 mm) passes the filter more than white noise."""
    white = np.random.default_rng(0).normal(size=(192, 192))
    correlated = ndimage.gaussian_filter(white, 0.5 / spacing)
    noise = torch.from_numpy(noise_hu * correlated / correlated.std())
    structure = StructureOperator(kind)(LUNG_HU + noise, (spacing, spacing))
    assert structure.mean() < mean_below
    assert structure.quantile(0.99) < p99_below
    vessel = StructureOperator(kind)(LUNG_HU + noise + 850 * (line(1.0, 192, 1.4 / spacing) - LUNG_HU), (spacing,) * 2)
    assert vessel[:, 96].median() > 0.9  # the vessel is still there


@pytest.mark.parametrize("kind", KINDS)
def test_monotone_in_contrast_up_to_saturation(kind):
    op = StructureOperator(kind)
    contrasts = [0, 25, 50, 100, 200, 400, 800, 1600]
    centre = torch.stack([op(line(float(c)), (0.7, 0.7))[24, 24] for c in contrasts])
    assert (centre.diff() > 1e-3)[:5].all()
    assert (centre.diff() > -1e-6).all()
    assert centre[0] < 1e-9
    assert centre[-1] > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_crossing_vessel_is_a_disc_that_only_frangi_hollows_out(kind):
    y, x = torch.meshgrid(*[torch.arange(48, dtype=torch.float64) - 24] * 2, indexing="ij")
    disc = LUNG_HU + 800 * torch.exp(-0.5 * (x**2 + y**2) / 2.0**2)
    centre = StructureOperator(kind)(disc, (0.7, 0.7))[24, 24].item()
    assert (centre < 0.2) if kind == "frangi" else (centre > 0.7)


@pytest.mark.parametrize("kind", KINDS)
def test_pleura_is_dark_in_3d_and_a_tube_is_not(kind):
    _, y, x = torch.meshgrid(*[torch.arange(24, dtype=torch.float64) - 12] * 3, indexing="ij")
    plate = LUNG_HU + 800 * torch.exp(-0.5 * x**2 / 1.5**2)
    tube = LUNG_HU + 800 * torch.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    op = StructureOperator(kind, ndim=3)
    at = (12, 12, 12)
    assert op(plate, (0.7,) * 3)[at] < 1e-3
    assert op(tube, (0.7,) * 3)[at] > 0.8


#: k1 = 1: the formula of V_C counts; with the default constants only its gate does.
GRADIENTS = [("vc", 19 / 8), ("vc", 1.0), ("frangi", 19 / 8), ("jerman", 19 / 8)]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("kind", "k1"), GRADIENTS)
def test_gradient_equals_finite_differences(kind, ndim, k1):
    op = StructureOperator(kind, sigma_mm=(0.8, 1.5), ndim=ndim, k1=k1)
    shape = (7, 6) if ndim == 2 else (4, 5, 4)
    image = tissue(ndim, seed=7, shape=shape).requires_grad_()
    spacing = (0.9, 1.1) if ndim == 2 else (1.3, 0.9, 1.1)
    assert torch.autograd.gradcheck(lambda hu: op(hu, spacing), (image,), eps=1e-4, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("kind", "k1"), GRADIENTS)
def test_gradients_are_finite_where_eigenvalues_meet_or_vanish(kind, ndim, k1):
    op = StructureOperator(kind, ndim=ndim, k1=k1)
    shape = (16,) * ndim
    impulse = torch.zeros(shape)
    impulse[(8,) * ndim] = 1
    step = torch.zeros(shape)
    step[..., 8:] = 1
    ramp = torch.arange(16.0).expand(shape)
    for image in (impulse * 0, impulse * 3000, -impulse * 1e-3, step * 1000, step * -1e5, ramp * 30):
        leaf = (LUNG_HU + image).requires_grad_()
        (gradient,) = torch.autograd.grad(op(leaf, (0.7,) * ndim).sum(), leaf)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1  # per HU: a map of height 1 over a contrast of 100 HU is not steeper


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_batch_with_its_own_spacings_equals_item_by_item(kind, channels):
    op = StructureOperator(kind)
    batch = tissue(2, shape=(4, *channels, 36, 40))
    spacings = [(0.7, 0.7), (0.35, 0.5), (1.36, 1.36), (0.7, 0.9)]
    together = op(batch, spacings)
    alone = torch.stack([op(item, spacing) for item, spacing in zip(batch, spacings, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=0)
    assert (together - op(batch, (0.7, 0.7))).abs().max() > 0.1
    torch.testing.assert_close(op(batch, [(0.7, 0.7)] * 4), op(batch, (0.7, 0.7)), atol=0, rtol=0)
    torch.testing.assert_close(op(batch, np.array(spacings)), together, atol=0, rtol=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_autocast_to_bf16_changes_nothing(ndim):
    op = StructureOperator(ndim=ndim)
    image = tissue(ndim, dtype=torch.float32)
    expected = op(image, SPACING[ndim])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(op(image, SPACING[ndim]), expected)


def test_settings_out_of_range_are_refused():
    bad = [("kind", "sato"), ("polarity", "grey"), ("ndim", 1), ("sigma_mm", ()), ("sigma_mm", (0.7, -1.0))]
    for name, value in [*bad, ("contrast_hu", 0.0), ("contrast_hu", float("nan"))]:
        with pytest.raises(UhrctError, match=f"{name}|operator"):
            StructureOperator(**{name: value})


def test_images_and_spacings_that_do_not_fit_are_refused():
    for shape, ndim, spacing in (
        ((8,), 2, (0.7, 0.7)),
        ((0, 8), 2, (0.7, 0.7)),
        ((8, 8), 2, (0.7, 0.7, 0.7)),
        ((8, 8), 2, (0.7, 0.0)),
        ((8, 8), 2, ()),
        ((8, 8), 3, (0.7, 0.7, 0.7)),
        ((8, 8), 2, [(0.7, 0.7)] * 8),
        ((3, 8, 8), 2, [(0.7, 0.7)] * 2),
        ((3, 8, 8), 3, [(0.7, 0.7, 0.7)] * 3),
    ):
        with pytest.raises(UhrctError):
            StructureOperator(ndim=ndim)(torch.zeros(shape), spacing)
    with pytest.raises(UhrctError, match="int16"):
        StructureOperator()(torch.zeros((8, 8), dtype=torch.int16), (0.7, 0.7))
