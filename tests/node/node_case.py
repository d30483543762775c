"""Nodes for tests: configurations, a peer that counts what it gets, and senders that may lie."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ct_files import make_series
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
from zoo_lying import LYING
from zoo_refused import CASES

from uhrct.node.config import NodeConfig, load_config
from uhrct.node.incoming import Incoming
from uhrct.node.receiver import SYNTAXES, Receiver

ROOT = Path(__file__).parents[2]
CALLER, TITLE = "SCANNER", "UHRCT"
#: as small as the shipped networks take them
SHAPE = (2, 24, 24)
START_S, END_S = 180, 300


def settings(folder: Path, peers: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A configuration as plain values; `changes` replace whole keys, except that those of `receive` are merged."""
    peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 1, "timeout_s": 5}} if peers is None else peers
    base: dict[str, Any] = {
        "ae_title": TITLE,
        "folder": str(folder / "node"),
        "rules": [{"name": "all", "settings": {"quality": "fast"}, "send_to": [*peers]}],
        "peers": peers,
        "quiet_s": 0.5,
    }
    receive = {"callers": [CALLER], "port": 0} | changes.pop("receive", {})
    return base | {"receive": receive} | changes


def write_config(folder: Path, raw: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def config(folder: Path, **changes: Any) -> NodeConfig:
    return load_config(write_config(folder, settings(folder, **changes)))


@contextlib.contextmanager
def receiver(node: NodeConfig) -> Iterator[tuple[Receiver, Incoming]]:
    """The receiver alone, in this process."""
    incoming = Incoming(node.incoming, int(node.receive.quota_gb * 1e9), node.receive.max_object_mb * 1_000_000)
    running = Receiver(node, incoming)
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    try:
        yield running, incoming
    finally:
        running.stop()
        thread.join(10)


def associate(port: int, caller: str = CALLER, called: str = TITLE, **how: Any) -> Association:
    ae = AE(caller)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    ae.add_requested_context(Verification)
    for syntax in SYNTAXES:
        ae.add_requested_context(CTImageStorage, syntax)
    ae.add_requested_context(MRImageStorage)
    return ae.associate("127.0.0.1", port, ae_title=called, **how)


def store(port: int, files: list[Path], caller: str = CALLER) -> list[int | None]:
    """Status of each C-STORE."""
    association = associate(port, caller)
    assert association.is_established
    try:
        return [association.send_c_store(dcmread(file)).get("Status") for file in files]
    finally:
        association.release()


def store_bytes(association: Association, content: bytes, sop_class: str, instance: str, syntax: str) -> int | None:
    """C-STORE of any bytes, which no honest library would send. Its status; None without an answer."""
    contexts = [c for c in association.accepted_contexts if c.abstract_syntax == CTImageStorage]
    context = next((c for c in contexts if c.transfer_syntax[0] == syntax), contexts[0])
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request.DataSet = io.BytesIO(content)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.01)
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return None if answer is None else int(answer.Status)


class Pacs:
    """A peer. It notes every image that arrives, and may refuse."""

    def __init__(self, port: int = 0, answer: Callable[[], int] = lambda: 0) -> None:
        self.arrived: Counter[str] = Counter()
        self.content: dict[str, set[bytes]] = {}
        self.callers: set[str] = set()
        self._answer = answer
        ae = AE("PACS")
        ae.maximum_associations = 50
        ae.add_supported_context(Verification)
        ae.add_supported_context(CTImageStorage)
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._take)])
        assert self._server is not None
        self.port = int(self._server.server_address[1])

    def _take(self, event: evt.Event) -> int:
        if status := self._answer():
            return status
        uid = str(event.request.AffectedSOPInstanceUID)
        self.arrived[uid] += 1
        self.content.setdefault(uid, set()).add(event.request.DataSet.getvalue())
        self.callers.add(str(event.assoc.requestor.ae_title))
        return 0

    @property
    def peer(self) -> dict[str, Any]:
        return {"ae_title": "PACS", "host": "127.0.0.1", "port": self.port, "timeout_s": 10}

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
        self._server = None


@contextlib.contextmanager
def pacs(**options: Any) -> Iterator[Pacs]:
    running = Pacs(**options)
    try:
        yield running
    finally:
        running.stop()


class Process:
    """`uhrct node` as a process of its own."""

    def __init__(self, path: Path, *options: str) -> None:
        self.log = path.parent / "log.txt"
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "uhrct", "node", str(path), *options]
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=env)
        try:
            wait_for(lambda: "AE title" in self.text or self.process.poll() is not None, START_S)
            assert self.process.poll() is None, self.text
        except AssertionError:
            self.kill()
            raise
        self.port = int(self.text.split("127.0.0.1:")[1].split(",")[0].split()[0])

    @property
    def text(self) -> str:
        """What it has logged since it started."""
        return self.log.read_bytes()[self._begin :].decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def running(path: Path, *options: str) -> Iterator[Process]:
    started = Process(path, *options)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()


def hostile_objects(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The data sets of the zoo of damaged DICOM, three of each case."""
    seen: set[bytes] = set()  # most cases damage one slice of the same series
    for number, (name, build) in enumerate({**CASES, **LYING}.items()):
        place = folder / str(number)
        place.mkdir(parents=True)
        try:
            build(place)
            contents = [f.read_bytes() for f in sorted(place.rglob("*.dcm"))[:3] if f.is_file()]
        except OSError:  # a case about folders and permissions
            continue
        for content in contents:
            if 200 < len(content) < 5_000_000 and content not in seen:
                seen.add(content)
                length = struct.unpack("<I", content[140:144])[0]
                yield name, content[144 + length :] if length < 1000 else content


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(holds: Callable[[], object], within_s: float = END_S) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {within_s:.0f} s")


def series(folder: Path, seed: int = 0, **options: Any) -> list[Path]:
    """A small CT series; its files."""
    make_series(folder, **{"shape": SHAPE, "seed": seed, "study": str(seed)} | options)
    return sorted(folder.iterdir())
