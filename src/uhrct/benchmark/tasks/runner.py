"""`uhrct benchmark` of tasks: every tool on the true scan and on the result of every method, into one result file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from uhrct.benchmark.methods import Ready, prepare_all
from uhrct.benchmark.results import append, circumstances
from uhrct.benchmark.tasks.cases import Case, Scan, common_multiple, list_cases, load_case
from uhrct.benchmark.tasks.config import TRUE_SCAN, TasksConfig
from uhrct.benchmark.tasks.rows import Row, TaskResults, key, mask_file, read_task_results, store_mask
from uhrct.benchmark.tasks.tools import Tool
from uhrct.core.errors import UhrctError
from uhrct.core.hu import INT16
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import degraded_stack
from uhrct.physics.acquisition import Acquisition
from uhrct.tasks.detect import Searched


@dataclass(frozen=True)
class _Step:
    """All tools on one volume: the true scan (`ready` is None) or the result of a method."""

    case: Case
    protocol: str
    ready: Ready | None
    tools: tuple[Tool, ...]


class TaskBenchmark:
    """Measure everything in a configuration that its result file does not contain yet.

    One case and one restored volume are in memory at a time.

    Example
    -------
    ``uhrct benchmark configs/benchmark-tasks.yaml``
    """

    def __init__(self, config: TasksConfig, *, device: torch.device | None = None, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.device = device or torch.device("cpu")
        self.multiple = common_multiple(config)

    def run(self) -> TaskResults:
        """Measure, and return the content of the result file.

        Raises
        ------
        UhrctError
            If a case or the weights of a tool are missing, no method is available, or the voxels of a case are not
            those of earlier rows.
        """
        out = self.config.out
        results = read_task_results(out)
        if results.broken:
            self._say(f"{out}: the last line was cut off ({results.broken} bytes); it is measured again")
        cases = list_cases(self.config)
        tools = [Tool.of(task, name, self.device.type) for task, name in self.config.tools]
        ready, absent = prepare_all(self.config.methods, self.config.protocols, self.device)
        for protocol, method, reason in absent:
            self._say(f"note: {method.name} left out of {protocol}: {reason}")
        if not ready:
            raise UhrctError("no method has weights; train them first (configs/peers)")
        done = {key(row) for row in results.rows}
        steps = [s for case in cases for s in self._steps(case, tools, ready, done)]
        if not steps:
            self._say("everything is measured already")
            return results
        out.parent.mkdir(parents=True, exist_ok=True)
        pictured = {task: next(c.name for c in cases if task in c.tasks) for task, _ in self.config.tools}
        with out.open("ab") as file:
            file.truncate(file.tell() - results.broken)
            methods = [r.description(protocol) for protocol, some in ready.items() for r in some]
            append(file, {"run": {**circumstances(self.device), "methods": methods}})
            loaded: tuple[Case, Scan] | None = None
            for step in track(steps, "benchmark of tasks", quiet=self.quiet):
                if loaded is None or loaded[0] is not step.case:
                    loaded = None  # free the scan before the next one is read
                    loaded = (step.case, load_case(step.case, self.multiple))
                    self._check_voxels(results, step.case, loaded[1])
                for row in self._measure(step, loaded[1], pictured):
                    append(file, row)
        return read_task_results(out)

    def _steps(
        self, case: Case, tools: list[Tool], ready: dict[str, list[Ready]], done: set[tuple[str, ...]]
    ) -> Iterator[_Step]:
        """The volumes of a case on which a tool is not measured yet."""
        mine = [t for t in tools if t.task in case.tasks]
        volumes: list[tuple[str, Ready | None]] = [("", None)]
        volumes += [(protocol, r) for protocol, some in ready.items() for r in some]
        for protocol, method in volumes:
            left = tuple(t for t in mine if key(self._head(case, protocol, method, t)) not in done)
            if left:
                yield _Step(case, protocol, method, left)

    def _head(self, case: Case, protocol: str, ready: Ready | None, tool: Tool) -> Row:
        """The part of a row that identifies it."""
        return {
            "task": tool.task,
            "tool": tool.name,
            "tool_sha256": tool.sha256,
            "case": case.name,
            "protocol": protocol,
            "degradation": self.config.file.degradation if ready else "",
            "method": ready.method.name if ready else TRUE_SCAN,
            "identity": ready.identity if ready else "",
        }

    def _measure(self, step: _Step, scan: Scan, pictured: dict[str, str]) -> Iterator[Row]:
        begin = time.perf_counter()
        volume = scan.volume if step.ready is None else self._restored(scan.volume, step.ready)
        seconds = time.perf_counter() - begin
        kept: dict[str, Searched] = {}
        for tool in step.tools:
            head = self._head(step.case, step.protocol, step.ready, tool)
            begin = time.perf_counter()
            try:
                found, mask = tool.measure(volume, scan, kept)
            except UhrctError as error:
                raise UhrctError(f"{step.case.scan}: {error}") from error
            times = {"seconds": round(seconds, 2), "tool_seconds": round(time.perf_counter() - begin, 2)}
            if mask is not None and pictured[tool.task] == step.case.name:
                store_mask(mask, volume.spacing_mm, mask_file(self.config.out, head, tool.task, step.case.name))
                if step.ready is None and tool.task in scan.trees:
                    truth = scan.trees[tool.task].mask
                    store_mask(truth, volume.spacing_mm, mask_file(self.config.out, None, tool.task, step.case.name))
            yield {**head, "scan": scan.sha256, **times, **found}

    def _restored(self, volume: Volume, ready: Ready) -> Volume:
        """The scan degraded and restored by a method, on its own grid."""
        acquisition = Acquisition(ready.scale, self.config.file.degradation)
        lr = degraded_stack(volume, acquisition, 0, count=volume.shape[0] // ready.scale[0])[1]
        z_mm, y_mm, x_mm = (d * s for d, s in zip(volume.spacing_mm, ready.scale, strict=True))
        sr = ready.restore(acquisition)(lr, (z_mm, y_mm, x_mm)).cpu().numpy()
        hu = np.empty(volume.shape, np.int16)
        for z, part in enumerate(sr):  # slice by slice: no second copy of the volume
            hu[z] = np.rint(part).clip(INT16.min, INT16.max)
        return volume.on_grid(volume.grid, hu)

    def _check_voxels(self, results: TaskResults, case: Case, scan: Scan) -> None:
        if any(r["scan"] != scan.sha256 for r in results.rows if r["case"] == case.name):
            raise UhrctError(
                f"{self.config.out}: the rows of {case.name} were measured on other voxels; choose another out"
            )

    def _say(self, line: str) -> None:
        if not self.quiet or line.startswith("note:"):
            print(f"benchmark: {line}", file=sys.stderr, flush=True)
