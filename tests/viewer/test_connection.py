"""Connections on which nothing happens are closed; those that wait for an answer are not."""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from in_thread import in_thread

from uhrct.viewer import server
from uhrct.viewer.connection import impatient_protocol

LOOK_S = 0.1
SLOW_S = 1.5
LARGE = 30_000_000


@pytest.fixture(scope="module")
def impatient() -> Iterator[str]:
    """The address of a server that looks at its connections often."""
    pytest.importorskip("fastapi")
    from fastapi import FastAPI, Response

    app = FastAPI()

    @app.get("/slow")
    def slow() -> str:
        time.sleep(SLOW_S)
        return "done"

    @app.get("/large")
    def large() -> Response:
        return Response(bytes(LARGE))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "impatient_protocol", lambda: impatient_protocol(LOOK_S))
        with in_thread(server.serve_guarded, app, port=0) as place:
            yield place


def opened(address: str, sent: bytes) -> socket.socket:
    parts = urlsplit(address)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    connection.sendall(sent)
    return connection


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: ", b"\x16\x03\x01\x02\x00"])
def test_a_connection_without_a_request_is_closed(impatient: str, sent: bytes) -> None:
    with opened(impatient, sent) as connection:
        answer = b"?"
        with contextlib.suppress(ConnectionResetError):
            while answer:  # until the server closes; without that, the limit of the socket ends the test
                answer = connection.recv(1000)
        assert b"200 OK" not in answer


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
