"""What one pass and one restored slice cost: ours beside every peer, by turns in one run.

    python benchmarks/peers_cost.py      # 256 x 256 to 512 x 512 and to 1024 x 1024, into results/peers_cost.json
    python benchmarks/peers_cost.py --side 32 --repeats 1 --scales 2 --out /tmp/try.json     # does it work?

Run it on an idle machine. Medians over rounds in which every method takes its turn. Peers have random weights, which
cost what trained ones do; ours are the shipped ones. All get the same made-up slice, the same threads, precision and
memory layout. A pass is one through a network (of our sample: through its denoiser); a restoration is all that
`uhrct benchmark` does to a slice: interpolation, structure maps, passes, consistency. Of peers that take many steps
one pass is timed and multiplied by their number, and nothing else is counted. The published dual-stream denoiser is
`uhrct.benchmark.peers.dual_red`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from uhrct.benchmark.complexity import complexity, count_pass
from uhrct.benchmark.methods import peer_restorer, restorer
from uhrct.benchmark.peers.dual_red import DualRed
from uhrct.benchmark.peers.model import PeerConfig, PeerModel
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT
from uhrct.models.model import Model, inference_dtype, stacks
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
    """One row: `restore` is None where a restoration is `passes` times a pass."""

    facts: dict[str, Any]
    one_pass: Callable[[], object]
    restore: Callable[[], object] | None
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=lambda: {"pass": [], "restoration": []})

    def take_a_turn(self) -> None:
        for what, call in (("pass", self.one_pass), ("restoration", self.restore)):
            if call is not None:
                begin = time.perf_counter()
                call()
                self.seconds[what].append(time.perf_counter() - begin)


def ours(factor: int, lr: Tensor) -> dict[str, Method]:
    """The posterior mean and the 4-step sample of shipped weights."""
    model = Model.from_pretrained(f"x{factor}")
    assert model.mean is not None
    assert model.denoiser is not None
    # what scan it is belongs to a volume, not to a slice: it is told, not estimated
    told = dataclasses.asdict(Upscaler(model).scan(Volume(lr.numpy(), SPACING_MM)))
    middle = stacks(lr, range(CONTEXT, CONTEXT + 1), model.config.context)
    with torch.inference_mode():
        f = model.features(middle, SPACING_MM[1:])
        mean = model.mean_hu(f)[0]
        x, prior, _ = model.denoiser_inputs(f, mean, SPACING_MM[1:])
    z, level, denoiser = torch.randn_like(prior), torch.ones(1), model.denoiser
    passes: dict[int, Callable[[], object]] = {
        1: lambda: model.mean_hu(f),
        4: lambda: denoiser(x, prior, z, sqrt_g=level, properties=f.properties),
    }
    out = {}
    for steps, name in ((1, "ours, mean"), (4, "ours, 4-step sample")):
        restore = restorer(Upscaler(model, steps=steps, overrides=told))
        facts = complexity(model, steps=steps, lr_shape=(lr.shape[1], lr.shape[2]))._asdict()
        facts["weights_sha256"] = model.weights_sha256
        out[name] = Method(facts, passes[steps], lambda r=restore: r(lr, SPACING_MM))
    return out


def peer(settings: dict[str, Any], factor: int, lr: Tensor) -> Method:
    model = PeerModel(PeerConfig(scale=(1, factor, factor), peer=settings)).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = model.peer
    x = torch.randn(1, 1, *lr.shape[1:])
    up = torch.randn(1, 1, *(n * factor for n in lr.shape[1:]))
    facts = complexity(model, lr_shape=(lr.shape[1], lr.shape[2]))._asdict()
    if network.sampling_steps:
        return Method(facts, lambda: network(up, up, torch.ones(1, dtype=torch.long)), None)
    restore = peer_restorer(model)
    return Method(facts, lambda: network(x, up), lambda: restore(lr, SPACING_MM))


def dual_red(factor: int, lr: Tensor) -> Method:
    side = [n * factor for n in lr.shape[1:]]
    with FakeTensorMode():
        macs, parameters = count_pass(DualRed(), {"0": torch.empty(1, 3, *side), "1": torch.empty(1, 1, *side)})
    facts = {
        "parameters": parameters,
        "passes": DualRed.sampling_steps,
        "macs_per_lr_px": DualRed.sampling_steps * macs / (lr.shape[1] * lr.shape[2]),
    }
    network = DualRed().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image, structure = torch.randn(1, 3, *side), torch.randn(1, 1, *side)
    return Method(facts, lambda: network(image, structure), None)


def measure(factor: int, side: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Rows by method, ratios to our mean."""
    torch.manual_seed(0)
    lr = -500 + 300 * torch.randn(2 * CONTEXT + 1, side, side)
    methods = ours(factor, lr)
    methods |= {name: peer(settings, factor, lr) for name, settings in PEERS.items()}
    methods["dual-RED, 100 steps"] = dual_red(factor, lr)
    dtype = inference_dtype(torch.device("cpu"))
    for turn in range(repeats + 1):
        for name, method in methods.items():
            with torch.inference_mode(), nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype):
                method.take_a_turn()
            if turn == 0:  # warming up
                method.seconds = {what: [] for what in method.seconds}
            print(f"x{factor}, round {turn} of {repeats}: {name}", flush=True)
    return rows(methods)


def rows(methods: dict[str, Method]) -> dict[str, dict[str, Any]]:
    """Medians, and their ratios to those of the first method."""
    out: dict[str, dict[str, Any]] = {}
    for name, method in methods.items():
        one_pass = statistics.median(method.seconds["pass"])
        measured = method.restore is not None
        whole = statistics.median(method.seconds["restoration"]) if measured else method.facts["passes"] * one_pass
        out[name] = {
            **method.facts,
            "pass_s": one_pass,
            "restoration_s": whole,
            "restoration_is": "measured" if measured else f"{method.facts['passes']} passes",
            "all_pass_s": method.seconds["pass"],
            "all_restoration_s": method.seconds["restoration"],
        }
    first = next(iter(out.values()))
    for row in out.values():
        row["pass_to_ours"] = row["pass_s"] / first["pass_s"]
        row["restoration_to_ours"] = row["restoration_s"] / first["restoration_s"]
    return out


def table(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    lines = [f"{result['machine']}, {result['precision']}; peers have {result['peers']}", ""]
    for protocol, methods in result["protocols"].items():
        cost = "parameters, M | multiply-adds of a slice, M per LR pixel"
        head = f"| method | {cost} | s a pass | to ours | s a slice | to ours | a slice is |"
        lines += [f"**{protocol}**", "", head, "|---" * 8 + "|"]
        for name, r in methods.items():
            lines.append(
                f"| {name} | {r['parameters'] / 1e6:.2f} | {r['macs_per_lr_px'] / 1e6:.2f} | {r['pass_s']:.3g} | "
                f"{r['pass_to_ours']:.2f} | {r['restoration_s']:.3g} | {r['restoration_to_ours']:.2f} | "
                f"{r['restoration_is']} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/peers_cost.json"))
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4], choices=[2, 4])
    parser.add_argument("--side", type=int, default=256, help="LR pixels along a slice's side")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    precision = str(inference_dtype(torch.device("cpu"))).removeprefix("torch.")
    result = {
        "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "precision": precision,
        "peers": "random weights",
        "side_lr_px": args.side,
        "repeats": args.repeats,
        "protocols": {f"x{s}": measure(s, args.side, args.repeats) for s in args.scales},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.out.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(args.out)
    print(table(result))


if __name__ == "__main__":
    main()
