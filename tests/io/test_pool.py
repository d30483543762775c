"""Writing on threads: in order where it counts, bounded, and the first error is the one that is told."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.io.dicom import write as dicom_write
from uhrct.io.pool import BoundedPool


def test_who_is_faster_has_to_wait() -> None:
    go = threading.Semaphore(0)
    accepted = []

    def job() -> None:
        go.acquire()

    def feed() -> None:
        with BoundedPool(workers=2, room=3) as pool:
            for k in range(8):
                pool.submit(job)
                accepted.append(k)

    thread = threading.Thread(target=feed)
    thread.start()
    time.sleep(0.2)
    running = len(accepted)
    for _ in range(8):
        go.release()
    thread.join(10)
    most = len(accepted)
    assert (running, most) == (3, 8)


def test_results_come_in_the_order_of_submission() -> None:
    got: list[int] = []

    def job(k: int) -> int:
        time.sleep(0.01 if k % 3 == 0 else 0)
        return k

    with BoundedPool(workers=3, room=4, deliver=got.append) as pool:
        for k in range(20):
            pool.submit(job, k)
    assert got == list(range(20))


def test_first_error_comes_out_and_stops_the_rest() -> None:
    done = []

    def job(k: int) -> None:
        if k == 2:
            raise OSError("disk full")
        time.sleep(0.01)
        done.append(k)

    def feed() -> None:
        with BoundedPool(workers=1, room=2) as pool:
            for k in range(50):
                pool.submit(job, k)

    with pytest.raises(OSError, match="disk full"):
        feed()
    assert len(done) < 10


def test_slab_may_be_filled_anew_after_write(tmp_path: Path) -> None:
    slab = np.empty((1, 64, 64), np.int16)
    with io.open_writer(tmp_path / "out", Grid((40, 64, 64), (1, 1, 1)), dtype="int16") as writer:
        for k in range(40):
            slab[:] = k
            writer.write(slab)
    got = io.read(tmp_path / "out").hu
    np.testing.assert_array_equal(got, np.broadcast_to(np.arange(40)[:, None, None], got.shape))


def test_error_in_a_thread_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_series(tmp_path / "in", shape=(30, 4, 4))
    source = io.read(tmp_path / "in")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dicom_write, "pixel_element", full)
    with pytest.raises(UhrctError, match=r"out: cannot be written \(No space left"):
        io.write(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_disk_that_takes_only_a_part_is_an_error_too(tmp_path: Path) -> None:
    """Where the disk is full the system writes what fits, and says how much: no error until the next call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with (
            pytest.raises(UhrctError, match=r"out: cannot be written"),
            io.open_writer(tmp_path / "out", Grid((1, 512, 512), (1, 1, 1)), dtype="int16") as writer,
        ):
            writer.write(np.zeros((1, 512, 512), np.int16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_buffers_are_not_filled_anew_before_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays go round between `write` and the threads; a slow disk must not see the next slice's voxels."""
    fast = dicom_write.pixel_element

    def slow(stored: np.ndarray, syntax: str) -> list[object]:
        time.sleep(0.002)
        return fast(stored, syntax)

    monkeypatch.setattr(dicom_write, "pixel_element", slow)
    hu = np.random.default_rng(0).integers(-1000, 1000, (60, 16, 16)).astype(np.int16)
    io.write(Volume(hu, (1.0, 1.0, 1.0)), tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, hu)
