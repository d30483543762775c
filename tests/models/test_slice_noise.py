import torch

from uhrct.models.slice_noise import INDEPENDENT, SliceNoise, fine_slices_noise


def stack(noise, slices, step=0):
    return torch.stack([noise(z, step) for z in slices])


def test_noise_is_standard_normal_and_white_in_plane():
    n = stack(SliceNoise(3, 0, (4, 64, 64), 0.8), range(0, 60, 12))
    assert abs(float(n.mean())) < 0.02
    assert abs(float(n.std()) - 1) < 0.02
    assert abs(float((n[..., 1:] * n[..., :-1]).mean())) < 0.02


def test_neighbouring_slices_share_noise_and_far_ones_do_not():
    a = SliceNoise(0, 0, (1, 128, 128), 0.8)
    n0, n1, n12 = a(0, 0), a(1, 0), a(12, 0)
    assert float((n0 * n1).mean()) > 0.8
    assert abs(float((n0 * n12).mean())) < 0.05
    thick = SliceNoise(0, 0, (1, 128, 128), 10.0)
    assert abs(float((thick(0, 0) * thick(1, 0)).mean())) < 0.05


def test_any_order_and_part_gives_the_same_noise():
    forward = stack(SliceNoise(5, 1, (2, 16, 16), 1.0), range(8))
    part = stack(SliceNoise(5, 1, (2, 16, 16), 1.0), [6, 3, 7, 0])
    assert torch.equal(part, forward[[6, 3, 7, 0]])


def test_seed_sample_and_step_each_change_it():
    base = SliceNoise(0, 0, (1, 32, 32), 1.0)(0, 0)
    for other in (SliceNoise(1, 0, (1, 32, 32), 1.0)(0, 0), SliceNoise(0, 1, (1, 32, 32), 1.0)(0, 0)):
        assert abs(float((base * other).mean())) < 0.1
    assert abs(float((base * SliceNoise(0, 0, (1, 32, 32), 1.0)(0, 1)).mean())) < 0.1


def test_memory_does_not_grow_with_steps_or_slices():
    noise = SliceNoise(0, 0, (1, 4, 4), 0.8)
    seen = [noise(z, step) for z in range(20) for step in range(30)]
    assert len(noise._white) <= 2 * len(noise.weight)
    fresh = SliceNoise(0, 0, (1, 4, 4), 0.8)
    assert torch.equal(seen[7 * 30 + 29], fresh(7, 29))
    assert torch.equal(seen[7 * 30], fresh(7, 0))


def test_training_draws_the_noise_that_sampling_draws():
    """Standard normal, and between fine slices as alike as those of SliceNoise at the same spacing."""
    for spacing in (0.4, 1.0, 5.0):
        n = fine_slices_noise((3, 5, 128, 128), [spacing] * 3, torch.Generator().manual_seed(0))
        sampled = stack(SliceNoise(0, 0, (1, 256, 256), spacing, thick=True), range(5))
        assert abs(float(n.std()) - 1) < 0.02
        for lag in (1, 3):
            alike = float((n[:, lag:] * n[:, :-lag]).mean())
            assert abs(alike - float((sampled[lag:] * sampled[:-lag]).mean())) < 0.03
    mixed = fine_slices_noise((2, 5, 64, 64), [0.4, 5.0], torch.Generator().manual_seed(0))
    assert float((mixed[0, 1:] * mixed[0, :-1]).mean()) > 0.9 * (1 - INDEPENDENT)
    assert abs(float((mixed[1, 1:] * mixed[1, :-1]).mean())) < 0.05


def test_noise_of_thick_slices_has_power_at_every_frequency_along_z():
    """Frequencies without noise would show the truth in training, and nothing when a sample is drawn."""
    n = fine_slices_noise((1, 5, 256, 256), [0.5], torch.Generator().manual_seed(0))[0].flatten(1)
    smallest = torch.linalg.eigvalsh(n @ n.T / n.shape[1])[0]
    assert abs(float(smallest) - INDEPENDENT) < 0.1
