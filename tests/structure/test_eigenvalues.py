"""The closed forms equal LAPACK, and have finite gradients where plain formulas divide zero by zero."""

import itertools

import pytest
import torch

from uhrct.structure.eigenvalues import EPSILON, eigenvalues_2x2, eigenvalues_3x3


def random_symmetric(n, dim, seed=0, scale=100.0):
    g = torch.Generator().manual_seed(seed)
    a = scale * torch.randn(n, dim, dim, generator=g, dtype=torch.float64)
    return (a + a.mT) / 2


def closed_form(h):
    if h.shape[-1] == 2:
        return torch.stack(eigenvalues_2x2(h[..., 0, 0], h[..., 0, 1], h[..., 1, 1]), -1)
    parts = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    return torch.stack(eigenvalues_3x3(*[h[..., i, j] for i, j in parts]), -1)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(("dtype", "tolerance_hu"), [(torch.float64, 3 * EPSILON), (torch.float32, 0.05)])
def test_equals_lapack_in_ascending_order(dim, dtype, tolerance_hu):
    h = random_symmetric(2000, dim)
    ours = closed_form(h.to(dtype)).double()
    assert (ours - torch.linalg.eigvalsh(h)).abs().max() < tolerance_hu


@pytest.mark.parametrize("turned", [False, True])
def test_repeated_eigenvalues_are_right_and_their_gradients_finite(turned):
    q = torch.linalg.qr(random_symmetric(1, 3, seed=5)[0]).Q if turned else torch.eye(3, dtype=torch.float64)
    expected = torch.tensor([*itertools.product([-200.0, 0.0, 200.0], repeat=3)], dtype=torch.float64)
    h = (q @ torch.diag_embed(expected) @ q.T).float().requires_grad_()
    ours = closed_form(h)
    torch.testing.assert_close(ours.detach(), expected.sort(-1).values.float(), atol=0.2, rtol=0)
    for value in ours.unbind(-1):
        (gradient,) = torch.autograd.grad(value.sum(), h, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 3  # the gradient of an eigenvalue is the projection v vᵀ


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_gradients_stay_finite_for_every_strength_of_a_round_vessel():
    strength = torch.linspace(1, 2000, 5000)  # rounding puts some of them where the slope of acos is infinite
    h = torch.diag_embed(torch.stack([strength, strength, 0 * strength], -1)).requires_grad_()
    with torch.autograd.detect_anomaly():  # no NaN in between, even where the loss does not use it
        (gradient,) = torch.autograd.grad((closed_form(h)[:, 2] * (strength > 1000)).sum(), h)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 3


@pytest.mark.parametrize("dim", [2, 3])
def test_zero_matrix_gives_exactly_zero_with_finite_gradient(dim):
    h = torch.zeros(dim, dim, requires_grad=True)
    ours = closed_form(h)
    assert (ours == 0).all()
    ours.square().sum().backward()
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("dim", [2, 3])
def test_gradient_equals_that_of_lapack(dim):
    h = random_symmetric(50, dim, seed=3)
    weights = torch.arange(1.0, dim + 1, dtype=torch.float64)
    gradients = []
    for function in (closed_form, torch.linalg.eigvalsh):
        leaf = h.clone().requires_grad_()
        (function((leaf + leaf.mT) / 2) * weights).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
