"""Time of one restored slice: ours beside every peer, in one run.

    python benchmarks/peers_cost.py      # LR slices of 256 x 256, x2 and x4, into results/peers_cost.json
    python benchmarks/peers_cost.py --side 32 --repeats 1 --scales 2 --out /tmp/try.json     # a quick try

Run it on an idle machine. Every method takes its turn in every round, and the median over the rounds counts. All
methods get the same made-up slice, threads, precision and memory layout. Ours have the shipped weights and run
completely: interpolation, structure maps, passes, consistency. Peers have random weights, which cost as much as trained
ones. One pass of a peer is timed; a method of many steps is that time multiplied by its passes. The published
dual-stream denoiser is `uhrct.benchmark.peers.dual_red`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from uhrct.benchmark.complexity import complexity, count_pass
from uhrct.benchmark.methods import restorer
from uhrct.benchmark.peers.architectures import make_peer
from uhrct.benchmark.peers.dual_red import DualRed
from uhrct.core.files import write_atomic
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT
from uhrct.models.model import Model
from uhrct.models.precision import inference_dtype
from uhrct.physics.resampling import upsample
from uhrct.upscaling.upscaler import Upscaler

SPACING_MM = (1.0, 1.4, 1.4)
PEERS: dict[str, dict[str, Any]] = {
    "SRCNN": {"architecture": "srcnn"},
    "SRResNet": {"architecture": "srresnet"},
    "RCAN, light": {"architecture": "rcan"},
    "CycleGAN (GAN-CIRCLE)": {"architecture": "gan-circle"},
    "SR3, 100 steps": {"architecture": "sr3"},
    "ResShift, 15 steps": {"architecture": "resshift", "steps": 15},
    "ResShift, 4 steps": {"architecture": "resshift", "steps": 4},
}


@dataclass
class Method:
    """What a method costs on paper, the call that is timed, and how often the call counts."""

    facts: dict[str, Any]
    call: Callable[[], object]
    times: int = 1
    seconds: list[float] = field(default_factory=list)


def ours(factor: int, lr: Tensor) -> dict[str, Method]:
    """The posterior mean and the 4-step sample of the shipped weights."""
    model = Model.from_pretrained(f"x{factor}")
    # Scan properties belong to a volume: they are passed in, so that no slice pays for their estimate.
    properties = asdict(Upscaler(model).plan(Volume(lr.numpy(), SPACING_MM)).scan)
    out = {}
    for steps, name in ((1, "ours, mean"), (4, "ours, 4-step sample")):
        restore = restorer(Upscaler(model, steps=steps, overrides=properties))
        facts = complexity(model, steps=steps, lr_shape=(lr.shape[1], lr.shape[2]))._asdict()
        facts["weights_sha256"] = model.weights_sha256
        out[name] = Method(facts, lambda r=restore: r(lr, SPACING_MM))
    return out


def counted(make: Callable[[], nn.Module], inputs: tuple[Tensor, ...], passes: int, lr: Tensor) -> dict[str, Any]:
    """Parameters, passes and multiply-adds of a network, counted without computing anything."""
    with FakeTensorMode():
        fake = {str(k): torch.empty(x.shape, dtype=x.dtype) for k, x in enumerate(inputs)}
        macs, parameters = count_pass(make(), fake)
    return {"parameters": parameters, "passes": passes, "macs_per_lr_px": passes * macs / lr[0].numel()}


def peer(settings: dict[str, Any], factor: int, lr: Tensor) -> Method:
    """A peer with random weights."""
    network = make_peer(settings, (1, factor, factor)).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = lr[CONTEXT][None, None]
    up = upsample(x, factor, factor)
    steps = network.sampling_steps
    inputs = (up, up, torch.ones(1, dtype=torch.long)) if steps else (x, up)
    facts = counted(lambda: make_peer(settings, (1, factor, factor)), inputs, max(steps, 1), lr)
    if steps:
        return Method(facts, lambda: network(*inputs), steps)
    return Method(facts, lambda: network(x, upsample(x, factor, factor)))


def dual_red(factor: int, lr: Tensor) -> Method:
    """The denoiser with which the dual-stream diffusion model was published."""
    side = [n * factor for n in lr.shape[1:]]
    inputs = torch.randn(1, 3, *side), torch.randn(1, 1, *side)
    network = DualRed().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = DualRed.sampling_steps
    return Method(counted(DualRed, inputs, steps, lr), lambda: network(*inputs), steps)


def measure(factor: int, side: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Rows by method."""
    torch.manual_seed(0)
    lr = -500 + 300 * torch.randn(2 * CONTEXT + 1, side, side)
    methods = ours(factor, lr)
    methods |= {name: peer(settings, factor, lr) for name, settings in PEERS.items()}
    methods["dual-RED, 100 steps"] = dual_red(factor, lr)
    dtype = inference_dtype(torch.device("cpu"))
    for turn in range(repeats + 1):
        for name, method in methods.items():
            with torch.inference_mode(), nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype):
                begin = time.perf_counter()
                method.call()
                if turn:  # the first round warms up
                    method.seconds.append(time.perf_counter() - begin)
            print(f"x{factor}, round {turn} of {repeats}: {name}", flush=True)
    slices = {name: m.times * statistics.median(m.seconds) for name, m in methods.items()}
    return {
        name: {
            **m.facts,
            "restoration_s": slices[name],
            "restoration_to_ours": slices[name] / slices["ours, mean"],
            "restoration_is": "measured" if m.times == 1 else f"{m.times} passes",
        }
        for name, m in methods.items()
    }


def table(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    lines = [f"{result['machine']}, {result['precision']}; peers have {result['peers']}", ""]
    for protocol, methods in result["protocols"].items():
        head = "| method | parameters, M | multiply-adds, M per LR pixel | s a slice | to our mean | a slice is |"
        lines += [f"**{protocol}**", "", head, "|---" * 6 + "|"]
        for name, r in methods.items():
            lines.append(
                f"| {name} | {r['parameters'] / 1e6:.2f} | {r['macs_per_lr_px'] / 1e6:.2f} | "
                f"{r['restoration_s']:.3g} | {r['restoration_to_ours']:.2f} | {r['restoration_is']} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/peers_cost.json"))
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4], choices=[2, 4])
    parser.add_argument("--side", type=int, default=256, help="side of the LR slice in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    result = {
        "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "precision": str(inference_dtype(torch.device("cpu"))).removeprefix("torch."),
        "peers": "random weights",
        "side_lr_px": args.side,
        "repeats": args.repeats,
        "protocols": {f"x{s}": measure(s, args.side, args.repeats) for s in args.scales},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
