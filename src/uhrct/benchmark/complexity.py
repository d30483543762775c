"""What a method costs on paper: parameters, and multiply-adds per low-resolution pixel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from uhrct.models.model import Model
from uhrct.physics.scan_properties import N_PROPERTIES


class Complexity(NamedTuple):
    """Parameters that take part in one image, passes through a network that it takes, multiply-adds of all of them."""

    parameters: int
    passes: int
    macs_per_lr_px: float


def complexity(model: Model, *, steps: int | None = None, lr_shape: tuple[int, int] = (256, 256)) -> Complexity:
    """Of convolutions, linear layers and matrix products (attention's too) in one image; nothing is computed.

    Interpolation, structure maps and projections, small beside the networks, are not counted.

    Parameters
    ----------
    steps : of a sample; None or 1 is the posterior mean, or a peer's own default
    lr_shape : (y, x); only attention over the whole image depends on it

    Example
    -------
    >>> from uhrct.models.model import ModelConfig
    >>> c = complexity(Model(ModelConfig(mean=None, peer={"architecture": "srcnn"})))
    >>> c.parameters, c.macs_per_lr_px  # 4 (81 x 64 + 25 x 64 x 32 + 25 x 32)
    (57281, 228736.0)
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        twin = Model(model.config).eval()
        work = [_peer_pass(twin, lr_shape, steps)] if twin.peer is not None else _own_passes(twin, lr_shape, steps)
        counted = [(times, *count_pass(network, inputs)) for network, inputs, times in work]
    macs = sum(times * m for times, m, _ in counted)
    return Complexity(
        sum(p for _, _, p in counted), sum(times for times, _, _ in counted), macs / (lr_shape[0] * lr_shape[1])
    )


_Work = tuple[nn.Module, dict[str, Tensor], int]


def _peer_pass(model: Model, lr_shape: tuple[int, int], steps: int | None) -> _Work:
    assert model.peer is not None
    _, sy, sx = model.config.scale
    x, up = torch.empty(1, 1, *lr_shape), torch.empty(1, 1, lr_shape[0] * sy, lr_shape[1] * sx)
    level = torch.ones(1, dtype=torch.long)
    # every sampler is asked once a step with (condition, noisy image, level)
    inputs = (up, up, level) if model.peer.sampling_steps else (x, up)
    named = {str(k): v for k, v in enumerate(inputs)}
    return model.peer, named, max(steps if steps and steps > 1 else model.peer.sampling_steps, 1)


def _own_passes(model: Model, lr_shape: tuple[int, int], steps: int | None) -> list[_Work]:
    sz, sy, sx = model.config.scale
    n = sz * sy * sx
    told = {"properties": torch.empty(1, N_PROPERTIES)} if model.config.properties else {}
    prior = {"prior": torch.empty(1, n, *lr_shape), **told}
    work: list[_Work] = []
    if model.mean is not None:
        work.append((model.mean, {"x": torch.empty(1, model.config.slices, *lr_shape), **prior}, 1))
    if steps and steps > 1 and model.denoiser is not None:
        seen = 1 + (n if model.mean is not None else 0)
        noisy = {"x": torch.empty(1, seen, *lr_shape), "noisy": torch.empty(1, n, *lr_shape), "sqrt_g": torch.ones(1)}
        work.append((model.denoiser, {**noisy, **prior}, steps))
    return work


def count_pass(network: nn.Module, inputs: dict[str, Tensor]) -> tuple[int, int]:
    """(multiply-adds of one pass, parameters of the modules that it went through).

    Inputs are by name; those that are named by a number are given by position. On fake tensors nothing is computed.
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
