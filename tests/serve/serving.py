"""A server of `uhrct serve` in a thread, requests as a page makes them, and a small scan."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from in_thread import in_thread

from uhrct.cli.app import as_options
from uhrct.cli.serve import OPTIONS
from uhrct.core.volume import Volume
from uhrct.serve.serve import serve
from uhrct.serve.store import Limits

#: a run on a small scan takes seconds; importing torch on a busy machine takes longer
PATIENCE_S = 180.0


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.said["error"]


@dataclass
class Client:
    """Speaks with the server as the page does."""

    address: str
    folder: Path

    @property
    def origin(self) -> str:
        return f"http://{urlsplit(self.address).netloc}"

    def ask(self, method: str, path: str = "", body: Any = None, fields: dict[str, str] | None = None) -> Answer:
        """A request; `fields` replaces those that a page sends with requests that change something."""
        if fields is None:
            fields = {} if method == "GET" else {"Origin": self.origin, "X-Uhrct": "1"}
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
        connection.request(method, parts.path + path, body, fields)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        connection.close()
        return found

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", path, body)

    def job(self) -> str:
        answer = self.post("jobs")
        assert answer.status == 201, answer
        return answer.said["name"]

    def send(self, job: str, data: bytes, suffix: str) -> Answer:
        return self.post(f"jobs/{job}/files?suffix={suffix}", data)

    def state(self, job: str) -> dict[str, Any]:
        return next(j for j in self.ask("GET", "jobs").said["jobs"] if j["name"] == job)

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        until = time.monotonic() + PATIENCE_S
        while (found := self.state(job))["state"] not in states:
            assert time.monotonic() < until, found
            assert found["state"] != "failed" or "failed" in states, found
            time.sleep(0.05)
        return found

    def upload(self, *files: Path, wanted: str = "ready") -> str:
        """A job with these files, looked at."""
        job = self.job()
        for file in files:
            suffix = next(
                (s for s in (".nii.gz", ".zip", ".dcm", ".nrrd", ".mha", ".nii") if file.name.endswith(s)), ""
            )
            assert self.send(job, file.read_bytes(), suffix).status == 201
        assert self.post(f"jobs/{job}/look").status == 204
        self.wait(job, wanted)
        return job

    def start(self, job: str, **wish: Any) -> Answer:
        return self.post(f"jobs/{job}/start", json.dumps(wish))

    def stored(self) -> list[Path]:
        """All files of the server."""
        return sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != "lock")


@contextmanager
def serving(folder: Path, **limits: Any) -> Iterator[Client]:
    """A server whose files lie in `folder`."""
    settings = {"limits": Limits(**{"kept_free": 0, **limits}), "folder": folder, "device": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        # processes of the server compute as this one does
        patch.setenv("OMP_NUM_THREADS", "1")
        with in_thread(serve, wording=lambda text: as_options(text, OPTIONS), **settings) as address:
            yield Client(address, folder)


def chest(
    shape: tuple[int, int, int] = (6, 64, 72), spacing_mm: tuple[float, float, float] = (2.0, 1.2, 1.2)
) -> Volume:
    """Air, a body, a lung with vessels, and noise."""
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    hu = np.where(np.hypot(y - 0.5, x - 0.5) < 0.45, 40.0, -1000.0)
    for side in (0.3, 0.7):
        hu = np.where(np.hypot(y - 0.5, 1.3 * (x - side)) < 0.2, -850.0, hu)
        hu = np.where(np.hypot(y - 0.45 - 0.05 * z, x - side) < 0.03, 20.0, hu)
    hu += np.random.default_rng(1).normal(0, 12, shape)
    return Volume(hu.round().astype(np.int16), (2.0, 1.2, 1.2), (-40.0, 12.0, 7.0))
