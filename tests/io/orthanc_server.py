"""An Orthanc of our own: on free ports, with storage and configuration that vanish with the test."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: Where Debian's orthanc-dicomweb puts the plugin.
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_S, ANSWER_S, STOP_S = 30, 20, 10
#: Loopback must not go through a proxy that the machine may have.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Orthanc:
    """A running server."""

    http_port: int
    dicom_port: int
    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """SIGKILL. `orthanc(folder, self)` starts it again."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_S)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[bytes, str]:
        """Body and content type of the answer to a GET, or to a POST of `body`; 20 s at most."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", body, fields)
        with _OPENER.open(request, timeout=ANSWER_S) as answer:
            return answer.read(), answer.headers["Content-Type"]

    def json(self, path: str, **headers: str) -> Any:
        """The answer to a GET, parsed."""
        return json.loads(self.ask(path, **headers)[0])

    def stow(self, files: list[Path]) -> dict[str, Any]:
        """Store files by STOW-RS (PS3.18 10.5) in one request."""
        edge = uuid.uuid4().hex.encode()
        parts = [b"--" + edge + b"\r\nContent-Type: application/dicom\r\n\r\n" + f.read_bytes() for f in files]
        body = b"\r\n".join([*parts, b"--" + edge + b"--\r\n"])
        kind = f'multipart/related; type="application/dicom"; boundary={edge.decode()}'
        answer, _ = self.ask("/dicom-web/studies", body, Content_Type=kind, Accept="application/dicom+json")
        return json.loads(answer)

    def wado(self, path: str) -> list[bytes]:
        """DICOM files of a study, series or instance by WADO-RS (PS3.18 10.4), in the syntax they are stored in."""
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        answer, kind = self.ask(f"/dicom-web/{path}", Accept=accept)
        edge = b"--" + kind.split("boundary=")[1].split(";")[0].strip('"').encode()
        return [part.partition(b"\r\n\r\n")[2][:-2] for part in answer.split(edge)[1:-1]]


@contextlib.contextmanager
def orthanc(folder: Path, server: Orthanc | None = None) -> Iterator[Orthanc]:
    """Start a server that keeps everything below `folder`; it is stopped whatever happens.

    `server` is one that was killed: the new one has its ports, and its images if it has its folder.

    Skips the test where Orthanc or its DICOMweb plugin is not installed.
    """
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed (apt-get install orthanc orthanc-dicomweb)")
    server = server or Orthanc(*_free_ports(2))
    configuration = {
        "Name": "uhrct test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": server.http_port,
        "DicomPort": server.dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        command = [program, str(folder / "orthanc.json")]
        server.process = process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _await(server, process, folder / "orthanc.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def _await(server: Orthanc, process: subprocess.Popen, log: Path) -> None:
    begin = time.monotonic()
    while time.monotonic() - begin < START_S:
        if process.poll() is not None:
            break
        try:
            server.json("/system")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
