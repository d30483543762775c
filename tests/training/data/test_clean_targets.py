import numpy as np
import pytest
import torch

from uhrct.core.errors import UhrctError
from uhrct.physics.kernels import Kernel, apply_kernel
from uhrct.physics.noise import add_noise, directional_noise_map
from uhrct.training.data.clean_targets import (
    by_network,
    clean_corpus,
    clean_slice,
    non_local_means,
    return_structures,
    scan_sigmas,
)
from uhrct.training.data.recorrupted import NoisySlice, noisy_slice, train_slice_denoiser

SPACING = (0.7, 0.7)
KERNEL = Kernel(4.2, 7.2)
SIGMA_HU = 15.0
VESSELS = [(y, x) for y in range(60, 141, 16) for x in range(112, 161, 16)]


def known(contrast_hu: float) -> np.ndarray:
    """Organ on the left, lung with 1 mm vessels across the slice on the right; drawn on quarter pixels."""
    n = 200 * 4
    y, x = np.mgrid[:n, :n] / 4
    fine = np.where(np.hypot(y - 100, x - 100) < 92, 50.0, -1000.0)
    fine[(np.abs(y - 100) < 60) & (np.abs(x - 136) < 38)] = -850
    for cy, cx in VESSELS:
        fine[np.hypot(y - cy, x - cx) < 0.5 / SPACING[0]] = -850 + contrast_hu
    seen = apply_kernel(torch.from_numpy(fine), (SPACING[0] / 4, SPACING[1] / 4), KERNEL)
    return seen.reshape(200, 4, 200, 4).mean((1, 3)).numpy()


def noisy(clean: np.ndarray, seed: int = 0, sigma_hu: float = SIGMA_HU) -> np.ndarray:
    hu = torch.from_numpy(clean).float()
    return add_noise(hu, SPACING, sigma_hu, KERNEL, torch.Generator().manual_seed(seed)).numpy()


def contrast_kept(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    out = []
    for cy, cx in VESSELS:
        cell = (slice(cy - 6, cy + 7), slice(cx - 6, cx + 7))
        vessel = clean[cell] - clean[cell].mean()
        out.append((image[cell] * vessel).sum() / (vessel**2).sum())
    return np.array(out)


ORGAN = (slice(60, 140), slice(30, 80))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The network and the images are small: a second thread costs more than it does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network():
    """A few steps on noisy slices alone, no clean one among them."""
    clean = known(600)
    slices = [noisy_slice(noisy(clean, seed), SPACING) for seed in range(2)]
    return train_slice_denoiser([s for s in slices if s is not None], steps=24)


@pytest.mark.parametrize(("contrast_hu", "sigma_hu"), [(600.0, 20.0), (150.0, 10.0)])
def test_vessels_edges_and_level_survive_and_noise_does_not(contrast_hu, sigma_hu):
    clean = known(contrast_hu)
    image = noisy(clean, sigma_hu=sigma_hu)
    found = clean_slice(image, SPACING, sigma_hu)
    kept = contrast_kept(found, clean)
    assert kept.mean() > 0.8
    assert kept.min() > 0.2
    left = (found - clean)[ORGAN]
    assert abs(left.mean()) < 1
    assert left.std() < 0.5 * (image - clean)[ORGAN].std()
    steep = np.hypot(*np.gradient(clean))
    edges = steep > np.quantile(steep, 0.97)
    assert np.hypot(*np.gradient(found))[edges].mean() > 0.95 * steep[edges].mean()


def test_returned_structures_bring_faint_vessels_back():
    clean = known(150)
    image = noisy(clean)
    sigma = np.full(image.shape, SIGMA_HU, np.float32)
    alone = non_local_means(image, sigma)
    back = return_structures(image, alone, sigma, SPACING)
    assert contrast_kept(back, clean).mean() > contrast_kept(alone, clean).mean() + 0.05


def test_nothing_taken_away_returns_nothing():
    image = noisy(known(600))
    assert np.array_equal(return_structures(image, image, np.ones_like(image), SPACING), image)


def test_padding_stays_and_metal_survives():
    image = noisy(known(600))
    image[:, :6] = -3024
    image[90:94, 40:44] = 3000
    found = clean_slice(image, SPACING, SIGMA_HU)
    assert (found[:, :6] == -3024).all()
    assert found[91, 41] > 2700
    assert found[100:120, 8:12].mean() == pytest.approx(image[100:120, 8:12].mean(), abs=5)


def test_no_noise_nothing_done():
    clean = known(600).astype(np.float32)
    assert np.array_equal(clean_slice(clean, SPACING, 0.0), clean)


def test_learned_from_noisy_slices_alone_it_takes_noise_away(network):
    clean = known(600)
    image = noisy(clean, seed=9)
    found = clean_slice(image, SPACING, SIGMA_HU, by_network(network))
    left, before = ((i - clean)[ORGAN] for i in (found, image))
    assert left.std() < 0.9 * before.std()
    assert abs(left.mean()) < 1.5
    assert contrast_kept(found, clean).mean() > 0.8


def test_share_of_a_learned_denoiser(network):
    image, sigma = noisy(known(600), seed=9), np.full((200, 200), SIGMA_HU)
    whole, half = by_network(network)(image, sigma), by_network(network, 0.5)(image, sigma)
    assert np.allclose(half, (whole + image) / 2, atol=1e-3)


def test_phantoms_with_a_truth_can_teach_too():
    clean = known(600)
    directional = directional_noise_map(clean, SPACING)
    hu = torch.from_numpy(clean).float()
    network = train_slice_denoiser([NoisySlice(hu, SPACING, SIGMA_HU, KERNEL, directional, clean=hu)], steps=1)
    assert torch.isfinite(network.clean(hu, torch.full_like(hu, 10.0))).all()


def test_training_needs_slices():
    with pytest.raises(UhrctError, match="empty"):
        train_slice_denoiser([])
    assert noisy_slice(np.full((64, 64), -1000.0), SPACING) is None


def test_a_slice_without_even_tissue_takes_the_noise_of_its_scan():
    hu = np.stack([noisy(known(600), 1), np.full((200, 200), -1000.0), noisy(known(600), 2)])
    sigmas = scan_sigmas(hu, SPACING)
    assert sigmas[1] == pytest.approx(np.median([sigmas[0], sigmas[2]]))
    assert np.isnan(scan_sigmas(hu[1:2], SPACING)).all()


def test_corpus_is_cached_by_voxels_and_settings(tmp_path):
    hu = np.rint(noisy(known(600))).astype(np.int16)[None]
    calls = []

    def denoise(image, sigma):
        calls.append(1)
        return np.zeros_like(image) + 7

    def run(voxels, settings="seven"):
        return list(clean_corpus([("a", voxels, SPACING)], tmp_path / "cache", denoise, settings=settings, quiet=True))

    [first], [again] = run(hu), run(hu)
    assert len(calls) == 1
    assert first == again
    assert first.load().dtype == np.int16
    assert first.load().shape == hu.shape
    assert first.sigma_hu[0] == pytest.approx(SIGMA_HU, rel=0.15)
    assert first.left_out == ()
    run(hu, "other")
    run(hu + 1)
    assert len(calls) == 3


def test_slices_whose_noise_is_unknown_stay_and_are_named(tmp_path):
    air = np.full((2, 64, 64), -1000, np.int16)
    [target] = clean_corpus([("air", air, SPACING)], tmp_path, quiet=True)
    assert target.left_out == (0, 1)
    assert (target.load() == air).all()
