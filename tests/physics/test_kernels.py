import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.physics.kernel_names import GE, PHILIPS, SIEMENS, TOSHIBA, named_kernel
from uhrct.physics.kernels import Kernel, apply_kernel, draw_kernel

SOFT, STANDARD, LUNG = Kernel(2.8, 4.8), Kernel(4.2, 7.2), Kernel(7.5, 9.45, 0.41)
SPACING = (0.7, 0.7)


def drawn(count=200):
    g = torch.Generator().manual_seed(3)
    return [draw_kernel(g) for _ in range(count)]


@pytest.mark.parametrize("kernel", [SOFT, STANDARD, LUNG, Kernel(5.0, 9.0), Kernel(10.0, 11.5, 1.0)], ids=str)
def test_curve_passes_through_its_points(kernel):
    f = np.array([0.0, kernel.mtf50_lp_cm, kernel.mtf10_lp_cm])
    assert np.allclose(kernel.mtf(f), [1, 0.5, 0.1], atol=1e-6)
    peak = kernel.mtf(np.linspace(0, kernel.mtf10_lp_cm, 2000)).max()
    assert peak == pytest.approx(1 + kernel.overshoot, abs=0.01)


def test_curve_is_like_the_measured_one_of_b70():
    """Siemens B70, Ohkubo et al. 2009: a curve with strong overshoot."""
    measured = {1: 1.092, 2: 1.246, 3: 1.382, 4: 1.415, 5: 1.331, 6: 1.07, 8: 0.338, 9: 0.146}
    f = np.array(list(measured), float)
    assert np.abs(LUNG.mtf(f) - np.array(list(measured.values()))).max() < 0.08


def test_torch_and_numpy_agree():
    f = np.linspace(0, 12, 50)
    assert np.allclose(LUNG.mtf(f), LUNG.mtf(torch.from_numpy(f)).numpy())


@pytest.mark.parametrize("numbers", [(0.0, 5.0, 0.0), (5.0, 5.2, 0.0), (5.0, 20.0, 0.0), (5.0, 8.0, -0.1)])
def test_numbers_that_make_no_curve_are_refused(numbers):
    with pytest.raises(UhrctError):
        Kernel(*numbers)


def test_drawn_kernels_range_from_soft_to_sharp():
    kernels = drawn()
    mtf50 = [k.mtf50_lp_cm for k in kernels]
    assert min(mtf50) < 2.6
    assert max(mtf50) > 8
    assert 0.2 < np.mean([k.overshoot > 0 for k in kernels]) < 0.8
    assert np.corrcoef(mtf50, [k.overshoot for k in kernels])[0, 1] > 0.3


@pytest.mark.parametrize("spacing_mm", [0.5, 1.0])
def test_a_wave_keeps_the_contrast_that_the_mtf_says(spacing_mm):
    """The same line pairs per cm lose the same contrast at every pixel size."""
    lp_cm = 4.0
    x = torch.arange(200) * spacing_mm
    wave = torch.cos(2 * torch.pi * lp_cm / 10 * x).expand(60, -1).double()
    seen = apply_kernel(wave, (spacing_mm, spacing_mm), STANDARD)
    middle = (slice(20, -20), slice(40, -40))
    contrast = seen[middle].std() / wave[middle].std()
    assert float(contrast) == pytest.approx(float(STANDARD.mtf(np.array(lp_cm))), abs=0.01)


def test_filtering_keeps_constants_and_commutes_with_transposition():
    image = torch.randn(30, 41, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(apply_kernel(torch.full((30, 41), -800.0), SPACING, LUNG), torch.tensor(-800.0), atol=1e-2)
    assert torch.allclose(apply_kernel(image.T, SPACING, SOFT), apply_kernel(image, SPACING, SOFT).T, atol=1e-10)


def test_an_edge_overshoots_with_an_enhancing_kernel_alone():
    edge = torch.zeros(40, 80).double()
    edge[:, 40:] = 1000
    assert apply_kernel(edge, SPACING, SOFT).max() < 1000 * 1.01
    assert apply_kernel(edge, SPACING, LUNG).max() > 1000 * 1.08


@pytest.mark.parametrize(
    ("manufacturer", "name", "mtf50"),
    [
        ("SIEMENS", "B30f", 3.5),
        ("SIEMENS", "59 .21.B50s", 6.3),
        ("SIEMENS", "59 .10.AB50", 4.0),
        ("Siemens Healthineers", ["Br40s", "3"], 4.2),
        (None, "B45f", 5.6),
        ("GE MEDICAL SYSTEMS", "STANDARD", 4.2),
        ("GE MEDICAL SYSTEMS", "Bone Plus", 9.0),
        ("Philips", "Standard (B)", 3.4),
        ("Philips", "YB", 6.9),
        ("TOSHIBA", "FC51", 6.2),
        ("Canon Medical Systems", "FC08-H", 4.3),
    ],
)
def test_header_names(manufacturer, name, mtf50):
    assert named_kernel(manufacturer, name).kernel.mtf50_lp_cm == mtf50


@pytest.mark.parametrize(
    "header",
    [
        (None, None),
        ("SIEMENS", None),
        ("SIEMENS", "?"),
        ("Philips", "IMR1"),
        (None, "B"),
        ("Hitachi", "11"),
        ("GE", ""),
    ],
)
def test_what_is_not_known_is_unknown(header):
    assert named_kernel(*header) is None


def test_numbers_between_listed_kernels_are_interpolated():
    between = named_kernel("SIEMENS", "B35f")
    assert between.source == "I"
    assert SIEMENS[31][0] < between.kernel.mtf50_lp_cm < SIEMENS[40][0]
    ordered = [named_kernel("SIEMENS", f"Br{n}").kernel.mtf50_lp_cm for n in (36, 40, 44, 59)]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("table", [SIEMENS, GE, PHILIPS, TOSHIBA])
def test_every_row_is_a_kernel_with_a_source(table):
    for mtf50, mtf10, overshoot, source in table.values():
        Kernel(mtf50, mtf10, overshoot)
        assert source in "OFNSEI"
