"""The folder of a training: log, checkpoint and messages; and the processes that share the work."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic, write_atomic
from uhrct.models.folder import UNFINISHED

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


class Run:
    """The folder of one training and the process that works on it. Under torchrun there are several processes.

    Files: `checkpoint.pt` (exact resume), `train.json` (the settings), `log.jsonl` (losses and validation scores of
    every stage), `curve.png`, and the result: `model/` or `surrogate.safetensors`. `unfinished` is there until the end.

    Parameters
    ----------
    out : the folder; it must be new or empty, unless `resume` is set
    resume : go on from the checkpoint in `out`; without a checkpoint the training starts anew
    device : None: a GPU if there is one

    Raises
    ------
    UhrctError
        If the folder is in use, or its checkpoint cannot be read.
    """

    def __init__(
        self, out: str | Path, *, resume: bool = False, device: torch.device | None = None, quiet: bool = False
    ) -> None:
        self.out, self.quiet = Path(out), quiet
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = device or _own_device()
        if self.world > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if self.out.exists() and any(self.out.iterdir()) and not resume and self.main:
            raise UhrctError(f"{self.out}: not empty; set `resume=True` to go on with it, or choose another folder")
        self.checkpoint = self._read() if resume else None

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def start(self, settings: dict[str, Any]) -> None:
        """Make the folder and write `train.json`."""
        if self.main:
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomic(self.out / "train.json", json.dumps(settings, indent=2) + "\n")
            write_atomic(self.out / UNFINISHED, "uhrct train --resume goes on with this training.\n")

    def say(self, line: str) -> None:
        """A line for the user."""
        if self.main and not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def log(self, record: dict[str, Any]) -> None:
        """A line of `log.jsonl`."""
        if self.main:
            record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}
            with (self.out / LOG).open("a") as file:
                file.write(json.dumps(record) + "\n")

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with atomic(self.out / CHECKPOINT) as folder:
            torch.save(state, folder / CHECKPOINT)

    def bad_checkpoint(self, error: Exception) -> UhrctError:
        """What to raise where the checkpoint does not fit."""
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        return UhrctError(f"{self.out / CHECKPOINT}: cannot go on from it ({reason}); start anew in another folder")

    def finish(self) -> None:
        """Draw the curve and leave the other processes."""
        if self.main:
            (self.out / UNFINISHED).unlink(missing_ok=True)
            from uhrct.training.curve import draw_curve

            try:
                draw_curve(self.out)
            except ImportError:  # the weights are there, so this must not fail
                self.say("no curve.png without matplotlib; pip install 'uhrct[train]'")
        if self.world > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()

    def _read(self) -> dict[str, Any] | None:
        file = self.out / CHECKPOINT
        if not file.is_file():
            return None
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
            return {**state, "stage": state["stage"], "step": state["step"]}
        except Exception as error:  # unpickling raises errors of any kind
            raise self.bad_checkpoint(error) from error


def _own_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
