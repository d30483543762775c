"""Makes a method of the benchmark ready: something that restores slices, with its weights, budget and cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.benchmark.complexity import complexity
from uhrct.benchmark.config import Method
from uhrct.benchmark.peers.model import PeerModel, is_peer
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT, Restore
from uhrct.models.model import Model, model_folder
from uhrct.models.precision import inference_dtype
from uhrct.models.slice_noise import SliceNoise
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import apply_in_plane, as_tensor, lanczos_matrix, upsample_stack
from uhrct.upscaling.slabs import compute_part
from uhrct.upscaling.upscaler import Upscaler


@dataclass
class Ready:
    """A method for one protocol, with its weights loaded."""

    method: Method
    scale: tuple[int, int, int]
    model: Model | PeerModel | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return self.method.identity(self.facts.get("weights_sha256", ""))

    def description(self, protocol: str) -> dict[str, Any]:
        """Plain values for the record of a run."""
        m = self.method
        return {
            "name": m.name,
            "identity": self.identity,
            "protocol": protocol,
            "kind": m.kind,
            "steps": m.steps,
            "seed": m.seed,
            "consistency": m.consistency,
            "denoise": m.denoise,
            **self.facts,
        }

    def restore(self, acquisition: Acquisition) -> Restore:
        """The method as a restorer of slices that `acquisition` degraded. Only the projection uses `acquisition`."""
        if self.model is None:
            return _one_by_one(_interpolation(self.method.kind, self.scale, acquisition))
        if isinstance(self.model, PeerModel):
            return _one_by_one(peer_restorer(self.model, steps=self.method.steps, seed=self.method.seed))
        m = self.method
        told = {} if m.denoise is None else {"denoise": m.denoise}
        return restorer(Upscaler(self.model, steps=m.steps, seed=m.seed, consistency=m.consistency, **told))


def prepare(
    method: Method, protocol: str, scale: tuple[int, int, int], device: torch.device, lr_shape: tuple[int, int]
) -> Ready:
    """Load the weights of a method, if it has any.

    Raises
    ------
    UhrctError
        If the weights are missing, damaged, or of another scale; for Lanczos through plane.
    """
    if method.kind == "lanczos" and scale[0] > 1:
        raise UhrctError("Lanczos works in plane")
    if not method.weights:
        return Ready(method, scale, facts={"passes": 0})
    name = method.weights.replace("{protocol}", protocol)
    kind = PeerModel if is_peer(name) else Model
    model = kind.from_pretrained(name, device)
    if model.config.scale != scale:
        raise UhrctError(f"{name}: weights of scale {model.config.scale}, protocol {protocol} is {scale}")
    facts = {"weights": name, "weights_sha256": model.weights_sha256, **_budget(model_folder(name))}
    facts |= complexity(model, steps=method.steps, lr_shape=lr_shape)._asdict()
    return Ready(method, scale, model, facts)


def prepare_all(
    methods: Sequence[Method],
    protocols: Sequence[tuple[str, tuple[int, int, int]]],
    device: torch.device,
    plane: tuple[int, int] = (512, 512),
) -> tuple[dict[str, list[Ready]], list[tuple[str, Method, str]]]:
    """(available methods by protocol, (protocol, method, reason) of the others).

    Parameters
    ----------
    protocols : (name, scale (z, y, x))
    plane : rows and columns of a fine slice; only the cost of attention depends on it
    """
    out: dict[str, list[Ready]] = {}
    absent: list[tuple[str, Method, str]] = []
    for protocol, scale in protocols:
        lr_shape = (plane[0] // scale[1], plane[1] // scale[2])
        for method in methods:
            try:
                ready = prepare(method, protocol, scale, device, lr_shape)
            except UhrctError as reason:
                absent.append((protocol, method, str(reason)))
                continue
            others = out.setdefault(protocol, [])
            if twin := next((o.method.name for o in others if o.identity == ready.identity), None):
                raise UhrctError(f"the methods {twin!r} and {method.name!r} are the same in {protocol}; leave one out")
            others.append(ready)
    return out, absent


def restorer(upscaler: Upscaler) -> Restore:
    """An upscaler of volumes as a restorer of slices, so that the benchmark measures what users run."""

    def restore(lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        volume = Volume(lr_hu.numpy(), spacing_mm)
        slabs = compute_part(upscaler.plan(volume), volume, CONTEXT, len(lr_hu) - CONTEXT)
        return torch.from_numpy(np.concatenate([slab.hu for slab in slabs]))

    return restore


def peer_restorer(model: PeerModel, *, steps: int = 1, seed: int = 0) -> Restore:
    """A peer as a restorer of the slice in the middle.

    Parameters
    ----------
    steps : for peers that sample; 1: their own default
    seed : of the noise. Every slice gets the same noise, as neighbouring slices of our samples nearly do.
    """
    device = next(model.parameters()).device
    _, sy, sx = model.config.scale

    def restore(lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        middle = lr_hu[len(lr_hu) // 2][None, None].to(device)
        shape = (1, middle.shape[-2] * sy, middle.shape[-1] * sx)
        noise = SliceNoise(seed, 0, shape, spacing_z_mm=1000.0)  # slices far apart have white noise
        dtype = inference_dtype(device)
        fast = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
        with torch.inference_mode(), fast:
            hr = model.restore_hu(middle, lambda step: noise(0, step)[None].to(device), steps if steps > 1 else None)
        return hr[0].float().cpu()

    return restore


def _one_by_one(restore: Restore) -> Restore:
    """A restorer of the slice in the middle of 2 CONTEXT + 1, made into one for any number of slices."""

    def every(lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        n = 2 * CONTEXT + 1
        return torch.cat([restore(lr_hu[k : k + n], spacing_mm) for k in range(len(lr_hu) - n + 1)])

    return every


def _interpolation(kind: str, scale: tuple[int, int, int], acquisition: Acquisition) -> Restore:
    def bicubic(lr_hu: Tensor, _: Any) -> Tensor:
        return upsample_stack(lr_hu, scale)

    def lanczos(lr_hu: Tensor, _: Any) -> Tensor:
        y, x = lr_hu.shape[-2:]
        rows, columns = (as_tensor(lanczos_matrix(n, n * s), lr_hu) for n, s in ((y, scale[1]), (x, scale[2])))
        return apply_in_plane(lr_hu[CONTEXT, None], rows, columns)

    def projection(lr_hu: Tensor, _: Any) -> Tensor:
        return acquisition.project(upsample_stack(lr_hu, scale), lr_hu[CONTEXT, None])

    return {"bicubic": bicubic, "lanczos": lanczos, "projection": projection}[kind]


def _budget(folder: Path) -> dict[str, Any]:
    """Minutes and steps of training and the corpus, from the log beside the weights or in the run above them."""
    for log in (folder / "log.jsonl", folder.parent / "log.jsonl"):
        if log.is_file():
            break
    else:
        return {}
    records = [json.loads(line) for line in log.read_text().splitlines()]
    # a log may hold several stages (or runs, in weights of 0.1.0); the last record of each has its totals
    last = {r.get("stage") or r.get("run", ""): r for r in records if "minutes" in r}
    budget = {
        "minutes": round(sum(r["minutes"] for r in last.values()), 1),
        "cpu_minutes": round(sum(r.get("cpu_minutes", r["minutes"]) for r in last.values()), 1),
        "steps": sum(r["step"] for r in last.values()),
    }
    return {"budget": budget, "corpus_sha256": next((r["corpus_sha256"] for r in records if "corpus_sha256" in r), "")}
