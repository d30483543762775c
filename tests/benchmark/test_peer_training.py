"""Peers' losses and trainings: a perfect answer is free, every weight learns, players resume exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uhrct.benchmark.peers import PEERS
from uhrct.benchmark.peers import losses as peers
from uhrct.core.errors import UhrctError
from uhrct.models.model import Model, ModelConfig, normalised
from uhrct.physics.resampling import upsample_stack
from uhrct.training.config import TrainingConfig, load_config
from uhrct.training.data.batches import MARGIN, Batch
from uhrct.training.trainer import Trainer, build_model

Tiny = Callable[..., TrainingConfig]
CONFIGS = Path(__file__).parents[2] / "configs" / "peers"
SMALL: dict[str, dict[str, Any]] = {
    "srcnn": {"middle": 1},
    "srresnet": {"width": 8, "blocks": 1},
    "rcan": {"width": 16, "groups": 1, "blocks": 1},
    "gan-circle": {"widths": [8, 4], "patch": 32, "critic_width": 4},
    "sr3": {"width": 8, "multipliers": [1, 2]},
    "resshift": {"width": 8, "multipliers": [1, 2], "window": 4, "steps": 4, "attend_from": 1},
}
PAIRED = [name for name in SMALL if name != "gan-circle"]


def peer_model(name: str, scale: int = 2) -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(scale=(1, scale, scale), mean=None, peer={"architecture": name, **SMALL[name]}))


def batch(scale: int = 2, items: int = 3) -> Batch:
    g = torch.Generator().manual_seed(5)
    side = 16 + 2 * MARGIN
    hr = 200 * torch.randn(items, 1, side * scale, side * scale, generator=g) - 300
    lr = nn.functional.avg_pool2d(hr, scale)
    return Batch(lr, hr, [(1.4, 1.4)] * items)


def settings(name: str) -> dict[str, Any]:
    return {"mean": None, "peer": {"architecture": name, **SMALL[name]}}


# --- losses


@pytest.mark.parametrize("name", PAIRED)
def test_a_perfect_answer_costs_nothing(name: str) -> None:
    model = peer_model(name)
    assert model.peer is not None
    given = batch()
    _, wanted = model.peer.task(*peers.images(given, model), torch.Generator().manual_seed(2))
    loss = peers.peer_losses(model)
    assert callable(loss)
    for error in (0.0, 0.5):
        value, parts = loss(lambda *_, e=error: wanted + e, given, torch.Generator().manual_seed(2))
        assert float(value) == pytest.approx(error**model.peer.power, abs=1e-6)
        assert set(parts) == {"pixel"}


@pytest.mark.parametrize("scale", [2, 4])
def test_images_know_nothing_of_the_crops_edge(scale: int) -> None:
    """Interpolated with its margin: the inside is that of the whole."""
    model, given = peer_model("srcnn", scale), batch(scale)
    x, up, y = peers.images(given, model)
    assert x.shape[-2:] == (16, 16)
    assert up.shape == y.shape == (3, 1, 16 * scale, 16 * scale)
    inside = slice(MARGIN * scale, -MARGIN * scale)
    whole = upsample_stack(given.lr_hu, (1, scale, scale))[..., inside, inside]
    assert torch.equal(up, normalised(whole))
    assert torch.equal(y, normalised(given.hr_hu[..., inside, inside]))


def test_low_and_high_are_no_pairs() -> None:
    model, given = peer_model("gan-circle"), batch(items=4)
    _, up, y = peers.images(given, model)
    low, high = peers.unpaired(given, model, torch.Generator().manual_seed(0))
    assert torch.equal(low, up)
    assert not any(torch.equal(a, b) for a, b in zip(high, y, strict=True))
    assert sorted(float(v.sum()) for v in high) == sorted(float(v.sum()) for v in y)


class _Same(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


def test_generators_that_change_nothing_close_every_cycle() -> None:
    model, given = peer_model("gan-circle"), batch()
    model.peer.generators["to_high"] = model.peer.generators["to_low"] = _Same()
    losses = peers.peer_losses(model)
    _, parts = losses["generators"](model.peer, given, torch.Generator().manual_seed(0))
    assert float(parts["cycle"]) == float(parts["identity"]) == 0
    assert float(parts["adversarial"].detach()) != 0


def test_sparsity_of_flat_images_is_free() -> None:
    flat, ramp = torch.zeros(1, 1, 8, 8), torch.arange(8.0).expand(1, 1, 8, 8)
    assert float(peers.sparse(flat, flat)) == 0
    assert float(peers.sparse(ramp, ramp)) == pytest.approx(0.5)  # TV 1, counted half; the difference is flat
    assert float(peers.sparse(flat, ramp)) == pytest.approx(0.5)


def test_the_critics_loss_is_wgan_gp() -> None:
    """Real above fake lowers it, one for one; the penalty counts tenfold."""
    model, given = peer_model("gan-circle"), batch()
    value, parts = peers.peer_losses(model)["critics"](model.peer, given, torch.Generator().manual_seed(0))
    assert value.item() == pytest.approx(10 * parts["penalty"].item() - parts["wasserstein"].item(), rel=1e-4)


@pytest.mark.parametrize("name", list(SMALL))
def test_every_weight_gets_a_gradient(name: str) -> None:
    model = peer_model(name)
    network = model.peer
    with torch.no_grad():
        for p in network.parameters():  # layers that begin at zero let nothing through
            p += 0.05 * torch.randn(p.shape)
    losses = peers.peer_losses(model)
    for player, loss in ({"": losses} if callable(losses) else losses).items():
        for p in network.parameters():
            p.grad = None
        loss(network, batch(), torch.Generator().manual_seed(1))[0].backward()
        still = [
            n
            for n, p in network.named_parameters()
            if n.startswith(player) and (p.grad is None or not p.grad.abs().sum() > 0)
        ]
        # a constant added to every score, or before a normalisation, moves no distance
        free = ("judge.2.bias",) if player == "critics" else ()
        assert [n for n in still if not n.endswith(free)] == []


# --- trainings


def train(config: TrainingConfig, out: Path, **options: Any) -> dict[str, Tensor]:
    model = Trainer(config, out, quiet=True, device=torch.device("cpu"), **options).run()
    return load_file(model / "model.safetensors")


class Cut(Exception):
    """The power goes off."""


@pytest.mark.parametrize("name", ["gan-circle", "srresnet"])
def test_cut_and_resumed_is_bit_identical(tiny: Tiny, tmp_path: Path, monkeypatch: Any, name: str) -> None:
    config = tiny(stage="peer", model=settings(name), steps=3, batch=2, validation=())
    whole = train(config, tmp_path / "whole")
    track = Trainer._track

    def cut(self: Trainer, parts: dict[str, Tensor]) -> None:
        if self.step == 1:
            self._save(1.0)
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


def test_each_player_moves_in_its_turn_alone(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    config = tiny(stage="peer", model=settings("gan-circle"), steps=1, batch=2, validation=())
    trainer = Trainer(config, tmp_path / "run", quiet=True, device=torch.device("cpu"))
    assert list(trainer.players) == ["critics", "generators"]
    play, moved = Trainer._play, {}

    def watched(self: Trainer, player: str, *args: Any) -> dict[str, Tensor]:
        before = {k: v.detach().clone() for k, v in self.network.named_parameters()}
        parts = play(self, player, *args)
        moved[player] = {k.split(".")[0] for k, v in self.network.named_parameters() if not torch.equal(v, before[k])}
        return parts

    monkeypatch.setattr(Trainer, "_play", watched)
    trainer.run()
    assert moved == {"critics": {"critics"}, "generators": {"generators"}}
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert {"wasserstein", "penalty", "cycle", "identity", "critics_gradient_norm"} <= record.keys()
    assert {o.param_groups[0]["betas"] for own in trainer.optimizers.values() for o in own} == {(0.5, 0.9)}


def test_players_do_not_train_on_several_devices(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UhrctError, match="one process"):
        Trainer(tiny(stage="peer", model=settings("gan-circle")), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("name", ["srresnet", "resshift", "gan-circle"])
def test_trained_validated_and_read_again(tiny: Tiny, tmp_path: Path, name: str) -> None:
    """Batch normalisation's means are averaged with the weights, and its counter survives."""
    config = tiny(stage="peer", model=settings(name), steps=2, batch=2)
    train(config, tmp_path / "run")
    check = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"psnr_wide", "gain_db"} <= check["validation"]["c"].keys()
    back = Model.from_pretrained(tmp_path / "run" / "model")
    assert back.config.peer == settings(name)["peer"]
    if name == "srresnet":
        assert int(back.peer.after[1].num_batches_tracked) == 2


def test_srcnn_learns(tiny: Tiny, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(Trainer):
        def _track(self, parts: dict[str, Tensor]) -> None:
            seen.append(float(parts["pixel"].detach()))
            super()._track(parts)

    config = tiny(stage="peer", model=settings("srcnn"), steps=30, learning_rate=5e-3, validation=(), augmented=0.0)
    Watched(config, tmp_path / "run", quiet=True, device=torch.device("cpu")).run()
    assert sum(seen[-5:]) < 0.3 * sum(seen[:5])


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda f: f.stem)
@pytest.mark.parametrize("scale", [2, 4])
def test_the_configurations_build(file: Path, scale: int) -> None:
    with torch.device("meta"):
        model = build_model(load_config(file, [f"model.scale=[1,{scale},{scale}]"]))
    assert isinstance(model.peer, PEERS[model.config.peer["architecture"]])
