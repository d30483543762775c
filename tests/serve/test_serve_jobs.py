"""Jobs of `uhrct serve`: results, refusals, cancelling, and processes that are killed."""

from __future__ import annotations

import gzip
import io as std_io
import json
import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from pydicom import Dataset
from serving import PATIENCE_S, Client, chest

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.upscaling.files import write_result
from uhrct.upscaling.plan import UpscaleSettings, make_plan

FAST = {"quality": "fast"}


def workers() -> list[multiprocessing.process.BaseProcess]:
    return multiprocessing.active_children()


def wait_until(true, what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def test_a_result_is_that_of_the_command(client: Client, scan_file: Path, tmp_path: Path) -> None:
    job = client.upload(scan_file)
    assert client.start(job, quality="fast", denoise=0.5).status == 204
    found = client.wait(job, "done")
    assert (found["done"], found["total"]) == (6, 6)
    assert any(line.startswith("scan: 6 slices") for line in found["plan"])
    assert any("PSF" in line and "noise" in line for line in found["plan"])
    assert found["notes"]  # so small a scan is outside of the training
    answer = client.ask("GET", f"jobs/{job}/result")
    assert answer.headers["content-disposition"] == 'attachment; filename="uhrct-result.nii.gz"'
    (tmp_path / "got.nii.gz").write_bytes(answer.body)
    got = io.read(tmp_path / "got.nii.gz")
    scan = io.read(scan_file)
    plan = make_plan(scan, UpscaleSettings(quality="fast", denoise=0.5, device="cpu"))
    write_result(plan, scan, tmp_path / "own.nii.gz", quiet=True)
    own = io.read(tmp_path / "own.nii.gz")
    assert got.shape == own.shape == (6, 128, 144)
    assert np.array_equal(got.hu, own.hu)
    assert np.allclose(got.affine, own.affine)
    report = client.ask("GET", f"jobs/{job}/report").said
    assert report["schema"] == "uhrct-report-2"
    assert report["settings"]["denoise"] == 0.5
    assert set(report["warnings"]) == set(found["notes"])
    assert str(client.folder) not in json.dumps(report)


def test_one_of_several_series_as_dicom(client: Client, tmp_path: Path) -> None:
    make_series(tmp_path / "a", shape=(3, 40, 32), seed=1, number=1)
    wanted = make_series(tmp_path / "b", shape=(4, 40, 32), seed=2, number=2)
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in sorted(tmp_path.glob("?/*")):
            archive.write(file, file.relative_to(tmp_path))
    job = client.upload(tmp_path / "study.zip")
    series = client.state(job)["series"]
    assert [(s["number"], s["size"], s["problem"]) for s in series] == [(1, "3 x 40 x 32", ""), (2, "4 x 40 x 32", "")]
    assert PATIENT not in client.ask("GET", "jobs").body.decode()
    assert client.start(job, series=2, **FAST).status == 204
    client.wait(job, "done")
    answer = client.ask("GET", f"jobs/{job}/result")
    with zipfile.ZipFile(std_io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "got")
    got = io.read(tmp_path / "got")
    assert got.shape == (4, 80, 64)
    assert got.meta["format"] == "DICOM"
    # the viewer shows the series that was chosen
    view = client.ask("GET", f"jobs/{job}/view/view")
    assert [p["size"].split(",")[0] for p in view.said["panes"]] == ["4 x 40 x 32", "4 x 80 x 64"]
    data = client.ask("GET", f"jobs/{job}/view/image/0").body
    assert np.array_equal(np.frombuffer(data[352:], "<i2").reshape(wanted.shape), wanted)


def test_the_audit_is_in_report_and_viewer(client: Client, scan_file: Path) -> None:
    pytest.importorskip("scipy")
    job = client.upload(scan_file)
    assert client.start(job, audit=True, format="nifti", **FAST).status == 204
    found = client.wait(job, "done")
    assert len(found["summary"]) == 3
    assert client.ask("GET", f"jobs/{job}/report").said["audit"]["schema"] == "uhrct-audit-1"
    view = client.ask("GET", f"jobs/{job}/view/view").said
    assert [p["label"] for p in view["panes"]] == ["scan", "result"]
    graded = any(any(view_mm.values()) for view_mm in totals(client, job))
    assert [o["name"] for o in view["overlays"]] == (["audit grades (widened)"] if graded else [])


def totals(client: Client, job: str) -> list[dict[str, float]]:
    audit = client.ask("GET", f"jobs/{job}/report").said["audit"]
    return [audit[kind]["total_mm"] for kind in ("vessels", "airways")]


def test_a_scan_can_be_run_again(client: Client, scan_file: Path) -> None:
    job = client.upload(scan_file)
    client.start(job, **FAST)
    client.wait(job, "done")
    first = client.ask("GET", f"jobs/{job}/result").body
    assert client.ask("GET", f"jobs/{job}/view/view").status == 200
    assert client.start(job, denoise=0.0, format="dicom", **FAST).status == 204
    client.wait(job, "done")
    again = client.ask("GET", f"jobs/{job}/result")
    assert again.headers["content-type"] == "application/zip"
    assert again.body != first
    assert client.ask("GET", f"jobs/{job}/view/view").status == 200


def said_by_library(path: Path) -> str:
    """What the command line prints for a scan, without its path."""
    with pytest.raises(UhrctError) as error:
        io.read(path)
    return str(error.value).removeprefix(f"{path}: ")


def test_what_is_no_ct_is_refused_in_the_words_of_the_command(client: Client, tmp_path: Path) -> None:
    def as_mr(_: int, ds: Dataset) -> None:
        ds.Modality = "MR"

    make_series(tmp_path / "mr", shape=(3, 40, 32), edit=as_mr)
    job = client.upload(*sorted((tmp_path / "mr").iterdir()))
    [series] = client.state(job)["series"]
    assert client.start(job, **FAST).status == 204
    client.wait(job, "failed")
    # files are numbered; the page puts their names in again
    assert client.state(job)["error"] == f"scan: {said_by_library(tmp_path / 'mr')}".replace(" 001.dcm", " 000001.dcm")
    assert "MR" in series["problem"] or "MR" in series["text"]


def test_missing_slices_are_refused(client: Client, tmp_path: Path) -> None:
    make_series(tmp_path / "ct", shape=(6, 40, 32), edit=lambda k, _: k != 2)
    job = client.upload(*sorted((tmp_path / "ct").iterdir()))
    [series] = client.state(job)["series"]
    assert series["problem"]
    client.start(job, **FAST)
    client.wait(job, "failed")
    assert "missing" in client.state(job)["error"]
    assert client.ask("GET", f"jobs/{job}/result").status == 409


def zip_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.dcm", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))


def gzip_bomb(path: Path) -> None:
    whole = gzip.decompress(path.with_name("scan.nii.gz").read_bytes())
    path.write_bytes(gzip.compress(whole[:4000]) + gzip.compress(bytes(10 << 20)) * 50)


@pytest.mark.parametrize(("name", "make"), [("bomb.zip", zip_bomb), ("bomb.nii.gz", gzip_bomb)])
def test_bombs_are_refused(client: Client, tmp_path: Path, name: str, make) -> None:
    io.write(chest(), tmp_path / "scan.nii.gz")
    make(tmp_path / name)
    job = client.upload(tmp_path / name, wanted="failed" if name.endswith("zip") else "ready")
    if name.endswith("zip"):
        assert "more than CT can compress" in client.state(job)["error"]
    else:
        client.start(job, **FAST)
        client.wait(job, "failed")
        assert "smaller than the file's voxels" in client.state(job)["error"]


@pytest.fixture
def long_scan(tmp_path: Path) -> Path:
    io.write(chest((120, 128, 128)), tmp_path / "long.nii.gz")
    return tmp_path / "long.nii.gz"


@pytest.mark.slow
def test_a_run_is_cancelled_and_the_next_one_begins(client: Client, long_scan: Path, scan_file: Path) -> None:
    job, other = client.upload(long_scan), client.upload(scan_file)
    client.start(job, denoise=1.0)
    client.start(other, **FAST)
    wait_until(lambda: client.state(job)["done"] > 0, "no progress")
    assert client.state(job)["left"].endswith("left")
    assert client.state(other)["state"] == "waiting"
    assert client.post(f"jobs/{other}/cancel").status == 204
    assert client.state(other)["state"] == "cancelled"
    assert client.start(other, **FAST).status == 204
    [pid] = [worker.pid for worker in workers()]
    assert client.post(f"jobs/{job}/cancel").status == 204
    assert pid not in [worker.pid for worker in workers()]
    assert client.state(job)["state"] == "cancelled"
    assert [p.name for p in client.stored() if job in p.parts] == ["scan.nii.gz"]
    client.wait(other, "done")


@pytest.mark.slow
def test_a_killed_process_ends_its_run_alone(client: Client, long_scan: Path, scan_file: Path) -> None:
    job = client.upload(long_scan)
    client.start(job, denoise=1.0)
    wait_until(lambda: client.state(job)["stage"].startswith("computing"), "no start")
    [worker] = workers()
    os.kill(worker.pid or 0, signal.SIGKILL)
    client.wait(job, "failed")
    assert "was ended" in client.state(job)["error"]
    assert client.ask("GET", f"jobs/{job}/result").status == 409
    other = client.upload(scan_file)
    client.start(other, **FAST)
    client.wait(other, "done")


def test_a_scan_is_deleted_while_it_is_computed(client: Client, long_scan: Path) -> None:
    job = client.upload(long_scan)
    client.start(job, denoise=1.0)
    wait_until(lambda: client.state(job)["stage"].startswith("computing"), "no start")
    assert client.ask("DELETE", f"jobs/{job}").status == 204
    assert workers() == []
    assert client.stored() == []
    assert client.ask("GET", "jobs").said["jobs"] == []


def test_a_result_that_does_not_fit_on_the_disk_is_refused(
    client: Client, scan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.upload(scan_file)
    lane = "uhrct.serve.lane.Task"
    real = __import__("uhrct.serve.worker", fromlist=["Task"]).Task
    monkeypatch.setattr(lane, lambda *a: real(*a[:4], kept_free=10**18))
    client.start(job, **FAST)
    client.wait(job, "failed")
    assert "the result needs up to" in client.state(job)["error"]
