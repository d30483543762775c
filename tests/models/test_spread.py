"""The residual that is diffused is divided by how far the truth may lie from the mean at its place."""

from __future__ import annotations

import torch

from uhrct.models.model import Model, ModelConfig
from uhrct.models.spread import LEAST_HU, MOST_HU, fitted, local_sd_hu, signs
from uhrct.physics.scan_properties import ScanProperties, kept_noise_hu

NETWORK = {"image_width": 8, "image_blocks": 1, "structure_width": 0}


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(mean, interpolation, noise that is kept) of two items: even on the left, full of edges on the right."""
    g = torch.Generator().manual_seed(0)
    mean = torch.zeros(2, 1, 96, 96)
    mean[..., 48:] = 200 * torch.randn(2, 1, 96, 48, generator=g)
    return mean, 0.7 * mean, torch.tensor([0.0, 20.0])[:, None, None, None]


def test_a_fit_gives_the_residual_unit_variance_everywhere() -> None:
    mean, up, kept = scene()
    truth = torch.where(torch.arange(96) < 48, 3.0, 60.0).expand_as(mean)
    error = truth * torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    c = tuple(fitted(signs(mean, up, 0 * kept).flatten(0, -2), error.flatten()))
    normal = error / local_sd_hu(mean, up, 0 * kept, c)
    for part in (normal[..., 8:40], normal[..., 56:88]):
        assert 0.9 < part.square().mean().sqrt() < 1.1


def test_an_item_does_not_depend_on_its_batch_and_bounds_hold() -> None:
    mean, up, kept = scene()
    c = (0.3, 0.2, 0.4, 1.0)
    both = local_sd_hu(mean, up, kept, c)
    alone = local_sd_hu(mean[1:], up[1:], kept[1:], c)
    assert torch.equal(both[1:], alone)
    assert (both[1] > local_sd_hu(mean, up, 0 * kept, c)[1]).all()  # noise that is kept spreads the truth
    assert local_sd_hu(mean, up, kept, (0.0, 0.0, 0.0, -9.0)).min() == LEAST_HU
    assert local_sd_hu(mean, up, kept, (9.0, 9.0, 0.0, 9.0)).max() == MOST_HU


def test_a_sample_is_around_the_mean_in_units_of_the_spread() -> None:
    """Twice the spread, twice the distance; and noise that is not known is not counted."""
    config = {"mean": NETWORK, "denoiser": NETWORK, "properties": True}
    lr = torch.full((1, 1, 12, 12), 40.0)
    scan = ScanProperties(noise_hu=20.0, denoise=0.0)
    away = []
    for spread in ((0.0, 0.0, 0.0, 2.0), (0.0, 0.0, 0.0, 2.0 + torch.log(torch.tensor(2.0)).item())):
        torch.manual_seed(0)
        model = Model(ModelConfig.model_validate(config | {"sample_spread": spread})).eval()
        f = model.features(lr, (0.7, 0.7), scan)
        with torch.no_grad():
            mean = model.mean_hu(f)[0]
            sample = model.sample_hu(f, mean, (0.7, 0.7), lambda k: torch.ones(1, 4, 12, 12))
        away.append(sample - mean)
    assert torch.allclose(away[1], 2 * away[0], atol=1e-3)
    unknown = torch.tensor([ScanProperties(noise_hu=20.0, noise_known=False).conditions()])
    assert kept_noise_hu(unknown).item() == 0
