"""The viewer inside of the server: each request sees its own job, and nothing of a deleted job stays in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.serve.app import _READER, Viewer
from uhrct.serve.store import DONE, Job


def done_job(folder: Path, hu: int) -> Job:
    """A job whose result has one value."""
    folder.mkdir()
    for name, n in (("scan", 24), ("fine", 48)):
        volume = Volume(np.full((4, n, n), hu, np.int16), (2.0, 48 / n, 48 / n))
        io.write(volume, folder / f"{name}.nii.gz")
    return Job(folder.name, folder, DONE, suffix=".nii.gz", shown={"result": "fine.nii.gz"})


async def voxels(viewer: Viewer, job: Job) -> bytes:
    """The result as the page gets it."""
    _READER.set(viewer.open(job))
    await asyncio.sleep(0.01)  # the other requests begin
    said: list[bytes] = []

    async def send(message: dict) -> None:
        said.append(message.get("body", b""))

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    path = "/image/1"
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    await viewer.app(scope | {"headers": [], "root_path": "", "http_version": "1.1"}, receive, send)
    return b"".join(said)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine. A thread of its own: Playwright leaves an event loop in that of the tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def together(viewer: Viewer, jobs: list[Job]) -> list[bytes]:
    return await asyncio.gather(*(asyncio.create_task(voxels(viewer, job)) for job in jobs))


def test_requests_at_the_same_time_see_their_own_jobs(tmp_path: Path) -> None:
    jobs = [done_job(tmp_path / name, hu) for name, hu in (("a", 100), ("b", -700))]
    viewer = Viewer()
    alone = [run(voxels(viewer, job)) for job in jobs]
    assert alone[0] != alone[1]
    assert run(together(viewer, jobs * 4)) == alone * 4


def test_the_voxels_of_a_deleted_job_are_freed(tmp_path: Path) -> None:
    job, viewer = done_job(tmp_path / "a", 40), Viewer()
    assert run(voxels(viewer, job))
    study = weakref.ref(viewer.open(job)()[0])
    assert study() is not None
    viewer.close(job)
    gc.collect()
    assert study() is None
