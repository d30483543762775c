"""Methods of the benchmark with weights: restored slices, seeds, and cost on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from uhrct.benchmark.complexity import complexity
from uhrct.benchmark.config import Method
from uhrct.benchmark.methods import prepare
from uhrct.benchmark.peers.model import PeerConfig, PeerModel
from uhrct.core.errors import UhrctError
from uhrct.evaluation.protocol import CONTEXT
from uhrct.models.model import Model
from uhrct.physics.acquisition import Acquisition


@pytest.mark.parametrize("scale", [(1, 2, 2), (3, 1, 1)])
def test_slices_of_a_slab_are_restored_as_each_alone(tiny_model: Model, tmp_path: Path, scale: Any) -> None:
    lr, spacing = 50 * torch.randn(3 + 2 * CONTEXT, 12, 10, generator=torch.Generator().manual_seed(0)), (1.0, 1.0, 1.0)
    torch.manual_seed(0)
    PeerModel(PeerConfig(peer={"architecture": "srcnn", "middle": 1})).save_pretrained(tmp_path / "peer")
    tiny_model.save_pretrained(tmp_path / "ours")
    methods = [Method("bicubic", kind="bicubic"), Method("projection", kind="projection")]
    if scale == (1, 2, 2):
        learned = [Method(name, weights=str(tmp_path / name)) for name in ("peer", "ours")]
        methods += [Method("Lanczos", kind="lanczos"), *learned]
    for method in methods:
        restore = prepare(method, "", scale, torch.device("cpu"), (12, 10)).restore(Acquisition(scale))
        slab = restore(lr, spacing)
        assert slab.shape == (3 * scale[0], 12 * scale[1], 10 * scale[2]), method.name
        alone = torch.cat([restore(lr[k : k + 1 + 2 * CONTEXT], spacing) for k in range(3)])
        assert torch.allclose(slab, alone, atol=0.5), method.name
        assert not torch.allclose(slab[:-1], slab[1:], atol=5.0), method.name
        if scale[0] == 1:  # in plane none of these looks at neighbours
            elsewhere = lr.clone()
            elsewhere[:CONTEXT] += 100
            elsewhere[-CONTEXT:] += 100
            assert torch.allclose(restore(elsewhere, spacing), slab, atol=0.5), method.name


def test_weights_of_another_scale_are_refused(tmp_path: Path) -> None:
    peer = {"architecture": "srcnn", "middle": 1}
    PeerModel(PeerConfig(peer=peer)).save_pretrained(tmp_path / "peer-x2")
    with pytest.raises(UhrctError, match="protocol x4"):
        prepare(Method("peer", weights=str(tmp_path / "peer-x2")), "x4", (1, 4, 4), torch.device("cpu"), (16, 16))


def test_samples_of_a_peer_follow_the_seed(tmp_path: Path) -> None:
    sizes = {"width": 8, "multipliers": [1, 2], "window": 4, "steps": 2, "attend_from": 1}
    PeerModel(PeerConfig(peer={"architecture": "resshift", **sizes})).save_pretrained(tmp_path)
    lr, spacing = torch.randn(5, 8, 8), (1.0, 1.0, 1.0)

    def sample(seed: int) -> torch.Tensor:
        method = Method("resshift", weights=str(tmp_path), seed=seed)
        ready = prepare(method, "x2", (1, 2, 2), torch.device("cpu"), (8, 8))
        assert ready.facts["passes"] == 2
        return ready.restore(Acquisition((1, 2, 2)))(lr, spacing)

    assert sample(0).shape == (1, 16, 16)
    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


def test_multiply_adds_by_hand() -> None:
    """Two 3x3 convolutions of the head and tail, one group of one block: counted on paper."""
    peer = {"architecture": "rcan", "groups": 1, "blocks": 1, "width": 16}
    c = complexity(PeerModel(PeerConfig(peer=peer)), lr_shape=(32, 32))
    attention = 2 * 16 / 32**2  # once an image
    by_hand = 9 * 16 + 4 * 9 * 16 * 16 + 9 * 16 * 64 + 4 * 9 * 16 + attention
    assert c.macs_per_lr_px == pytest.approx(by_hand)


def test_a_sample_costs_its_passes(tiny_model: Model) -> None:
    mean, sample, more = (complexity(tiny_model, steps=s) for s in (1, 4, 8))
    assert (mean.passes, sample.passes, more.passes) == (1, 5, 9)
    assert more.macs_per_lr_px - sample.macs_per_lr_px == pytest.approx(sample.macs_per_lr_px - mean.macs_per_lr_px)
    assert mean.parameters == sum(p.numel() for p in tiny_model.mean.parameters())
    assert sample.parameters == more.parameters > mean.parameters


def test_only_the_generator_in_use_counts() -> None:
    model = PeerModel(PeerConfig(peer={"architecture": "gan-circle"}))
    wanted = sum(p.numel() for p in model.peer.generators["to_high"].parameters())
    assert complexity(model, lr_shape=(16, 16)).parameters == wanted


def test_the_share_of_noise_that_is_removed_reaches_our_model_and_names_its_rows():
    kept, removed = (Method("ours", weights="x2", denoise=share) for share in (0.0, 1.0))
    assert len({m.identity("w") for m in (kept, removed, Method("ours", weights="x2"))}) == 3
    noise = torch.randn(1 + 2 * CONTEXT, 64, 64, generator=torch.Generator().manual_seed(0)) * 30 + 40
    spread = []
    for method in (kept, removed):
        ready = prepare(method, "x2", (1, 2, 2), torch.device("cpu"), (64, 64))
        restored = ready.restore(Acquisition((1, 2, 2)))(noise.round(), (1.0, 0.8, 0.8))
        spread.append(float(restored.std()))
    assert spread[1] < 0.7 * spread[0]
