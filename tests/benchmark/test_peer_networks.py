"""Peers: shapes, sizes as published, the papers' closed forms, samplers that find what they must."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uhrct.benchmark.peers.architectures import PEERS, make_peer
from uhrct.benchmark.peers.attention import Attention, SwinBlock
from uhrct.benchmark.peers.gan_circle import gradient_penalty
from uhrct.benchmark.peers.model import PeerConfig, PeerModel, is_peer
from uhrct.benchmark.peers.resshift import Shift
from uhrct.core.errors import UhrctError
from uhrct.models.model import Model

SMALL: dict[str, dict[str, Any]] = {
    "srcnn": {},
    "srresnet": {"width": 8, "blocks": 2},
    "rcan": {"width": 16, "groups": 2, "blocks": 1},
    "gan-circle": {"widths": [8, 4], "patch": 32, "critic_width": 4},
    "sr3": {"width": 8, "multipliers": [1, 2]},
    "resshift": {"width": 8, "multipliers": [1, 2], "window": 4, "steps": 4, "attend_from": 1},
}


def small(name: str, scale: int = 2) -> PeerModel:
    """A small peer whose zero-initialised layers are alive."""
    torch.manual_seed(0)
    config = PeerConfig(scale=(1, scale, scale), peer={"architecture": name, **SMALL[name]})
    model = PeerModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.03 * torch.randn(p.shape)
    return model.requires_grad_(False)


def noise_like(image: Tensor) -> Any:
    return lambda step: torch.randn(image.shape, generator=torch.Generator().manual_seed(step))


def test_every_peer_is_looked_at() -> None:
    assert SMALL.keys() == PEERS.keys()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", list(PEERS))
def test_any_size_of_slice(name: str, scale: int) -> None:
    lr = torch.full((1, 1, 13, 9), -850.0)
    fine = torch.empty(1, 1, 13 * scale, 9 * scale)
    hr = small(name, scale).restore_hu(lr, noise_like(fine))
    assert hr.shape == fine.shape
    assert torch.isfinite(hr).all()


@pytest.mark.parametrize(
    ("name", "scale", "parameters"),
    [
        ("srcnn", 2, 57_281),  # 9 x 9 x 64, 5 x 5 x 64 x 32, 5 x 5 x 32, and biases
        ("srresnet", 4, 1_528_724),  # "1.5 M"
        ("rcan", 4, 1_151_785),
    ],
)
def test_sizes(name: str, scale: int, parameters: int) -> None:
    assert sum(p.numel() for p in make_peer({"architecture": name}, (1, scale, scale)).parameters()) == parameters


def test_rcan_has_the_published_size() -> None:
    with torch.device("meta"):
        net = make_peer({"architecture": "rcan", "groups": 10, "blocks": 20}, (1, 4, 4))
    grey = sum(p.numel() for p in net.parameters())
    colours = 2 * 64 * 9 + 2 * (64 * 9 + 1) + 2 * (9 + 3)  # two more in and out, and the layers that shift their means
    assert grey + colours == 15_592_379


@pytest.mark.parametrize(
    ("settings", "scale", "message"),
    [
        ({"architecture": "srgan"}, (1, 2, 2), "not known; choose from srcnn"),
        ({}, (1, 2, 2), "not known"),
        ({"architecture": "srcnn"}, (5, 2, 2), "single slices"),
        ({"architecture": "srcnn"}, (1, 3, 3), "x2 and x4"),
        ({"architecture": "srcnn", "depth": 3}, (1, 2, 2), "peer srcnn: unknown setting"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], scale: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UhrctError, match=message):
        make_peer(settings, scale)


def test_a_peer_is_no_model_of_ours(tmp_path: Path) -> None:
    small("srcnn").save_pretrained(tmp_path)
    assert is_peer(tmp_path)
    with pytest.raises(UhrctError, match="only uhrct benchmark uses them"):
        Model.from_pretrained(tmp_path)
    assert not is_peer("x2")
    assert not is_peer(tmp_path / "nowhere")


@pytest.mark.parametrize("name", list(PEERS))
def test_saved_and_read_again(name: str, tmp_path: Path) -> None:
    model = small(name)
    model.save_pretrained(tmp_path)
    back = PeerModel.from_pretrained(tmp_path)
    assert back.config == model.config
    lr = 100 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) - 500
    fine = torch.empty(1, 1, 16, 16)
    a, b = (m.restore_hu(lr, noise_like(fine)) for m in (model, back))
    assert torch.allclose(a, b, atol=1e-2)
    assert not torch.allclose(a, a.mean().expand_as(a), atol=1.0)


def test_samples_follow_their_noise() -> None:
    model, lr, fine = small("resshift"), torch.zeros(1, 1, 8, 8), torch.empty(1, 1, 16, 16)
    a = model.restore_hu(lr, noise_like(fine))
    assert torch.equal(a, model.restore_hu(lr, noise_like(fine)))
    assert not torch.allclose(a, model.restore_hu(lr, lambda k: noise_like(fine)(k + 1)), atol=1.0)
    with pytest.raises(UhrctError, match="trained for 4 steps"):
        model.restore_hu(lr, noise_like(fine), steps=7)


# --- attention


def test_attention_inside_windows_stays_inside() -> None:
    """Without a shift a pixel moves its own 4 x 4 window alone; with one, what wraps around is masked."""
    torch.manual_seed(0)
    f = torch.randn(1, 32, 8, 8)
    touched = f.clone()
    touched[:, 0, 0, 0] += 5.0
    plain, shifted = SwinBlock(32, 4, 0), SwinBlock(32, 4, 2)
    moved = ((plain(touched) - plain(f)).abs().amax((0, 1)) > 1e-6).nonzero()
    assert moved.tolist() == [[y, x] for y in range(4) for x in range(4)]
    moved = ((shifted(touched) - shifted(f)).abs().amax((0, 1)) > 1e-6).nonzero()
    assert moved.tolist() == [[y, x] for y in range(2) for x in range(2)]


def test_swin_equals_torch_attention() -> None:
    """One window: the same as torch's own scaled dot product with the relative bias."""
    torch.manual_seed(0)
    block = SwinBlock(32, 4, 0)
    nn.init.normal_(block.bias)
    f = torch.randn(2, 32, 4, 4)
    flat = f.permute(0, 2, 3, 1).reshape(2, 16, 32)
    q, k, v = block.qkv(block.norm(flat)).chunk(3, -1)
    bias = torch.empty(16, 16)
    for i in range(16):
        for j in range(16):
            dy, dx = i // 4 - j // 4 + 3, i % 4 - j % 4 + 3
            bias[i, j] = block.bias[7 * dy + dx, 0]
    h = flat + block.out(nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias))
    h = h + block.mlp(block.norm_after(h))
    assert torch.allclose(block(f), h.reshape(2, 4, 4, 32).permute(0, 3, 1, 2), atol=1e-5)


def test_full_attention_equals_torch() -> None:
    torch.manual_seed(0)
    block, f = Attention(8), torch.randn(2, 8, 3, 5)
    q, k, v = (t.mT for t in block.qkv(block.norm(f)).flatten(2).chunk(3, 1))
    h = nn.functional.scaled_dot_product_attention(q, k, v).mT.reshape(2, 8, 3, 5)
    assert torch.allclose(block(f), f + block.out(h), atol=1e-5)


# --- ResShift


def test_eta_is_the_papers() -> None:
    """sqrt(eta_t) = sqrt(eta_1) b0^beta_t with the ends that the paper gives (kappa 2, p 0.3)."""
    eta = Shift(15).eta()
    assert len(eta) == 16
    assert eta[1] == pytest.approx((0.04 / 2) ** 2)
    assert eta[15] == pytest.approx(0.999)
    assert all(a < b for a, b in zip(eta[:-1], eta[1:], strict=True))
    b0 = math.exp(1 / (2 * 14) * math.log(eta[15] / eta[1]))
    assert math.sqrt(eta[5]) == pytest.approx(math.sqrt(eta[1]) * b0 ** ((4 / 14) ** 0.3 * 14))


def test_the_chain_has_the_marginal_and_the_posterior() -> None:
    """Steps x_t = x_{t-1} + alpha_t e_0 + kappa sqrt(alpha_t) n, drawn; Bayes' rule for two of them."""
    shift, t = Shift(15), 6
    eta = shift.eta()
    g = torch.Generator().manual_seed(0)
    x0, y0 = 0.7, -0.4
    x = torch.full((200_000,), x0, dtype=torch.float64)
    before = x
    for k in range(1, t + 1):
        before, alpha = x, eta[k] - eta[k - 1]
        x = x + alpha * (y0 - x0) + shift.kappa * alpha**0.5 * torch.randn(x.shape, generator=g, dtype=x.dtype)
    drawn = shift.marginal(
        torch.full_like(x, x0),
        torch.full_like(x, y0),
        torch.randn(x.shape, generator=g, dtype=x.dtype),
        torch.tensor(eta[t], dtype=x.dtype),
    )
    assert float(x.mean()) == pytest.approx(float(drawn.mean()), abs=0.01)
    assert float(x.std()) == pytest.approx(float(drawn.std()), rel=0.01)
    mean, sd = shift.posterior(t, x, torch.full_like(x, x0))
    left = before - mean  # what x_t does not say of x_{t-1}: uncorrelated with it, of the posterior's width
    assert float(left.mean()) == pytest.approx(0, abs=0.01)
    assert float(left.std()) == pytest.approx(sd, rel=0.01)
    assert float(torch.corrcoef(torch.stack([left, x]))[0, 1]) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("steps", [4, 15])
def test_resshift_with_an_oracle_gives_the_truth(steps: int, monkeypatch: Any) -> None:
    peer = make_peer({"architecture": "resshift", **SMALL["resshift"], "steps": steps}, (1, 2, 2))
    truth = torch.randn(1, 1, 8, 8)
    monkeypatch.setattr(type(peer), "forward", lambda self, up, xt, t: truth)
    x = torch.zeros(1, 1, 4, 4)
    assert torch.allclose(peer.restore(x, torch.zeros_like(truth), noise_like(truth)), truth, atol=1e-5)


# --- SR3


def test_sr3_finds_a_gaussian_posterior(monkeypatch: Any) -> None:
    """With the exact epsilon of y ~ N(m, s^2) the hundred steps must draw from N(m, s^2)."""
    m, s = 0.8, 0.5
    peer = make_peer({"architecture": "sr3", **SMALL["sr3"]}, (1, 2, 2))

    def oracle(self: nn.Module, up: Tensor, z: Tensor, sqrt_g: Tensor) -> Tensor:
        g = sqrt_g**2
        return (1 - g).sqrt() * (z - sqrt_g * m) / (g * s**2 + 1 - g)

    monkeypatch.setattr(type(peer), "forward", oracle)
    like = torch.empty(1, 1, 128, 128)
    y = peer.restore(like, like, noise_like(like))
    assert float(y.mean()) == pytest.approx(m, abs=0.02)
    assert float(y.std()) == pytest.approx(s, rel=0.05)  # a hundred steps of finite size


def test_sr3_has_the_published_schedules() -> None:
    diffusion = make_peer({"architecture": "sr3", **SMALL["sr3"]}, (1, 2, 2)).diffusion
    assert (diffusion.train_steps, diffusion.beta_train, diffusion.beta_sample) == (2000, (1e-4, 5e-3), (1e-4, 0.1))
    assert (diffusion.prediction, diffusion.sampler, diffusion.sampling_steps) == ("epsilon", "ancestral", 100)


def test_sr3_is_trained_on_what_it_samples() -> None:
    """The noise in z is the target, at the level that the network is told."""
    peer = make_peer({"architecture": "sr3", **SMALL["sr3"]}, (1, 2, 2))
    y = torch.randn(64, 1, 8, 8)
    (up, z, sqrt_g), n = peer.task(y, y, y, torch.Generator().manual_seed(0))
    assert up is y
    level = sqrt_g[:, None, None, None]
    assert torch.allclose(z, level * y + (1 - level**2).sqrt() * n, atol=1e-6)
    assert 0 < float(sqrt_g.min()) < 0.3
    assert 0.9 < float(sqrt_g.max()) <= 1


# --- the critics' penalty


def test_gradient_penalty_of_a_known_slope() -> None:
    """D(x) = 3 |x|_1 summed over n voxels has the slope 3 sqrt(n)."""
    critic = nn.Module()
    critic.forward = lambda x: 3 * x.flatten(1).sum(1)  # type: ignore[method-assign]
    real, fake = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    assert float(gradient_penalty(critic, real, fake, torch.Generator())) == pytest.approx((12 - 1) ** 2, rel=1e-5)
