"""Losses and trainings of the peers: a perfect answer is free, every weight learns, a cut training resumes exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uhrct.benchmark.peers import losses as peers
from uhrct.benchmark.peers.architectures import PEERS, make_peer
from uhrct.benchmark.peers.model import PeerConfig, PeerModel
from uhrct.benchmark.peers.training import PeerTrainingConfig, train_peer
from uhrct.core.errors import UhrctError
from uhrct.models.model import normalised
from uhrct.models.settings import checked
from uhrct.physics.resampling import upsample_stack
from uhrct.training.config import read_settings
from uhrct.training.data.batch import MARGIN, Batch
from uhrct.training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs" / "peers"
X2 = (1, 2, 2)
SMALL: dict[str, dict[str, Any]] = {
    "srcnn": {"middle": 1},
    "srresnet": {"width": 8, "blocks": 1},
    "rcan": {"width": 16, "groups": 1, "blocks": 1},
    "gan-circle": {"widths": [8, 4], "patch": 32, "critic_width": 4},
    "sr3": {"width": 8, "multipliers": [1, 2]},
    "resshift": {"width": 8, "multipliers": [1, 2], "window": 4, "steps": 4, "attend_from": 1},
}
PAIRED = [name for name in SMALL if name != "gan-circle"]


def peer_model(name: str, scale: int = 2) -> PeerModel:
    torch.manual_seed(0)
    return PeerModel(PeerConfig(scale=(1, scale, scale), peer={"architecture": name, **SMALL[name]}))


def batch(scale: int = 2, items: int = 3) -> Batch:
    g = torch.Generator().manual_seed(5)
    side = 16 + 2 * MARGIN
    hr = 200 * torch.randn(items, 1, side * scale, side * scale, generator=g) - 300
    lr = nn.functional.avg_pool2d(hr, scale)
    return Batch(lr, hr, [(1.4, 1.4)] * items)


# --- losses


@pytest.mark.parametrize("name", PAIRED)
def test_a_perfect_answer_costs_nothing(name: str) -> None:
    peer, given = peer_model(name).peer, batch()
    _, wanted = peer.task(*peers.images(given, X2), torch.Generator().manual_seed(2))
    for error in (0.0, 0.5):
        generator = torch.Generator().manual_seed(2)
        value, parts = peers.paired_loss(peer, lambda *_, e=error: wanted + e, given, X2, generator)
        assert float(value) == pytest.approx(error**peer.power, abs=1e-6)
        assert set(parts) == {"pixel"}


@pytest.mark.parametrize("scale", [2, 4])
def test_images_know_nothing_of_the_crops_edge(scale: int) -> None:
    """They are interpolated with their margin, so the inside is that of the whole."""
    given = batch(scale)
    x, up, y = peers.images(given, (1, scale, scale))
    assert x.shape[-2:] == (16, 16)
    assert up.shape == y.shape == (3, 1, 16 * scale, 16 * scale)
    inside = slice(MARGIN * scale, -MARGIN * scale)
    whole = upsample_stack(given.lr_hu, (1, scale, scale))[..., inside, inside]
    assert torch.equal(up, normalised(whole))
    assert torch.equal(y, normalised(given.hr_hu[..., inside, inside]))


def test_low_and_high_are_no_pairs() -> None:
    given = batch(items=4)
    _, up, y = peers.images(given, X2)
    low, high = peers.unpaired(given, X2, torch.Generator().manual_seed(0))
    assert torch.equal(low, up)
    assert not any(torch.equal(a, b) for a, b in zip(high, y, strict=True))
    assert sorted(float(v.sum()) for v in high) == sorted(float(v.sum()) for v in y)


class _Same(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


def test_generators_that_change_nothing_close_every_cycle() -> None:
    network = peer_model("gan-circle").peer
    network.generators["to_high"] = network.generators["to_low"] = _Same()
    _, parts = peers.generators_loss(network, batch(), X2, torch.Generator().manual_seed(0))
    assert float(parts["cycle"]) == float(parts["identity"]) == 0
    assert float(parts["adversarial"].detach()) != 0


def test_sparsity_of_flat_images_is_free() -> None:
    flat, ramp = torch.zeros(1, 1, 8, 8), torch.arange(8.0).expand(1, 1, 8, 8)
    assert float(peers.sparse(flat, flat)) == 0
    assert float(peers.sparse(ramp, ramp)) == pytest.approx(0.5)  # TV 1, counted half; the difference is flat
    assert float(peers.sparse(flat, ramp)) == pytest.approx(0.5)


def test_the_critics_loss_is_wgan_gp() -> None:
    """Real above fake lowers it, one for one; the penalty counts tenfold."""
    network = peer_model("gan-circle").peer
    value, parts = peers.critics_loss(network, batch(), X2, torch.Generator().manual_seed(0))
    assert value.item() == pytest.approx(10 * parts["penalty"].item() - parts["wasserstein"].item(), rel=1e-4)


@pytest.mark.parametrize("name", list(SMALL))
def test_every_weight_gets_a_gradient(name: str) -> None:
    network = peer_model(name).peer
    with torch.no_grad():
        for p in network.parameters():  # layers that start at zero let nothing through
            p += 0.05 * torch.randn(p.shape)
    generator = torch.Generator().manual_seed(1)
    if name == "gan-circle":
        losses = {"critics": peers.critics_loss, "generators": peers.generators_loss}
        values = {part: loss(network, batch(), X2, generator)[0] for part, loss in losses.items()}
    else:
        values = {"": peers.paired_loss(network, network, batch(), X2, generator)[0]}
    for part, value in values.items():
        network.zero_grad()
        value.backward()
        own = {n: p for n, p in network.named_parameters() if n.startswith(part)}
        still = [n for n, p in own.items() if p.grad is None or not p.grad.abs().sum() > 0]
        # a constant added to every score changes no distance
        assert [n for n in still if part != "critics" or not n.endswith("judge.2.bias")] == []


# --- trainings


def write(corpus: Path, folder: Path, name: str, **changes: Any) -> Path:
    """A configuration of a small peer on the small corpus."""
    data = {"corpus": str(corpus / "train"), "validation": [], "validation_slices": 1, "batch": 2, "crop": 16}
    raw = {"peer": {"architecture": name, **SMALL[name]}, "data": data, "steps": 3, "optimizer": {"warmup_steps": 2}}
    (folder / "peer.yaml").write_text(json.dumps({**raw, **changes}))
    return folder / "peer.yaml"


def train(config: Path, out: Path, *overrides: str, **options: Any) -> dict[str, Tensor]:
    model = train_peer(config, list(overrides), out=out, device=torch.device("cpu"), quiet=True, **options)
    return load_file(model / "model.safetensors")


class Cut(Exception):
    """The power goes off."""


@pytest.mark.parametrize("name", ["gan-circle", "srresnet"])
def test_cut_and_resumed_is_bit_identical(corpus: Path, tmp_path: Path, monkeypatch: Any, name: str) -> None:
    config = write(corpus, tmp_path, name)
    whole = train(config, tmp_path / "whole")
    track = Trainer._track

    def cut(self: Trainer, parts: dict[str, Tensor]) -> None:
        if self.step == 1:
            self.save()
        if self.step == 2:
            raise Cut
        track(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_track", cut)
        with pytest.raises(Cut):
            train(config, tmp_path / "cut")
    again = train(config, tmp_path / "cut", resume=True)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_critics_and_generators_take_turns(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    descend, moved = Trainer.descend, []

    def watched(self: Trainer, loss: Any, optimizers: Any, done: float, name: str = "") -> dict[str, Tensor]:
        before = {k: v.detach().clone() for k, v in self.network.named_parameters()}
        parts = descend(self, loss, optimizers, done, name)
        moved.append({k.split(".")[0] for k, v in self.network.named_parameters() if not torch.equal(v, before[k])})
        assert optimizers[0].param_groups[0]["betas"] == (0.5, 0.9)
        return parts

    monkeypatch.setattr(Trainer, "descend", watched)
    train(write(corpus, tmp_path, "gan-circle", steps=1), tmp_path / "run")
    assert moved == [{"critics"}, {"generators"}]
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert {"wasserstein", "penalty", "cycle", "identity", "critics_gradient_norm"} <= record.keys()


def test_what_cannot_be_trained_is_said(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config = write(corpus, tmp_path, "gan-circle")
    with pytest.raises(UhrctError, match=r"unknown setting model; known: .*peer"):
        train(config, tmp_path / "run", "model.mean=null")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UhrctError, match="one process"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("name", ["srresnet", "resshift"])
def test_trained_validated_and_read_again(corpus: Path, tmp_path: Path, name: str) -> None:
    """The means of batch normalisation are averaged with the weights, and its counter survives."""
    train(write(corpus, tmp_path, name), tmp_path / "run", f"data.validation={corpus / 'validation'}")
    check = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert check["stage"] == name
    assert {"psnr_wide", "gain_db"} <= check["validation"]["c"].keys()
    back = PeerModel.from_pretrained(tmp_path / "run" / "model")
    assert back.config.peer == {"architecture": name, **SMALL[name]}
    if name == "srresnet":
        assert int(back.peer.after[1].num_batches_tracked) == 3


def test_srcnn_learns(corpus: Path, tmp_path: Path) -> None:
    optimizer = {"learning_rate": 5e-3, "warmup_steps": 2, "ema": 0.5}
    losses = []
    for steps in (1, 30):
        config = write(corpus, tmp_path, "srcnn", steps=steps, optimizer=optimizer)
        train(config, tmp_path / str(steps), f"data.validation={corpus / 'validation'}", "data.augmented=0")
        log = (tmp_path / str(steps) / "log.jsonl").read_text().splitlines()
        losses.append(json.loads(log[-1])["validation"]["c"]["rmse_hu"])
    assert losses[1] < 0.6 * losses[0]


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda f: f.stem)
def test_the_configurations_build(file: Path) -> None:
    for scale in (2, 4):
        settings = checked(PeerTrainingConfig, read_settings(file, [f"scale=[1,{scale},{scale}]"]), str(file))
        with torch.device("meta"):
            peer = make_peer(settings.peer, settings.scale)
        assert isinstance(peer, PEERS[settings.peer["architecture"]])
