"""What can be told from differences of voxels, and what must not matter."""

import torch

from uhrct.models.estimator import PIECE, ScanEstimator, _statistics, pieces


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
    estimator = ScanEstimator(outputs=4, width=8)
    for shape in ((1, 1, 1), (1, 2, 9), (1, 3, 3)):
        assert torch.isfinite(estimator(torch.full(shape, -1000.0))).all()
