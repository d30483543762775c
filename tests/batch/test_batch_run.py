"""Whole cohorts: results, failures, killed workers, a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from uhrct import io
from uhrct.batch import worker
from uhrct.batch.ledger import DONE, FAILED, RUNNING, WAITING, Ledger
from uhrct.batch.run import next_gpu, run_batch, settings_hash
from uhrct.batch.series import find_series
from uhrct.batch.worker import DISK_FULL, FINISHED, Job, read_through, work
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.upscaling.upscaler import Upscaler


@pytest.fixture
def cohort(tmp_path: Path, slice_hu: np.ndarray) -> Path:
    """Three small scans in two folders."""
    folder = tmp_path / "in"
    for k, name in enumerate(("p1/ct.nii.gz", "p1/late.nrrd", "p2/ct.nii.gz")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        hu = np.stack([np.roll(slice_hu, k, 1)[:40, :32]] * 2)
        io.write(Volume(hu, (2.5, 0.9, 0.8)), folder / name)
    return folder


@pytest.fixture
def weights(tiny_model, tmp_path: Path) -> str:
    tiny_model.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def prepared(cohort: Path, out: Path, weights: str) -> Job:
    """A ledger with everything in it, and the job of a worker."""
    settings = {"weights": weights, "scale": 2}
    job = Job(out, settings, wanted=settings_hash(settings, None, False))
    ledger = Ledger(out)
    ledger.enrol(find_series(str(cohort)), job.wanted, None)
    ledger.close()
    return job


def states(out: Path) -> dict[str, str]:
    return {row["name"]: row["state"] for row in Ledger(out).rows()}


def test_every_result_is_that_of_the_upscaler_and_a_damaged_scan_stops_nobody(
    cohort: Path, weights: str, tmp_path: Path
) -> None:
    (cohort / "p2" / "damaged.nii.gz").write_bytes(b"junk")
    out, calls = tmp_path / "out", []
    counts = run_batch(
        find_series(str(cohort)),
        out,
        settings={"weights": weights, "scale": 2},
        listener=lambda settled, all_: calls.append((settled, all_)),
        quiet=True,
    )
    assert (counts[DONE], counts[FAILED], sum(counts.values())) == (3, 1, 4)
    assert calls[-1] == (4, 4)
    upscaler = Upscaler(weights=weights, scale=2)
    for name in ("p1/ct.nii.gz", "p1/late.nrrd", "p2/ct.nii.gz"):
        np.testing.assert_array_equal(io.read(out / name).hu, upscaler(io.read(cohort / name)).volume.hu)
    rows = {row["name"]: row for row in Ledger(out).rows()}
    assert "damaged.nii.gz" in rows["p2/damaged"]["error"]
    assert rows["p1/ct"]["report"] is not None
    assert rows["p1/ct"]["fingerprint"] != rows["p2/ct"]["fingerprint"]


def test_what_can_never_work_is_said_once_and_not_by_every_series(cohort: Path, tmp_path: Path) -> None:
    for settings, words in (({"scale": 3}, "no weights serve scale x3"), ({"device": "cuda:99"}, "this machine has")):
        with pytest.raises(UhrctError, match=words):
            run_batch(find_series(str(cohort)), tmp_path / "out", settings=settings, quiet=True)
    assert not (tmp_path / "out").exists()


def test_the_files_of_the_next_series_are_read_meanwhile(
    cohort: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(worker, "read_through", read.append)
    assert work(prepared(cohort, tmp_path / "out", weights)) == FINISHED
    assert sorted(read) == [cohort / "p1" / "late.nrrd", cohort / "p2" / "ct.nii.gz"]
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / name).write_bytes(b"12345")
    assert read_through(tmp_path / "two") == 10
    assert read_through(tmp_path / "missing") == 0


def test_a_second_run_computes_only_what_changed(cohort: Path, weights: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = prepared(cohort, out, weights)
    assert work(job) == FINISHED
    times = {p: p.stat().st_mtime_ns for p in out.rglob("ct.*")}
    os.utime(cohort / "p1" / "ct.nii.gz")  # other times, the same voxels
    volume = io.read(cohort / "p2" / "ct.nii.gz")
    io.write(Volume(volume.hu + 1, volume.spacing_mm), cohort / "p2" / "ct.nii.gz", overwrite=True)
    prepared(cohort, out, weights)
    assert states(out) == {"p1/ct": WAITING, "p1/late": DONE, "p2/ct": WAITING}
    assert work(job) == FINISHED
    assert set(states(out).values()) == {DONE}
    changed = {p.parent.name for p, before in times.items() if p.stat().st_mtime_ns != before}
    assert changed == {"p2"}


def test_a_full_disk_loses_nothing_and_ends_the_run(
    cohort: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise UhrctError("cannot be written (No space left on device)") from error

    out = tmp_path / "out"
    job = prepared(cohort, out, weights)
    with monkeypatch.context() as patch:
        patch.setattr("uhrct.upscaling.files.write_result", full)
        assert work(job) == DISK_FULL
    assert set(states(out).values()) == {WAITING}
    assert work(job) == FINISHED
    assert set(states(out).values()) == {DONE}


def test_a_mistake_of_ours_is_entered_without_the_text_of_the_exception(
    cohort: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: object, **__: object) -> None:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr(worker, "_write", mistake)
    out = tmp_path / "out"
    assert work(prepared(cohort, out, weights)) == FINISHED
    errors = [row["error"] for row in Ledger(out).rows()]
    assert len(errors) == 3
    assert all("ValueError" in e and "Doe" not in e for e in errors)


def test_killed_workers_are_replaced_and_every_result_arrives(cohort: Path, weights: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed: list[int] = []

    def kill_one() -> None:
        """SIGKILL for the first worker that holds a series."""
        end = time.monotonic() + 60
        while not killed and time.monotonic() < end:
            for row in Ledger(out).rows():
                if row["state"] == RUNNING:
                    pid = int(row["worker"].split(":")[1])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                    return
            time.sleep(0.002)

    killer = threading.Thread(target=kill_one)
    killer.start()
    counts = run_batch(find_series(str(cohort)), out, settings={"weights": weights, "scale": 2}, workers=1, quiet=True)
    killer.join()
    assert killed
    assert (counts[DONE], sum(counts.values())) == (3, 3)
    for name in ("p1/ct.nii.gz", "p1/late.nrrd", "p2/ct.nii.gz"):
        assert io.read(out / name).shape == (2, 80, 64)
    assert not [p for p in out.rglob(".uhrct-*")]


def test_two_parts_at_once_give_the_voxels_of_one_process(cohort: Path, weights: str, tmp_path: Path) -> None:
    run_batch(find_series(str(cohort)), tmp_path / "one", settings={"weights": weights, "scale": 2}, quiet=True)
    command = [sys.executable, "-m", "uhrct", "batch", str(cohort), str(tmp_path / "two"), "--weights", weights]
    parts = [subprocess.Popen([*command, "--part", f"{i}/2"], stderr=subprocess.PIPE, text=True) for i in (0, 1)]
    errors = [part.communicate(timeout=240)[1] for part in parts]
    assert [part.returncode for part in parts] == [0, 0], errors
    assert states(tmp_path / "two") == dict.fromkeys(("p1/ct", "p1/late", "p2/ct"), DONE)
    for name in ("p1/ct.nii.gz", "p1/late.nrrd", "p2/ct.nii.gz"):
        np.testing.assert_array_equal(io.read(tmp_path / "two" / name).hu, io.read(tmp_path / "one" / name).hu)


def test_ctrl_c_ends_the_workers_and_the_next_run_goes_on(cohort: Path, weights: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "uhrct", "batch", str(cohort), str(out), "--weights", weights]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while time.monotonic() < end and not ((out / "uhrct-ledger.sqlite").exists() and Ledger(out).rows()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert RUNNING not in states(out).values()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "3 series: 3 done" in again.stderr


def test_a_result_that_was_replaced_before_its_worker_died_is_not_taken_for_the_old_one(
    cohort: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    job = prepared(cohort, out, weights)
    assert work(job) == FINISHED
    old = io.read(out / "p1" / "ct.nii.gz").hu
    changed = Job(out, job.settings | {"seed": 1}, wanted="changed")
    ledger = Ledger(out)
    ledger.enrol(find_series(str(cohort)), "changed", None)
    write = worker._write

    def then_die(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        io.write(Volume(old + 7, (2.5, 0.45, 0.4)), out / "p1" / "ct.nii.gz", overwrite=True)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_write", then_die)
        with pytest.raises(SystemExit):
            work(changed)
    prepared(cohort, out, weights)
    assert work(job) == FINISHED
    np.testing.assert_array_equal(io.read(out / "p1" / "ct.nii.gz").hu, old)


def test_each_worker_gets_the_gpu_with_the_fewest_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert next_gpu("auto", []) == "0"
    assert next_gpu("cuda", ["0"]) == "1"
    assert next_gpu(None, ["0", "1", "1"]) == "0"
    assert next_gpu("cuda:1", []) is None  # the user chose
    assert next_gpu("cpu", []) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert next_gpu("auto", ["4"]) == "6"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert next_gpu("auto", []) is None
