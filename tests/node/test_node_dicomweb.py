"""Polling and STOW-RS against a server that is wrong, hostile or away."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from node_case import SHAPE, config, series
from pydicom import dcmread

from uhrct.node import dicomweb
from uhrct.node.config import NodeConfig, Peer
from uhrct.node.dicomweb import DicomWeb, WebError
from uhrct.node.incoming import Incoming
from uhrct.node.ledger import NodeLedger
from uhrct.node.multipart import body_of
from uhrct.node.peers import NotSent, echo, send
from uhrct.node.polling import Poller

TOKEN = "a token of sixteen characters"
#: path without query, method -> status, headers, body
Answer = Callable[["Server", str, str], tuple[int, dict[str, str], bytes]]


class Server:
    """Answers as a test says, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.answer: Callable[[str, str], tuple[int, dict[str, str], bytes]] = lambda method, path: (404, {}, b"")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                outer.tokens.add(self.headers["Authorization"])
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                status, headers, body = outer.answer(self.command, self.path.split("?")[0])
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/web"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


class Archive:
    """The answers of a server with one series."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        headers = [dcmread(f, stop_before_pixels=True) for f in files]
        self.study, self.series = str(headers[0].StudyInstanceUID), str(headers[0].SeriesInstanceUID)
        self.metadata = [ds.to_json_dict() for ds in headers]

    def entry(self, **changes: Any) -> dict[str, Any]:
        values = {"0020000D": self.study, "0020000E": self.series, "00201209": len(self.files)} | changes
        return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}

    def __call__(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        place = f"/web/studies/{self.study}/series/{self.series}"
        if path == "/web/series":
            return 200, {}, json.dumps([self.entry()]).encode()
        if path == f"{place}/metadata":
            return 200, {}, json.dumps(self.metadata).encode()
        body, kind = body_of(self.files)
        return (200, {"Content-Type": kind}, body) if path == place else (404, {}, b"")


def polled(tmp_path: Path, server: Server, **changes: Any) -> tuple[Poller, Incoming, NodeLedger, NodeConfig]:
    (tmp_path / "token").write_text(TOKEN)
    poll = {"url": server.url, "timeout_s": 2, "token_file": str(tmp_path / "token"), "max_series_mb": 1}
    node = config(tmp_path, poll=[poll], **changes)
    incoming = Incoming(node.incoming, 10**9, 10**6)
    poller = Poller(node, node.poll[0], incoming, threading.Event())
    return poller, incoming, NodeLedger(node.outgoing), node


def count(incoming: Incoming) -> int:
    return sum(len(list(folder.iterdir())) for folder in incoming.series())


def test_a_series_is_fetched_once_when_it_has_stopped_growing(tmp_path: Path, server: Server) -> None:
    server.answer = archive = Archive(series(tmp_path / "in"))
    poller, incoming, ledger, _ = polled(tmp_path, server)
    for expected in (0, SHAPE[0], SHAPE[0], SHAPE[0]):
        poller.look(ledger)
        assert count(incoming) == expected
    assert sum("/metadata" in path for path in server.asked) == 1
    assert server.tokens == {f"Bearer {TOKEN}"}
    poller, _, _, _ = polled(tmp_path, server)  # another start of the node
    for _ in range(2):
        poller.look(ledger)
    assert sum("/metadata" in path for path in server.asked) == 1
    archive.files = archive.files + series(tmp_path / "more", shape=(3, 24, 24))[:1]
    for _ in range(2):
        poller.look(ledger)
    assert sum("/metadata" in path for path in server.asked) == 2


def test_what_no_rule_wants_is_not_fetched(tmp_path: Path, server: Server) -> None:
    server.answer = Archive(series(tmp_path / "in"))
    poller, incoming, ledger, _ = polled(tmp_path, server, never=[{"kernel": "B3*"}])
    for _ in range(3):
        poller.look(ledger)
    assert count(incoming) == 0
    assert not [path for path in server.asked if path.endswith(server.answer.series)]


def test_results_of_uhrct_are_not_fetched(tmp_path: Path, server: Server) -> None:
    server.answer = archive = Archive(series(tmp_path / "in"))
    poller, incoming, ledger, _ = polled(tmp_path, server)
    ledger.note_sent_series(archive.series)
    for _ in range(3):
        poller.look(ledger)
    assert count(incoming) == 0


@pytest.mark.parametrize("uid", ["../../../admin", "1.2/../3", "", "1?a=b", "1.2#x"])
def test_a_uid_of_a_server_never_becomes_part_of_a_path(tmp_path: Path, server: Server, uid: str) -> None:
    archive = Archive(series(tmp_path / "in"))
    body = json.dumps([archive.entry(**{"0020000E": uid}), archive.entry(**{"0020000D": uid})]).encode()
    server.answer = lambda method, path: (200, {}, body)
    poller, _, ledger, _ = polled(tmp_path, server)
    for _ in range(3):
        poller.look(ledger)
    assert {path.split("?")[0] for path in server.asked} == {"GET /web/series"}


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>"),
        (200, {}, b"{}"),
        (200, {}, b"[1]"),
        (200, {}, b"[" * 100_000),
        (200, {"Content-Length": "9999"}, b"["),
        (302, {"Location": "/elsewhere"}, b""),
        (401, {}, b""),
        (500, {}, b""),
    ],
)
def test_wrong_answers_are_errors_and_redirects_are_not_followed(
    tmp_path: Path, server: Server, answer: tuple[int, dict[str, str], bytes]
) -> None:
    server.answer = lambda method, path: answer
    poller, _, ledger, _ = polled(tmp_path, server)
    with pytest.raises(WebError):
        poller.look(ledger)
    assert len(server.asked) == 1


def test_answers_are_bounded(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(series(tmp_path / "in", shape=(2, 700, 700)))  # 2 MB; 1 MB is allowed
    server.answer = archive
    poller, incoming, ledger, _ = polled(tmp_path, server)
    for _ in range(2):
        poller.look(ledger)
    assert count(incoming) == 0
    assert ledger.polled(server.url) == {}  # it will be tried again
    monkeypatch.setattr(dicomweb, "MOST_JSON_BYTES", 10)
    with pytest.raises(WebError, match="larger than"):
        poller.look(ledger)


def test_a_damaged_series_costs_only_itself(tmp_path: Path, server: Server) -> None:
    files = series(tmp_path / "in")
    archive = Archive(files)
    files[0].write_bytes(files[0].read_bytes()[:400])
    archive.metadata.insert(0, {"00080060": {"vr": "SQ", "Value": "x"}})
    server.answer = archive
    poller, incoming, ledger, _ = polled(tmp_path, server)
    for _ in range(3):
        poller.look(ledger)
    assert count(incoming) == SHAPE[0] - 1


def test_stow_tells_what_failed(tmp_path: Path, server: Server) -> None:
    files = series(tmp_path / "in")
    peer = Peer(url=server.url, timeout_s=2)
    for status, body, refused in (
        (409, b"{}", True),
        (429, b"", False),
        (202, b"{}", True),
        (400, b"", True),
        (503, b"", False),
    ):
        server.answer = lambda method, path, s=status, b=body: (s, {}, b)
        with pytest.raises(NotSent) as caught:
            send(peer, "UHRCT", files)
        assert caught.value.refused == refused, status
    failed = json.dumps({"00081198": {"vr": "SQ", "Value": [{}]}}).encode()
    server.answer = lambda method, path: (200, {}, failed)
    with pytest.raises(NotSent, match="did not store all"):
        send(peer, "UHRCT", files)
    server.answer = lambda method, path: (200, {}, b"{}")
    send(peer, "UHRCT", files)
    server.answer = lambda method, path: (204, {}, b"")
    assert echo(peer, "UHRCT") == ""
    server.close()
    assert echo(peer, "UHRCT") == "no answer (ConnectionError)"


def test_the_environment_names_no_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answer = lambda method, path: (200, {}, b"[]")
    assert list(DicomWeb(server.url, None, None, 2).series()) == []
