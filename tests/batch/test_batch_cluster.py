"""A Dask cluster does the same work as one process, also if a worker is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uhrct import io
from uhrct.batch.ledger import DONE, RUNNING, SET_ASIDE, Ledger
from uhrct.batch.run import run_batch
from uhrct.batch.series import find_series
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", silence_logs=50) as made:
        yield made


@pytest.fixture
def cohort(tmp_path: Path, slice_hu: np.ndarray) -> Path:
    for k in range(5):
        hu = np.stack([np.roll(slice_hu, k, 1)[:40, :32]] * 2)
        (tmp_path / "in").mkdir(exist_ok=True)
        io.write(Volume(hu, (2.5, 0.9, 0.8)), tmp_path / "in" / f"ct{k}.nii.gz")
    return tmp_path / "in"


def run(cohort: Path, out: Path, weights: Path, **how: object) -> dict[str, int]:
    settings = {"weights": str(weights), "scale": 2}
    return run_batch(find_series(str(cohort)), out, settings=settings, quiet=True, **how)


def test_a_cluster_gives_the_voxels_of_one_process(cluster, cohort: Path, tiny_model, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "tiny")
    here = run(cohort, tmp_path / "here", tmp_path / "tiny")
    seen = []
    there = run(
        cohort,
        tmp_path / "there",
        tmp_path / "tiny",
        scheduler=cluster.scheduler_address,
        listener=lambda settled, all_of_them: seen.append((settled, all_of_them)),
    )
    assert here == there
    assert there[DONE] == 5
    assert seen[-1] == (5, 5)
    for k in range(5):
        a, b = (io.read(tmp_path / place / f"ct{k}.nii.gz").hu for place in ("here", "there"))
        np.testing.assert_array_equal(a, b)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "there").glob("*.nii.gz")}
    run(cohort, tmp_path / "there", tmp_path / "tiny", scheduler=cluster.scheduler_address)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "there").glob("*.nii.gz")} == before


def test_a_killed_worker_loses_nothing(cluster, cohort: Path, tiny_model, slice_hu, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "tiny")
    for scan in cohort.iterdir():  # long enough to be caught at work
        io.write(Volume(np.stack([slice_hu] * 24), (2.5, 0.9, 0.8)), scan, overwrite=True)
    killed = []

    def kill_once(settled: int, all_of_them: int) -> None:
        """As soon as something is settled, kill the worker of another series."""
        ledger = Ledger(tmp_path / "out")
        end = time.monotonic() + 30
        while not killed and time.monotonic() < end:
            for row in ledger.rows():
                if row["state"] == RUNNING and not killed:
                    os.kill(int(row["worker"].rsplit(":", 2)[1]), signal.SIGKILL)
                    killed.append(row["name"])
            if all(row["state"] == DONE for row in ledger.rows()):
                break
        ledger.close()

    counts = run(cohort, tmp_path / "out", tmp_path / "tiny", scheduler=cluster.scheduler_address, listener=kill_once)
    assert killed
    assert counts[DONE] == 5
    assert not counts[SET_ASIDE]
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 5


def test_no_scheduler_is_one_line(cohort: Path, tiny_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uhrct.batch.cluster.ANSWER_S", 1.0)
    tiny_model.save_pretrained(tmp_path / "tiny")
    with pytest.raises(UhrctError, match="no Dask scheduler answers") as caught:
        run(cohort, tmp_path / "out", tmp_path / "tiny", scheduler="tcp://127.0.0.1:9")
    assert "\n" not in str(caught.value)
