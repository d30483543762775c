"""`uhrct benchmark`: measure every method on every slice into one result file. A later run continues it."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct import io
from uhrct.benchmark.config import BenchmarkConfig, Method
from uhrct.benchmark.methods import Ready, prepare_all
from uhrct.benchmark.results import Results, append, circumstances, measured_before, read_results
from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.consistency import consistency
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.measures import Scores, constants, score_all
from uhrct.evaluation.protocol import CONTEXT, degraded_stack, evenly_spaced
from uhrct.evaluation.slab import score_slab
from uhrct.physics.acquisition import Acquisition


@dataclass(frozen=True)
class _Job:
    """`count` LR slices from `k` on, restored by one method: one slice, or a slab that is judged as a volume."""

    case: str
    protocol: str
    degradation: str
    k: int
    ready: Ready
    count: int = 1
    slab: bool = False

    @property
    def first(self) -> int:
        """First HR slice."""
        return self.k * self.ready.scale[0]

    @property
    def stop(self) -> int:
        """HR slice after the last one."""
        return (self.k + self.count) * self.ready.scale[0]


@dataclass(frozen=True)
class _Restored:
    """Truth, LR scan and result (z, y, x) in HU, the lung mask, and seconds per HR slice."""

    hr: Tensor
    lr: Tensor
    sr: Tensor
    lung: np.ndarray
    acquisition: Acquisition
    seconds: float
    cpu_seconds: float


class Benchmark:
    """Measure everything in a configuration that its result file does not contain yet.

    Example
    -------
    ``uhrct benchmark configs/benchmark.yaml`` and then ``uhrct benchmark configs/benchmark.yaml --report results/x2``
    """

    def __init__(self, config: BenchmarkConfig, *, device: torch.device | None = None, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.device = device or torch.device("cpu")
        self.volumes: dict[str, Volume] = {}
        self.lungs: dict[str, np.ndarray] = {}

    def run(self) -> Results:
        """Measure, and return the content of the result file.

        Raises
        ------
        UhrctError
            If a case is missing, no method is available, or the file was made with other constants.
        """
        config = self.config
        results = read_results(config.out)
        if results.broken:
            self._say(f"{config.out}: the last line was cut off ({results.broken} bytes); it is measured again")
        for case in config.cases:
            if not (config.data / case).exists():
                raise UhrctError(f"{config.data / case}: no such case; set data to the folder that holds it")
        ready, absent = self._methods()
        record = self._record(ready)
        self._carry_over(record, results, absent)
        # a metric that is newer than the file has constants that the file lacks; old rows then lack this metric
        before = results.runs[-1]["constants"] if results.runs else {}
        if any(record["constants"].get(name) != value for name, value in before.items()):
            raise UhrctError(f"{config.out}: was made with other constants of the metrics; choose another out")
        jobs = [j for j in self._jobs(ready) if not self._is_done(j, results.done)]
        if not jobs and results.runs:
            self._say("everything is measured already")
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with config.out.open("ab") as file:
            file.truncate(file.tell() - results.broken)
            append(file, {"run": record})
            for job in track(jobs, "benchmark", quiet=self.quiet):
                for row in [self._measure_slab(job)] if job.slab else self._measure(job):
                    append(file, row)
        return read_results(config.out)

    def _methods(self) -> tuple[dict[str, list[Ready]], list[tuple[str, Method, str]]]:
        """Available methods by protocol, and (protocol, method, reason) of the others."""
        plane = self._volume(self.config.cases[0]).shape[1:]
        out, absent = prepare_all(self.config.methods, self.config.protocols, self.device, plane)
        if not out:
            for protocol, method, why in absent:
                self._say(f"note: {method.name} left out of {protocol}: {why}")
            raise UhrctError("no method has weights; train them first (configs/peers)")
        return out, absent

    def _jobs(self, ready: dict[str, list[Ready]]) -> Iterator[_Job]:
        scales = dict(self.config.protocols)
        for case in self.config.cases:
            for protocol, methods in ready.items():
                sz, sy, sx = scales[protocol]
                n = self._volume(case).shape[0] // sz
                chosen = evenly_spaced(n, self.config.slices)
                thick = min(self.config.volume_slices // sz, n)
                # Without an in-plane scale there is no in-plane degradation that could be bicubic.
                for i, degradation in enumerate(self.config.degradations if sy * sx > 1 else ("scanner",)):
                    for k in chosen:
                        for r in methods:
                            if k in _some(chosen, r.method.slices, n):
                                yield _Job(case, protocol, degradation, k, r)
                    for r in methods if thick and i == 0 else ():
                        if r.method.slices is None:
                            yield _Job(case, protocol, degradation, (n - thick) // 2, r, thick, slab=True)

    def _is_done(self, job: _Job, done: set[tuple[Any, ...]]) -> bool:
        where = (job.ready.identity, job.protocol, job.degradation, job.case)
        places = [(job.first, job.stop)] if job.slab else range(job.first, job.stop)
        return all((*where, place) in done for place in places)

    def _measure(self, job: _Job) -> Iterator[dict[str, Any]]:
        """One row for each HR slice in the LR slice."""
        r = self._restored(job)
        spacing = self._volume(job.case).spacing_mm[1:]
        self._keep_picture(job, r.sr)
        for j, z in enumerate(range(job.first, job.stop)):
            scores = score_all(r.hr[j].numpy(), r.sr[j].numpy(), spacing, lung=r.lung[j])
            scores.take(["consistency_hu"], lambda: [_consistency(r.sr, r.lr[CONTEXT], r.acquisition)])
            yield self._row(job, {"slice": z}, r, scores)

    def _measure_slab(self, job: _Job) -> dict[str, Any]:
        """One row for the whole slab."""
        r = self._restored(job)
        scores = score_slab(r.hr.numpy(), r.sr.numpy(), self._volume(job.case).spacing_mm, r.lung)
        return self._row(job, {"slab": [job.first, job.stop]}, r, scores)

    def _restored(self, job: _Job) -> _Restored:
        volume, acquisition = self._volume(job.case), Acquisition(job.ready.scale, job.degradation)
        hr, lr = degraded_stack(volume, acquisition, job.k, count=job.count)
        z_mm, y_mm, x_mm = (d * s for d, s in zip(volume.spacing_mm, job.ready.scale, strict=True))
        restore = job.ready.restore(acquisition)
        begin, worked = time.perf_counter(), time.process_time()
        sr = restore(lr, (z_mm, y_mm, x_mm)).float().cpu()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - worked
        lung = self.lungs[job.case][job.first : job.stop, : hr.shape[-2], : hr.shape[-1]]
        return _Restored(hr, lr, sr, lung, acquisition, seconds / len(hr), cpu_seconds / len(hr))

    def _row(self, job: _Job, where: dict[str, Any], restored: _Restored, scores: Scores) -> dict[str, Any]:
        return {
            "method": job.ready.method.name,
            "identity": job.ready.identity,
            "protocol": job.protocol,
            "degradation": job.degradation,
            "case": job.case,
            **where,
            "seconds": round(restored.seconds, 4),
            "cpu_seconds": round(restored.cpu_seconds, 4),
            "values": _rounded(scores),
            **({"undefined": scores.reasons} if scores.reasons else {}),
        }

    def _keep_picture(self, job: _Job, sr: Tensor) -> None:
        """Store the middle slice of each case for the figures of the report."""
        n = self._volume(job.case).shape[0] // job.ready.scale[0]
        if job.k == picture_slice(evenly_spaced(n, self.config.slices), n):
            file = picture_file(self.config.out, job.protocol, job.degradation, job.case, job.ready.identity)
            file.parent.mkdir(parents=True, exist_ok=True)
            middle = len(sr) // 2
            data = BytesIO()
            np.savez_compressed(
                data, hu=sr[middle].round().to(torch.int16).numpy(), slice=job.k * job.ready.scale[0] + middle
            )
            write_atomic(file, data.getvalue())

    def _volume(self, case: str) -> Volume:
        if case not in self.volumes:
            self.volumes[case] = io.read(self.config.data / case)
            self.lungs[case] = lung_mask(self.volumes[case].hu, self.volumes[case].spacing_mm, quiet=self.quiet)
        return self.volumes[case]

    def _record(self, ready: dict[str, list[Ready]]) -> dict[str, Any]:
        """The `run` record: versions, device, cases, methods and constants of this run."""
        return {
            **circumstances(self.device),
            "slices": self.config.slices,
            "volume_slices": self.config.volume_slices,
            "cases": [
                {"case": c, "sha256": hashlib.sha256(self._volume(c).hu.tobytes()).hexdigest()[:16]}
                for c in self.config.cases
            ],
            "protocols": {name: list(scale) for name, scale in self.config.protocols},
            "methods": [r.description(protocol) for protocol, methods in ready.items() for r in methods],
            "constants": json.loads(json.dumps(constants())),
        }

    def _carry_over(self, record: dict[str, Any], results: Results, absent: list[tuple[str, Method, str]]) -> None:
        """Keep the rows of methods whose weights are missing now. Leave out methods without rows, with a note."""
        found = record["methods"]
        for protocol, method, reason in absent:
            before = measured_before(results, method, protocol, record["cases"])
            if before is None:
                self._say(f"note: {method.name} left out of {protocol}: {reason}")
            else:
                found.append(before)
                self._say(f"note: {method.name}, {protocol}: no weights found; its earlier results stay")
        order = [m.name for m in self.config.methods], [name for name, _ in self.config.protocols]
        found.sort(key=lambda m: (order[1].index(m["protocol"]), order[0].index(m["name"])))

    def _say(self, line: str) -> None:
        if not self.quiet or line.startswith("note:"):
            print(f"benchmark: {line}", file=sys.stderr, flush=True)


def picture_file(out: Path, protocol: str, degradation: str, case: str, identity: str) -> Path:
    """File with the stored slice of a method, in a folder beside the result file."""
    return out.parent / f"{out.stem}-pictures" / f"{protocol}-{degradation}-{case.replace('/', '-')}-{identity}.npz"


def picture_slice(chosen: list[int], n: int) -> int:
    """The one of the `chosen` slices nearest to the middle of `n`."""
    return min(chosen, key=lambda k: abs(k - n / 2))


def _some(chosen: list[int], most: int | None, n: int) -> list[int]:
    """At most `most` of the chosen slices, evenly spaced, with the slice of the pictures."""
    if most is None or most >= len(chosen):
        return chosen
    some, middle = [chosen[i] for i in evenly_spaced(len(chosen), most)], picture_slice(chosen, n)
    some[min(range(most), key=lambda i: abs(some[i] - middle))] = middle
    return some


def _consistency(sr: Tensor, lr: Tensor, acquisition: Acquisition) -> float:
    thick = acquisition.scale[0] > 1
    return consistency((sr if thick else sr[0]).numpy(), (lr[None] if thick else lr).numpy(), acquisition)


def _rounded(scores: Scores) -> dict[str, float | None]:
    """Values with six digits, the precision of float32 images."""
    return {k: None if v is None else float(f"{v:.6g}") for k, v in scores.values.items()}
