"""Connections on which nothing happens are closed; those that wait for an answer are not."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

import pytest

from uhrct.viewer import server
from uhrct.viewer.connection import impatient_protocol

LOOK_S = 0.1
SLOW_S = 1.5
LARGE = 30_000_000


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    """The address of a server that looks at its connections often."""
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    from fastapi import FastAPI, Response

    app = FastAPI()

    @app.get("/slow")
    def slow() -> str:
        time.sleep(SLOW_S)
        return "done"

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(LARGE))

    started: list[Any] = []

    class Kept(uvicorn.Server):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            started.append(self)

    told: Queue[str] = Queue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn, "Server", Kept)
        patch.setattr(server, "impatient_protocol", lambda: impatient_protocol(LOOK_S))
        thread = threading.Thread(target=server.serve_guarded, args=(app,), kwargs={"port": 0, "ready": told.put})
        thread.start()
        yield told.get(timeout=60)
        started[0].should_exit = True
        thread.join(30)


def opened(address: str, sent: bytes) -> socket.socket:
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    connection.sendall(sent)
    return connection


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: ", b"\x16\x03\x01\x02\x00"])
def test_a_connection_without_a_request_is_closed(impatient: str, sent: bytes) -> None:
    with opened(impatient, sent) as connection:
        try:
            while connection.recv(1000):
                pass
        except ConnectionResetError:
            pass


def test_an_answer_that_takes_long_arrives(impatient: str) -> None:
    parts = urlsplit(impatient)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request("GET", f"{parts.path}slow")
    assert connection.getresponse().read() == b'"done"'
    connection.close()


def test_an_answer_that_nobody_reads_is_given_up(impatient: str) -> None:
    parts = urlsplit(impatient)
    request = f"GET {parts.path}large HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    with opened(impatient, request) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        time.sleep(10 * LOOK_S)
        received = 0
        try:
            while piece := connection.recv(1 << 20):
                received += len(piece)
        except ConnectionResetError:
            pass
    assert received < LARGE
