"""The server of `uhrct serve`: who is let in, what may be uploaded, and that no name of a client reaches the disk."""

from __future__ import annotations

import json
import socket
import stat
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from serving import Client, serving

from uhrct.serve import upload
from uhrct.serve.page import PARTS

CHANGES = [
    ("POST", "jobs"),
    ("DELETE", "jobs/none"),
    ("POST", "jobs/none/start"),
    ("POST", "jobs/none/files?suffix=.nii"),
]


def test_the_page_and_its_parts_are_served(client: Client) -> None:
    page = client.ask("GET")
    assert page.status == 200
    assert b"Research use only; not a medical device." in page.body
    assert b"[[" not in page.body
    for name in PARTS:
        assert client.ask("GET", name).status == 200


@pytest.mark.parametrize("path", ["", "jobs", "nothing", "jobs/none/result", "jobs/none/view/"])
def test_every_answer_has_the_headers(client: Client, path: str) -> None:
    headers = client.ask("GET", path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Origin": "own"},
        {"X-Uhrct": "1"},
        {"Origin": "http://evil.example", "X-Uhrct": "1"},
        {"Origin": "null", "X-Uhrct": "1"},
        {"Origin": "own", "X-Uhrct": "1", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "own", "X-Uhrct": "1", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_changes_need_the_origin_and_the_field_of_the_page(
    client: Client, method: str, path: str, fields: dict[str, str]
) -> None:
    fields = {k: client.origin if v == "own" else v for k, v in fields.items()}
    answer = client.ask(method, path, fields=fields)
    assert (answer.status, answer.body) == (403, b"refused\n")
    assert client.ask("GET", "jobs").said["jobs"] == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    assert client.ask(method, "jobs", fields={"Origin": client.origin, "X-Uhrct": "1"}).status == 405


def test_the_secret_and_the_host_are_checked_for_changes_too(client: Client) -> None:
    fields = {"Origin": client.origin, "X-Uhrct": "1"}
    wrong = Client(client.address.replace(client.address[-5:-1], "AAAA"), client.folder)
    assert wrong.ask("POST", "jobs", fields=fields).status == 403
    assert client.ask("POST", "jobs", fields=fields | {"Host": "evil.example"}).status == 421


SUFFIXES = [
    "../../../tmp/evil",
    "..%2f..%2fevil.dcm",
    "/etc/passwd",
    ".nii.gz/../../evil",
    ".dcm%00.sh",
    "%0a.dcm",
    ".exe",
    ".npz",
    ".zarr",
    ".mhd",
    ".DCM",
    "x" * 3000,
]


@pytest.mark.parametrize("suffix", SUFFIXES, ids=range(len(SUFFIXES)))
def test_kinds_of_files_are_a_fixed_list(client: Client, suffix: str) -> None:
    job = client.job()
    answer = client.send(job, b"abc", suffix)
    assert answer.status in (415, 422)
    assert client.stored() == []
    assert client.state(job)["files"] == 0


NAMES = ["..", "../..", "%2e%2e", "..%2f..", "0", "a" * 5000, "%00", "jobs", "none"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_jobs_are_found_by_names_that_the_server_gave(client: Client, name: str) -> None:
    job = client.job()
    for method, path in (("GET", "result"), ("GET", "report"), ("GET", "view/"), ("POST", "start"), ("POST", "look")):
        assert client.ask(method, f"jobs/{name}/{path}").status in (404, 405, 422)
    assert client.ask("DELETE", f"jobs/{name}").status in (404, 405, 422)
    assert [j["name"] for j in client.ask("GET", "jobs").said["jobs"]] == [job]


def test_the_server_names_the_files_itself(client: Client) -> None:
    job = client.job()
    for k in range(3):
        fields = {"Origin": client.origin, "X-Uhrct": "1", "Content-Disposition": 'attachment; filename="../../evil"'}
        answer = client.ask("POST", f"jobs/{job}/files?suffix=.dcm&name=../../evil{k}", b"abc", fields)
        assert answer.said == {"number": k + 1}
    assert [p.name for p in client.stored()] == ["000001.dcm", "000002.dcm", "000003.dcm"]
    assert all(stat.S_IMODE(p.parent.stat().st_mode) == 0o700 for p in client.stored())


def upload_head(client: Client, job: str, count: int) -> tuple[bytes, tuple[str, int]]:
    """The head of a request that announces so many bytes, and where to send it."""
    parts = urlsplit(client.address)
    head = f"POST {parts.path}jobs/{job}/files?suffix=.nii HTTP/1.1\r\nHost: {parts.netloc}\r\nX-Uhrct: 1\r\n"
    head += f"Origin: {client.origin}\r\nContent-Length: {count}\r\n\r\n"
    return head.encode(), (str(parts.hostname), int(parts.port or 0))


def test_a_scan_larger_than_the_limit_is_refused_before_it_is_sent(client: Client) -> None:
    job = client.job()
    head, place = upload_head(client, job, 50000001)
    with socket.create_connection(place, timeout=60) as raw:
        raw.sendall(head)
        answer = raw.recv(4096)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert client.stored() == []
    assert client.state(job)["megabytes"] == 0


def test_files_together_are_limited_too(client: Client) -> None:
    job = client.job()
    for _ in range(2):
        assert client.send(job, bytes(20_000_000), ".dcm").status == 201
    answer = client.send(job, bytes(20_000_000), ".dcm")
    assert (answer.status, "--max-gb" in answer.error) == (413, True)
    assert len(client.stored()) == 2


def test_a_size_must_be_announced(client: Client) -> None:
    job = client.job()
    chunked = client.ask("POST", f"jobs/{job}/files?suffix=.dcm", iter([b"abc"]))
    assert chunked.status == 411
    assert client.stored() == []


def test_an_upload_that_breaks_off_leaves_nothing(client: Client) -> None:
    job = client.job()
    head, place = upload_head(client, job, 1000000)
    with socket.create_connection(place, timeout=60) as raw:
        raw.sendall(head + bytes(500_000))
        until = time.monotonic() + 60
        while not client.stored() and time.monotonic() < until:
            time.sleep(0.02)
        assert client.stored()
        assert client.post(f"jobs/{job}/look").status == 409
    while client.stored() and time.monotonic() < until:
        time.sleep(0.02)
    assert client.stored() == []
    assert client.state(job)["megabytes"] == 0
    assert client.send(job, b"abc", ".nii").status == 201  # it can be sent again


@pytest.mark.parametrize(("name", "value"), [("QUIET_S", 0.3), ("GRACE_S", 0.0)])
def test_slow_uploads_end(client: Client, monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(upload, name, value)
    monkeypatch.setattr(upload, "LEAST_RATE", 10**12)
    job = client.job()
    head, place = upload_head(client, job, 1000000)
    with socket.create_connection(place, timeout=60) as raw:
        raw.sendall(head + b"abc")
        assert b" 408 " in raw.recv(4096).split(b"\r\n")[0]
    assert client.stored() == []


def test_a_scan_is_one_file_or_slices(client: Client) -> None:
    job = client.job()
    assert client.send(job, b"abc", ".nii.gz").status == 201
    assert client.send(job, b"abc", ".nii.gz").status == 409
    assert client.send(job, b"abc", ".dcm").status == 409
    other = client.job()
    assert client.send(other, b"abc", ".dcm").status == 201
    assert client.send(other, b"abc", "").status == 201
    assert client.send(other, b"abc", ".zip").status == 409


def test_the_number_of_scans_is_limited(client: Client) -> None:
    for _ in range(4):
        client.job()
    answer = client.post("jobs")
    assert (answer.status, "delete one first" in answer.error) == (429, True)


def test_the_number_of_files_is_limited(tmp_path: Path) -> None:
    with serving(tmp_path, most_files=2) as client:
        job = client.job()
        assert [client.send(job, b"a", ".dcm").status for _ in range(3)] == [201, 201, 413]


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, kept_free=10**18) as client:
        answer = client.post("jobs")
        assert (answer.status, "no room" in answer.error) == (507, True)


def test_files_go_when_a_scan_is_deleted_and_when_the_server_ends(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        one, other = client.job(), client.job()
        for job in (one, other):
            assert client.send(job, b"abc", ".dcm").status == 201
        [home] = tmp_path.iterdir()
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert client.ask("DELETE", f"jobs/{one}").status == 204
        assert len(client.stored()) == 1
        assert client.ask("DELETE", f"jobs/{one}").status == 404
        assert client.send(one, b"abc", ".dcm").status == 404
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"[]", "settings"),
        (b'{"scale": "3"}', "scale"),
        (b'{"denoise": 2}', "denoise"),
        (b'{"denoise": "1"}', "denoise"),
        (b'{"quality": "good"}', "--quality is 'good'"),
        (b'{"series": 0}', "series"),
        (b'{"weights": "/etc/passwd"}', "weights"),
        (b'{"format": "../x"}', "format"),
        (b'{"audit": 1}', "audit"),
        (b"\xff\xfe", ""),
    ],
)
def test_settings_are_checked(client: Client, body: bytes, words: str) -> None:
    job = client.job()
    answer = client.post(f"jobs/{job}/start", body)
    assert answer.status == 422
    assert words in answer.error
    assert "\n" not in answer.error


def test_settings_that_are_too_large_are_refused(client: Client) -> None:
    assert client.post(f"jobs/{client.job()}/start", bytes(1 << 20)).status == 413


def test_what_is_not_there_cannot_be_started_seen_or_downloaded(client: Client) -> None:
    job = client.job()
    assert client.start(job).status == 409
    assert client.post(f"jobs/{job}/look").status == 409
    for path in ("result", "report", "view/", "view/image/0"):
        answer = client.ask("GET", f"jobs/{job}/{path}")
        assert (answer.status, answer.error) == (409, "this scan has no result yet")


def test_no_answer_tells_a_path_of_the_server(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no scan")
    (tmp_path / "b.zip").write_bytes(b"no zip")
    job = client.upload(tmp_path / "a.nii.gz")
    assert client.state(job)["series"][0]["problem"]
    job = client.upload(tmp_path / "b.zip", wanted="failed")
    assert client.state(job)["error"].startswith("scan.zip: is not a zip file")
    assert str(client.folder) not in json.dumps(client.ask("GET", "jobs").said)
