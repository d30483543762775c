"""Closed values of the three formulas at ideal shapes, as in the papers."""

import math

import pytest
import torch

from uhrct.structure.vesselness import frangi, gate, jerman, v_c, v_c_ungated

L = 5000.0  # HU: far above the gate and the regularisation terms
C = 100.0


def lambdas(*values):
    return [torch.tensor(v, dtype=torch.float64) for v in values]


@pytest.mark.parametrize(("k1", "k2"), [(19 / 8, 7.0), (1.0, 1.0), (0.5, 3.0)])
def test_v_c_of_line_and_blob_has_the_closed_values(k1, k2):
    line, blob = lambdas(0.0, L), lambdas(L, L)
    assert v_c_ungated(*line, k1=k1, k2=k2).item() == pytest.approx((k2 + 1) / 8, rel=1e-6)
    assert v_c_ungated(*blob, k1=k1, k2=k2).item() == pytest.approx((k1 + 1) * (k2 + 1) / 27, rel=1e-6)


def test_v_c_does_not_see_contrast_before_the_gate():
    ratio = torch.linspace(0, 1, 11, dtype=torch.float64)
    low, high = (v_c_ungated(ratio * l, torch.tensor(l).double(), k1=19 / 8, k2=7.0) for l in (300.0, 3000.0))
    torch.testing.assert_close(low, high, atol=0.02, rtol=0)


def test_v_c_between_line_and_blob_never_falls_below_them_and_peaks_where_documented():
    l2 = torch.full((201,), L, dtype=torch.float64)
    v = v_c_ungated(torch.linspace(0, 1, 201).double() * L, l2, k1=19 / 8, k2=7.0)
    assert v.min() > 1 - 1e-3
    assert v.max().item() == pytest.approx(1.23, abs=0.005)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((0.0, L), 1.0),  # line
        ((L, L), 1.0),  # disc
        ((-L, L), 1.0),  # saddle: rectified to a line
        ((-L, 0.0), 0.0),  # dark line
        ((-L, -L), 0.0),  # dark disc
        ((0.0, 0.0), 0.0),  # nothing
        ((0.0, 0.0, L), 0.0),  # 3D: plate
        ((0.0, L, L), 1.0),  # tube
        ((L, L, L), 1.0),  # ball
        ((-L, L, L), 1.0),  # 3D saddle: rectified to a tube
        ((-L, -L, L), 0.0),  # two wrong signs: no more than a plate
    ],
)
def test_v_c_of_ideal_shapes(shape, expected):
    assert v_c(lambdas(*shape), c=C, k1=19 / 8, k2=7.0).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("k1", "k2"), [(19 / 8, 7.0), (1.0, 7.0), (1.0, 9.0), (19 / 8, 3.0)])
def test_v_c_is_the_cut_formula_times_the_gate(k1, k2):
    g = torch.Generator().manual_seed(0)
    values = (100 * torch.randn(3000, 2, generator=g, dtype=torch.float64)).sort(-1).values.requires_grad_()
    l1, l2 = (torch.relu(l) for l in values.unbind(-1))
    long = v_c_ungated(l1, l2, k1=k1, k2=k2).clamp(max=1) * gate(l1**2 + l2**2, C)
    ours = v_c(list(values.unbind(-1)), c=C, k1=k1, k2=k2)
    torch.testing.assert_close(ours, long, atol=1e-4, rtol=0)
    gradients = [torch.autograd.grad(v.sum(), values)[0] for v in (ours, long)]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=0)


def test_shape_counts_in_v_c_once_its_constants_say_so():
    line, blob = (v_c(lambdas(*shape), c=C, k1=1.0, k2=7.0).item() for shape in ((0.0, L), (L, L)))
    assert (line, blob) == pytest.approx((1.0, 16 / 27), abs=1e-3)


BLOB_2D = math.exp(-1 / (2 * 0.5**2))
TUBE = 1 - math.exp(-1 / (2 * 0.5**2))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((0.0, L), 1.0),
        ((L, L), BLOB_2D),
        ((-L / 2, L), math.exp(-0.25 / 0.5)),  # a saddle whose larger eigenvalue has the right sign counts
        ((-4 * L, L), 0.0),
        ((-L, -L), 0.0),
        ((0.0, 0.0), 0.0),
        ((0.0, 0.0, L), 0.0),
        ((0.0, L, L), TUBE),
        ((L, L, L), TUBE * BLOB_2D),
        ((0.0, L / 2, L), 1 - math.exp(-0.25 / 0.5)),
        ((-L, -L, L), 0.0),
    ],
)
def test_frangi_of_ideal_shapes_is_the_papers(shape, expected):
    assert frangi(lambdas(*shape), c=C, alpha=0.5, beta=0.5).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("strength_hu", [0.1, 3.0, L])
def test_frangi_of_the_wrong_sign_is_next_to_nothing_however_weak(strength_hu):
    for shape in ((-strength_hu, 0.0), (-strength_hu, -strength_hu / 2), (-strength_hu, -strength_hu, 0.0)):
        assert frangi(lambdas(*shape), c=C, alpha=0.5, beta=0.5).item() < 1e-5


@pytest.mark.parametrize("dim", [2, 3])
def test_frangi_equals_the_paper_wherever_the_paper_is_not_zero(dim):
    g = torch.Generator().manual_seed(0)
    values = (300 * torch.randn(4000, dim, generator=g, dtype=torch.float64)).sort(-1).values
    by_size = values.gather(-1, values.abs().argsort(-1))  # |l1| <= |l2| (<= |l3|); here positive = structure
    l1, cross = by_size[:, 0], by_size[:, 1:]
    r_b2 = l1**2 / (cross[:, 0] * cross[:, -1]).abs()
    paper = torch.exp(-r_b2 / (2 * 0.5**2)) * -torch.expm1(-values.square().sum(-1) / (2 * C**2))
    if dim == 3:
        paper = paper * -torch.expm1(-((cross[:, 0] / cross[:, 1]) ** 2) / (2 * 0.5**2))
    present = (cross > 20).all(-1)  # ours is regularised at a few HU
    ours = frangi(list(values.unbind(-1)), c=C, alpha=0.5, beta=0.5)
    assert present.sum() > 400
    torch.testing.assert_close(ours[present], paper[present], atol=0.01, rtol=0)
    absent = (cross < 0).any(-1)
    assert ours[absent].max() < {2: 0.136, 3: 0.156}[dim]  # no jump: see the docstring


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((0.0, L), 1.0),
        ((L, L), 1.0),
        ((-L, -L), 0.0),
        ((0.0, 0.0, L), 0.0),
        ((0.0, L, L), 1.0),
        ((L, L, L), 1.0),
    ],
)
def test_jerman_of_ideal_shapes(shape, expected):
    assert jerman(lambdas(*shape), floor=600.0).item() == pytest.approx(expected, abs=1e-6)


def test_jerman_is_the_papers_formula_on_a_flattened_tube():
    l2, l3 = 120.0, 900.0
    paper = l2**2 * (l3 - l2) * (3 / (l2 + l3)) ** 3
    assert jerman(lambdas(0.0, l2, l3), floor=600.0).item() == pytest.approx(paper, rel=1e-9)
    weak = l2**2 * (600 - l2) * (3 / (l2 + 600)) ** 3  # below the floor, the floor replaces l3
    assert jerman(lambdas(0.0, l2, l2), floor=600.0).item() == pytest.approx(weak, rel=1e-9)


def test_half_height_of_all_three_on_a_line_is_near_one_contrast():
    line = lambdas(0.0, 1.18 * C)
    values = [
        v_c(line, c=C, k1=19 / 8, k2=7.0),
        frangi(line, c=C, alpha=0.5, beta=0.5),
        jerman(line, floor=6 * C),
    ]
    assert [v.item() for v in values] == pytest.approx([0.5] * 3, abs=0.02)


def test_gate_is_accurate_where_one_minus_exp_would_round_to_zero():
    assert gate(torch.tensor(1e-6), C).item() == pytest.approx(5e-11, rel=1e-4)
