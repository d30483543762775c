"""The STOW-RS server: the token, bounds, damaged bodies, slow senders."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ct_files import make_series
from node_case import config, series, wait_for
from pydicom import dcmread

from uhrct.node import stow as stow_module
from uhrct.node.incoming import NEW, Incoming
from uhrct.node.multipart import NotMultipart, body_of, parts_of
from uhrct.node.stow import PATH, StowServer

TOKEN = "a token of sixteen characters"
FAILED, STORED = "00081198", "00081199"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Incoming]]:
    """Port and folder of a server that takes requests of 1 MB, within 2 s."""
    monkeypatch.setenv("UHRCT_TEST_TOKEN", TOKEN)
    monkeypatch.setattr(stow_module, "HEAD_S", 1.0)
    bounds = {"token_env": "UHRCT_TEST_TOKEN", "port": 0, "max_request_mb": 1, "request_s": 2, "max_requests": 4}
    node = config(tmp_path, stow=bounds)
    incoming = Incoming(node.incoming, 10**9, 10**6)
    assert node.stow is not None
    server = StowServer(node.stow, incoming)
    server.start()
    yield server.port, incoming
    server.stop()
    assert list((incoming.folder / NEW).iterdir()) == []


def post(port: int, body: bytes, path: str = PATH, method: str = "POST", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    fields = {"Authorization": f"Bearer {TOKEN}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection.request(method, path, body, fields)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def count(incoming: Incoming) -> int:
    return sum(len(list(folder.iterdir())) for folder in incoming.series())


def test_images_are_stored_and_named_in_the_answer(served: tuple[int, Incoming], tmp_path: Path) -> None:
    port, incoming = served
    files = series(tmp_path / "in")
    body, kind = body_of(files)
    status, content = post(port, body, Content_Type=kind)
    assert status == 200
    items = json.loads(content)[STORED]["Value"]
    assert {i["00081155"]["Value"][0] for i in items} == {str(dcmread(f).SOPInstanceUID) for f in files}
    assert count(incoming) == len(files)


def test_some_images_may_fail(served: tuple[int, Incoming], tmp_path: Path) -> None:
    port, incoming = served
    files = series(tmp_path / "in")
    files[0].write_bytes(files[0].read_bytes()[:300])
    body, kind = body_of(files)
    status, content = post(port, body, Content_Type=kind)
    answer = json.loads(content)
    assert status == 202
    assert (len(answer[STORED]["Value"]), len(answer[FAILED]["Value"])) == (1, 1)
    make_series(tmp_path / "mr", edit=lambda k, ds: setattr(ds, "Modality", "MR"))
    body, kind = body_of(sorted((tmp_path / "mr").iterdir()))
    assert post(port, body, Content_Type=kind)[0] == 409
    assert count(incoming) == 1


@pytest.mark.parametrize(
    "token", ["", "Bearer", "Bearer wrong", f"bearer {TOKEN}", f"Basic {TOKEN}", f"Bearer {TOKEN}x"]
)
def test_nobody_without_the_token_is_served(served: tuple[int, Incoming], tmp_path: Path, token: str) -> None:
    body, kind = body_of(series(tmp_path / "in"))
    assert post(served[0], body, Content_Type=kind, Authorization=token)[0] == 401
    assert post(served[0], b"", path="/other", method="GET", Authorization=token)[0] == 401
    assert count(served[1]) == 0


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"path": "/dicom-web/studies/../../etc"}, 404),
        ({"path": "/"}, 404),
        ({"method": "GET"}, 405),
        ({"Content_Type": "application/dicom"}, 400),
        ({"Content_Type": "multipart/related"}, 400),
        ({"Content_Type": "multipart/related; boundary=another"}, 400),
    ],
)
def test_other_requests_are_refused(
    served: tuple[int, Incoming], tmp_path: Path, how: dict[str, str], status: int
) -> None:
    body, kind = body_of(series(tmp_path / "in"))
    assert post(served[0], body, **{"Content_Type": kind} | how)[0] == status
    assert count(served[1]) == 0


def test_large_requests_are_refused_with_and_without_a_stated_length(served: tuple[int, Incoming]) -> None:
    port, _ = served
    kind = "multipart/related; boundary=x"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n"
        client.sendall((head + "Content-Length: 99999999\r\n\r\n").encode())
        assert b" 413 " in client.recv(100)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        try:
            for _ in range(40):
                client.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except ConnectionError:
            return  # cut off while it was sending
        assert b" 413 " in client.recv(100)


def test_slow_senders_are_cut_off_and_keep_nobody_waiting(served: tuple[int, Incoming], tmp_path: Path) -> None:
    port, _ = served
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n"
    without_end = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
    for client, text in zip(without_end, (head, head + "\r\n12"), strict=True):
        client.sendall(text.encode())
    body, kind = body_of(series(tmp_path / "in"))
    assert post(port, body, Content_Type=kind)[0] == 200
    for client in without_end:
        client.recv(1000)  # 408, or nothing: closed; a timeout would fail the test
        client.close()


def test_many_at_once(served: tuple[int, Incoming], tmp_path: Path) -> None:
    bodies = [body_of(series(tmp_path / str(k), seed=k)) for k in range(12)]
    done: list[int] = []

    def send(body: bytes, kind: str) -> None:
        wait_for(lambda: post(served[0], body, Content_Type=kind)[0] == 200, 60)  # 503 while four are at work
        done.append(1)

    threads = [threading.Thread(target=send, args=each) for each in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 12
    assert len(served[1].series()) == 12


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"--x\r\n",
        b"--x\r\n\r\n",
        b"no boundary at all",
        b"junk--x\r\n\r\nabc\r\n--x--",
        b"--x\r\nA: " + b"a" * 9000 + b"\r\n\r\nabc\r\n--x--",
        b"--x\r\nA: b\r\n\r\nabc",
    ],
)
def test_bodies_that_are_no_multipart(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "body").write_bytes(body)
    with (tmp_path / "body").open("rb") as file, pytest.raises(NotMultipart):
        [bytes(part) for part in parts_of(file, b"x")]


def test_parts_are_what_was_put_in(tmp_path: Path) -> None:
    contents = [b"", b"a", b"\r\n--", bytes(range(256)), b"--x\r\n"]
    files = []
    for k, content in enumerate(contents):
        files.append(tmp_path / str(k))
        files[-1].write_bytes(content)
    body, kind = body_of(files)
    (tmp_path / "body").write_bytes(b"preamble\r\n" + body + b"epilogue")
    with (tmp_path / "body").open("rb") as file:
        assert [bytes(part) for part in parts_of(file, kind.split("boundary=")[1].encode())] == contents
