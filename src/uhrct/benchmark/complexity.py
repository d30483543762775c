"""The cost of a method: parameters, and multiply-adds per low-resolution pixel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from uhrct.benchmark.peers.model import PeerModel
from uhrct.models.model import Model
from uhrct.physics.scan_properties import N_CONDITIONS


class Complexity(NamedTuple):
    """For one image: the parameters used, the passes through a network, and the multiply-adds of all passes."""

    parameters: int
    passes: int
    macs_per_lr_px: float


def complexity(
    model: Model | PeerModel, *, steps: int | None = None, lr_shape: tuple[int, int] = (256, 256)
) -> Complexity:
    """Count convolutions, linear layers and matrix products (also in attention) of one image; nothing is computed.

    Interpolation, structure maps and projections are not counted. They are small beside the networks.

    Parameters
    ----------
    steps : steps of a sample; None or 1: the posterior mean, or the default of a peer
    lr_shape : (y, x); only attention over the whole image depends on it

    Example
    -------
    >>> from uhrct.benchmark.peers.model import PeerConfig
    >>> c = complexity(PeerModel(PeerConfig(peer={"architecture": "srcnn"})))
    >>> c.parameters, c.macs_per_lr_px  # 4 (81 x 64 + 25 x 64 x 32 + 25 x 32)
    (57281, 228736.0)
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        if isinstance(model, PeerModel):
            work = [_peer_pass(PeerModel(model.config).eval(), lr_shape, steps)]
        else:
            work = _own_passes(Model(model.config).eval(), lr_shape, steps)
        counted = [(times, *count_pass(network, inputs)) for network, inputs, times in work]
    macs = sum(times * m for times, m, _ in counted)
    return Complexity(
        sum(p for _, _, p in counted), sum(times for times, _, _ in counted), macs / (lr_shape[0] * lr_shape[1])
    )


_Work = tuple[nn.Module, dict[str, Tensor], int]


def _peer_pass(model: PeerModel, lr_shape: tuple[int, int], steps: int | None) -> _Work:
    _, sy, sx = model.config.scale
    x, up = torch.empty(1, 1, *lr_shape), torch.empty(1, 1, lr_shape[0] * sy, lr_shape[1] * sx)
    level = torch.ones(1, dtype=torch.long)
    # every sampler calls its network once per step with (condition, noisy image, level)
    inputs = (up, up, level) if model.peer.sampling_steps else (x, up)
    named = {str(k): v for k, v in enumerate(inputs)}
    return model.peer, named, max(steps if steps and steps > 1 else model.peer.sampling_steps, 1)


def _own_passes(model: Model, lr_shape: tuple[int, int], steps: int | None) -> list[_Work]:
    sz, sy, sx = model.config.scale
    n = sz * sy * sx
    prior = {"prior": torch.empty(1, n, *lr_shape)}
    if model.config.properties:
        prior["properties"] = torch.empty(1, N_CONDITIONS)
    work: list[_Work] = []
    if model.mean is not None:
        work.append((model.mean, {"x": torch.empty(1, model.config.slices, *lr_shape), **prior}, 1))
    if steps and steps > 1 and model.denoiser is not None:
        seen = 1 + (n if model.mean is not None else 0)
        noisy = {"x": torch.empty(1, seen, *lr_shape), "noisy": torch.empty(1, n, *lr_shape), "sqrt_g": torch.ones(1)}
        work.append((model.denoiser, {**noisy, **prior}, steps))
    return work


def count_pass(network: nn.Module, inputs: dict[str, Tensor]) -> tuple[int, int]:
    """(multiply-adds of one pass, parameters of the modules that are used).

    Inputs are given by name; a name that is a number means a position. With fake tensors nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    used: dict[int, int] = {}

    def note(module: nn.Module, *_: object) -> None:
        used.update({id(p): p.numel() for p in module.parameters(recurse=False)})

    hooks = [m.register_forward_hook(note) for m in network.modules()]
    positional = [v for k, v in inputs.items() if k.isdigit()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*positional, **{k: v for k, v in inputs.items() if not k.isdigit()})
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() // 2, sum(used.values())
