"""What can be told from differences of voxels, and what must not matter."""

import pytest
import torch

from uhrct.models.estimator import PIECE, ScanEstimator, _quantiles, _statistics, pieces, targets
from uhrct.physics.scan_properties import ScanProperties


def image(seed=0, side=PIECE):
    noise = torch.randn(side, side, generator=torch.Generator().manual_seed(seed))
    return 40 + 20 * noise


def test_statistics_do_not_see_place_or_level():
    hu = image()
    assert torch.allclose(_statistics(hu), _statistics(hu.flip(0)), atol=1e-5)
    assert torch.allclose(_statistics(hu), _statistics(hu + 100), atol=1e-4)


def test_statistics_see_noise_and_its_correlation():
    white = image()
    smooth = (white + white.roll(1, 0) + white.roll(1, 1) + white.roll((1, 1), (0, 1))) / 2 - 40
    quiet = _statistics((white - 40) / 4)
    assert (quiet < _statistics(white)).all()
    # the same deviation, but neighbours differ less beside each other than further away
    near, far = (slice(0, 7), slice(2 * 21, 2 * 21 + 7))
    assert (_statistics(smooth)[near] < _statistics(white)[near]).all()
    assert torch.allclose(_statistics(smooth)[far], _statistics(white)[far], atol=0.05)


def test_air_outside_counts_for_nothing():
    hu = torch.full((PIECE, PIECE), -1000.0)
    hu[:, :48] = image()[:, :48]
    noisy_air = hu.clone()
    noisy_air[:, 48:] -= torch.rand(PIECE, 48, generator=torch.Generator().manual_seed(1)) * 20
    assert torch.equal(_statistics(hu), _statistics(noisy_air))


def test_pieces_lie_on_the_body_and_any_image_has_one():
    hu = torch.full((2, 300, 300), -1000.0)
    hu[:, 100:200, 100:200] = 40
    cut = pieces(hu)
    assert cut.shape[1:] == (PIECE, PIECE)
    assert (cut > -970).flatten(1).float().mean(1).min() >= 0.5
    assert len(pieces(torch.full((1, 300, 300), -1000.0))) > 0
    assert pieces(torch.zeros(1, 5, 7)).shape == (1, 5, 7)


def test_tiny_and_empty_images_are_answered():
    estimator = ScanEstimator(width=8)
    for shape in ((1, 1, 1), (1, 2, 9), (1, 3, 3)):
        assert torch.isfinite(estimator(torch.full(shape, -1000.0))).all()


def test_a_reading_does_not_depend_on_the_order_of_slices() -> None:
    estimator = ScanEstimator(width=8)
    estimator.spread.fill_(1e9)
    slices = torch.stack([image(seed, 30) for seed in range(3)])
    a, b = (vars(estimator.read(s)) for s in (slices, slices.flip(0)))
    assert all(abs(a[name] - b[name]) < 1e-5 for name in a)


def test_a_reading_trusts_the_pieces_that_show_most() -> None:
    """The inverse of `targets`, and the surer of two kinds of pieces counts most."""
    scan = ScanProperties(psf_fwhm=0.9, sharpening=0.2, noise_hu=15.0, noise_correlation=0.4)
    estimator = ScanEstimator(width=8)
    last = estimator.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([*targets(scan), -3.0, -3.0, -3.0, -3.0]))
        estimator.spread.fill_(1e9)
    found = estimator.read(image()[None])
    assert abs(found.psf_fwhm - 0.9) < 1e-5
    assert abs(found.sharpening - 0.2) < 1e-5
    assert abs(found.noise_hu - 15) < 1e-3
    assert abs(found.noise_correlation - 0.4) < 1e-5
    assert abs(found.psf_error - 0.4 * torch.exp(torch.tensor(-3.0))) < 1e-5

    def answers(statistics: torch.Tensor) -> torch.Tensor:
        loud = float(statistics.mean() > 1.4e-9)  # loud pieces say .6 and are sure; the others say 1.0 and are not
        return torch.tensor([[1 - loud, 0.0, 0.0, 0.0, -4.0 * loud, 0.0, 0.0, 0.0]])

    del estimator.layers
    estimator.layers = answers
    both = torch.stack([image(), 5 * image(1)])
    assert abs(estimator.read(both).psf_fwhm - 0.6) < 1e-3


def test_nothing_is_read_where_most_pieces_look_unfamiliar() -> None:
    estimator = ScanEstimator(width=8)
    estimator.centre.fill_(50.0)
    assert estimator.read(image()[None]) is None


@pytest.mark.parametrize("n", [1, 2, 1001])
def test_quantiles_are_those_of_torch(n):
    values, q = torch.randn(n, generator=torch.Generator().manual_seed(n)), torch.tensor([0.0, 0.1, 0.5, 0.99, 1.0])
    torch.testing.assert_close(_quantiles(values, q), torch.quantile(values, q))
