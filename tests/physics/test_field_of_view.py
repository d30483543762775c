"""What counts as outside the field of view, and how tissue goes on there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uhrct.physics.field_of_view import continued, outside_view

N = 96


def radius(n: int = N) -> Tensor:
    axis = torch.arange(n) - (n - 1) / 2
    return torch.hypot(axis[:, None], axis)


def scan(inside_hu: float, fill_hu: float, circle: float = N / 2, sd_hu: float = 10.0) -> Tensor:
    noisy = inside_hu + sd_hu * torch.randn(N, N, generator=torch.Generator().manual_seed(0))
    return torch.where(radius() <= circle, noisy, torch.tensor(fill_hu))[None]


@pytest.mark.parametrize("fill_hu", [-1024.0, -2000.0, -3024.0])
@pytest.mark.parametrize("inside_hu", [40.0, -990.0])
@pytest.mark.parametrize("circle", [N / 2, 0.6 * N])
def test_a_constant_outside_a_circle_is_outside(fill_hu: float, inside_hu: float, circle: float) -> None:
    assert torch.equal(outside_view(scan(inside_hu, fill_hu, circle))[0], radius() > circle)


def test_the_circle_may_lie_beside_the_middle() -> None:
    axis = torch.arange(N) - (N - 1) / 2
    away = torch.hypot(axis[:, None] - 6, axis + 9)
    image = torch.where(away <= 0.52 * N, scan(40.0, -1024.0, circle=N), torch.tensor(-1024.0))
    assert torch.equal(outside_view(image)[0], away > 0.52 * N)


def test_air_around_a_phantom_is_inside() -> None:
    """Its constant air ends at the skin, which is no circle; the voxels beside the skin are part of the image."""
    y, x = torch.meshgrid(torch.arange(N) - (N - 1) / 2, torch.arange(N) - (N - 1) / 2, indexing="ij")
    body = torch.hypot(y / 0.7, x) < 0.47 * N
    for air_hu in (-1000.0, -1024.0):
        assert not outside_view(torch.where(body, 40.0, air_hu)[None]).any()
        assert not outside_view(torch.where(radius() < 0.3 * N, 40.0, air_hu)[None]).any()
        assert not outside_view(torch.full((1, N, N + 2), air_hu)).any()


def test_tissue_goes_on_where_the_view_cuts_the_patient() -> None:
    image = scan(40.0, -1024.0)
    outside = outside_view(image)
    out = continued(image, outside)
    assert torch.equal(out[~outside], image[~outside])
    near = outside[0] & (radius() < N / 2 + 8)
    assert (out[0][near] - 40).abs().max() < 40


def test_air_goes_on_as_air() -> None:
    image = scan(-990.0, -3024.0)
    outside = outside_view(image)
    assert (continued(image, outside)[outside] == -1024).all()
