"""`uhrct serve` and `uhrct view` under abuse: what they answer, and what memory and file handles they hold at the end.

    python benchmarks/serve_soak.py --minutes 10 --out results/serve_soak.json

Threads do at random what friends and strangers may do: whole runs, hostile files, tricks with paths, uploads that break
off or crawl, connections that say nothing, noise instead of HTTP, wrong secrets and origins, and from time to time 100
connections at once. Both servers are real processes. At the end all scans are deleted; then no file may be left, and
the servers must end when they are told to.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import io as std_io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from uhrct import io
from uhrct.core.files import write_json
from uhrct.core.volume import Volume

SHAPE = (6, 64, 72)
TRICKS = (
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "jobs/../../../etc/passwd",
    "jobs/%2e%2e/result",
    "jobs/" + "a" * 3000,
    "jobs/0%00/result",
    "serve.js/../../__init__.py",
    "image/0?at=../../etc/passwd",
    "image/99999999999999999999",
    "openapi.json",
    "\\..\\..\\etc\\passwd",
    "?" * 2000,
)
#: answers that are no failure: done, refused, or busy
EXPECTED = {200, 201, 204, 400, 403, 404, 405, 408, 409, 411, 413, 415, 421, 422, 429, 503, 507}
BURST = 100
#: after the last request, connections that are quiet are closed within this time
REST_S = 45.0


@dataclass
class Server:
    """One of the two commands, as a process of its own."""

    name: str
    process: subprocess.Popen[str]
    address: str
    begin: dict[str, float] = field(default_factory=dict)

    @classmethod
    def started(cls, name: str, *arguments: str) -> Server:
        command = [sys.executable, "-m", "uhrct", name, "--quiet", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return cls(name, process, process.stdout.readline().strip())

    def state(self) -> dict[str, float]:
        """Memory and file handles of the process."""
        folder = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return {
            "memory_mb": round(int(status["VmRSS"].split()[0]) / 1e3, 1),
            "file_handles": len(list((folder / "fd").iterdir())),
            "threads": int(status["Threads"]),
        }

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.address)
        return str(parts.hostname), int(parts.port or 0)

    def ask(
        self, method: str, path: str = "", body: Any = None, fields: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        parts = urlsplit(self.address)
        own = {"Origin": f"http://{parts.netloc}", "X-Uhrct": "1"} if method != "GET" else {}
        connection = http.client.HTTPConnection(*self.place, timeout=120)
        try:
            connection.request(method, parts.path + path, body, own if fields is None else fields)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def insist(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Ask again while the server is busy: a friend who meets 100 strangers."""
        until = time.monotonic() + 120
        while True:
            with suppress(OSError, http.client.HTTPException):
                found = self.ask(method, path, body)
                if found[0] != 503:
                    return found
            if time.monotonic() > until:
                raise OSError("busy for 120 s")
            time.sleep(0.5)

    def raw(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(self.place, timeout=60)
        connection.sendall(data)
        return connection

    def head(self, method: str, path: str, size: int) -> bytes:
        parts = urlsplit(self.address)
        lines = (f"{method} {parts.path}{path} HTTP/1.1", f"Host: {parts.netloc}", f"Origin: http://{parts.netloc}")
        return "\r\n".join((*lines, "X-Uhrct: 1", f"Content-Length: {size}", "", "")).encode()


class Soak:
    """What is done to the servers, and a count of what they answer."""

    def __init__(self, serve: Server, view: Server, scan: bytes, seed: int) -> None:
        self.serve, self.view, self.scan = serve, view, scan
        self.counts: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._seed = seed
        self.over = threading.Event()
        #: memory in MB, each minute
        self.memory: dict[str, list[float]] = {serve.name: [], view.name: []}

    def count(self, what: str, status: int | str) -> None:
        with self._lock:
            self.counts.setdefault(what, Counter())[str(status)] += 1
            if isinstance(status, int) and status not in EXPECTED:
                self.wrong.append(f"{what}: {status}")

    def loop(self, number: int, acts: dict[str, Callable[[random.Random], int | str]]) -> None:
        """Do one act after the other until the time is over."""
        rng = random.Random(self._seed + number)
        while not self.over.is_set():
            name = rng.choice(list(acts))
            try:
                self.count(name, acts[name](rng))
            except (OSError, http.client.HTTPException) as error:
                self.count(name, type(error).__name__)
            time.sleep(rng.uniform(0, 0.2))

    # whole runs

    def upload(self, data: bytes, suffix: str) -> tuple[str, int]:
        """A job with one file; the status of what went wrong, or 201."""
        status, body = self.serve.insist("POST", "jobs")
        if status != 201:
            return "", status
        name = json.loads(body)["name"]
        status, _ = self.serve.insist("POST", f"jobs/{name}/files?suffix={suffix}", data)
        if status == 201:
            looked, _ = self.serve.insist("POST", f"jobs/{name}/look")
            status = 201 if looked == 204 else looked
        return name, status

    def settled(self, name: str, states: tuple[str, ...]) -> str:
        until = time.monotonic() + 180
        while time.monotonic() < until:
            _, body = self.serve.insist("GET", "jobs")
            state = next((j["state"] for j in json.loads(body)["jobs"] if j["name"] == name), "gone")
            if state in (*states, "failed", "gone"):
                return state
            time.sleep(0.3)
        return "stuck"

    def good_run(self, rng: random.Random) -> str:
        name, status = self.upload(self.scan, ".nii.gz")
        try:
            if status != 201 or self.settled(name, ("ready",)) != "ready":
                return f"not ready ({status})"
            form = rng.choice(("input", "dicom"))
            self.serve.insist("POST", f"jobs/{name}/start", json.dumps({"quality": "fast", "format": form}))
            if rng.random() < 0.3:
                time.sleep(rng.uniform(0, 6))
                self.serve.insist("POST", f"jobs/{name}/cancel")
                return f"cancelled, {self.settled(name, ('cancelled', 'done'))}"
            state = self.settled(name, ("done",))
            if state != "done":
                return f"ended as {state}"
            _, data = self.serve.insist("GET", f"jobs/{name}/result")
            self.check(data, form)
            self.count("view of a result", self.serve.insist("GET", f"jobs/{name}/view/image/1")[0])
            return "done"
        finally:
            if name:
                self.serve.insist("DELETE", f"jobs/{name}")

    def check(self, data: bytes, form: str) -> None:
        if form == "dicom":
            with zipfile.ZipFile(std_io.BytesIO(data)) as archive:
                right = archive.testzip() is None and len(archive.namelist()) == SHAPE[0]
        else:
            right = len(gzip.decompress(data)) > 2 * 4 * np.prod(SHAPE)
        if not right:
            self.wrong.append(f"a result in format {form} is damaged")

    # hostile files

    def hostile_file(self, rng: random.Random) -> int | str:
        kind = rng.choice(("noise", "cut", "changed", "gzip bomb", "zip bomb", "empty"))
        data, suffix = self.scan, rng.choice((".nii.gz", ".nii", ".nrrd", ".mha", ".zip", ".dcm", ""))
        if kind == "noise":
            data = rng.randbytes(rng.randrange(1, 100_000))
        elif kind == "cut":
            data = data[: rng.randrange(1, len(data))]
        elif kind == "changed":
            plain = bytearray(gzip.decompress(data))
            for _ in range(rng.randrange(1, 20)):
                plain[rng.randrange(352)] = rng.randrange(256)
            data = gzip.compress(bytes(plain), 1)
        elif kind == "gzip bomb":
            data, suffix = gzip.compress(gzip.decompress(data)[:2000]) + gzip.compress(bytes(10 << 20)) * 100, ".nii.gz"
        elif kind == "zip bomb":
            packed = std_io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a.dcm", bytes(100 << 20))
            data, suffix = packed.getvalue(), ".zip"
        else:
            data = b""
        name, status = self.upload(data, suffix)
        try:
            if status != 201:
                return status
            state = self.settled(name, ("ready",))
            if state == "ready":
                self.serve.insist("POST", f"jobs/{name}/start", json.dumps({"quality": "fast"}))
                state = self.settled(name, ("done",))
            return f"{kind}: {state}"
        finally:
            if name:
                self.serve.insist("DELETE", f"jobs/{name}")

    # mischief

    def either(self, rng: random.Random) -> Server:
        return rng.choice((self.serve, self.view))

    def path_trick(self, rng: random.Random) -> int:
        return self.either(rng).ask(rng.choice(("GET", "GET", "POST", "DELETE", "PUT")), rng.choice(TRICKS))[0]

    def wrong_fields(self, rng: random.Random) -> int:
        fields = rng.choice(
            ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"})
        )
        return self.either(rng).ask(rng.choice(("GET", "POST")), "jobs", fields=fields)[0]

    def wrong_secret(self, rng: random.Random) -> int:
        server = self.either(rng)
        return Server(server.name, server.process, f"http://{server.place[0]}:{server.place[1]}/{'a' * 43}/").ask(
            "GET"
        )[0]

    def noise(self, rng: random.Random) -> str:
        with self.either(rng).raw(rng.randbytes(rng.randrange(1, 5000))) as connection:
            return f"{len(connection.recv(1000)) > 0}"

    def broken_upload(self, rng: random.Random) -> str:
        status, body = self.serve.insist("POST", "jobs")
        if status != 201:
            return str(status)
        name = json.loads(body)["name"]
        head = self.serve.head("POST", f"jobs/{name}/files?suffix=.dcm", 1_000_000)
        with suppress(OSError), self.serve.raw(head) as connection:
            connection.sendall(bytes(rng.randrange(900_000)))
        self.serve.insist("DELETE", f"jobs/{name}")
        return "broken off"

    def slow_upload(self, rng: random.Random) -> str:
        status, body = self.serve.insist("POST", "jobs")
        if status != 201:
            return str(status)
        name = json.loads(body)["name"]
        try:
            with self.serve.raw(self.serve.head("POST", f"jobs/{name}/files?suffix=.dcm", 1_000_000)) as connection:
                begin = time.monotonic()
                while time.monotonic() < begin + 60:
                    connection.sendall(b"a")
                    connection.settimeout(rng.uniform(0.5, 2))
                    with suppress(TimeoutError):
                        return connection.recv(100).split(b"\r\n")[0].decode() or "closed"
            return "was let in for 60 s"
        finally:
            self.serve.insist("DELETE", f"jobs/{name}")

    def silent(self, rng: random.Random) -> str:
        """A connection with half a request, or none."""
        with self.either(rng).raw(rng.choice((b"", b"GET / HTTP/1.1\r\nHost: "))) as connection:
            begin = time.monotonic()
            connection.settimeout(90)
            try:
                connection.recv(100)
            except TimeoutError:
                self.wrong.append("a silent connection was kept for 90 s")
            return "closed" if time.monotonic() - begin < 90 else "kept"

    def broken_download(self, rng: random.Random) -> str:
        """Ask for a volume and go away."""
        parts = urlsplit(self.view.address)
        request = f"GET {parts.path}image/1 HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        with self.view.raw(request) as connection:
            connection.recv(rng.randrange(1, 5000))
        return "broken off"

    def look(self, rng: random.Random) -> int:
        server, path = rng.choice(((self.serve, ""), (self.serve, "jobs"), (self.view, "image/0"), (self.view, "view")))
        return server.ask("GET", path)[0]

    def burst(self) -> None:
        """Many connections at once, to both servers."""
        for server, path in ((self.serve, "jobs"), (self.view, "view")):
            with ThreadPoolExecutor(BURST) as pool:
                for status in pool.map(lambda _, s=server, p=path: _asked(s, p), range(BURST)):
                    self.count(f"{BURST} connections at once, {server.name}", status)

    def run(self, minutes: float) -> None:
        """All of it at once, for so long."""
        work = {"whole run": self.good_run}
        files = {"hostile file": self.hostile_file}
        mischief: dict[str, Callable[[random.Random], int | str]] = {
            "path trick": self.path_trick,
            "wrong host, origin or site": self.wrong_fields,
            "wrong secret": self.wrong_secret,
            "noise": self.noise,
            "broken upload": self.broken_upload,
            "slow upload": self.slow_upload,
            "silent connection": self.silent,
            "broken download": self.broken_download,
            "look": self.look,
        }
        groups = [work, work, files, files, *[mischief] * 6]
        threads = [threading.Thread(target=self.loop, args=(k, acts)) for k, acts in enumerate(groups)]
        for thread in threads:
            thread.start()
        begin = time.monotonic()
        until = begin + 60 * minutes
        while time.monotonic() < until:
            time.sleep(min(20, max(0.0, until - time.monotonic())))
            self.burst()
            for server in (self.serve, self.view):
                if server.process.poll() is not None:
                    self.wrong.append(f"{server.name} ended with {server.process.returncode}")
                    until = 0
                elif time.monotonic() - begin > 60 * len(self.memory[server.name]):
                    self.memory[server.name].append(server.state()["memory_mb"])
        self.over.set()
        for thread in threads:
            thread.join()


def _asked(server: Server, path: str) -> int | str:
    try:
        return server.ask("GET", path)[0]
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def ended(server: Server) -> dict[str, Any]:
    """Tell a server to end, and what it left behind."""
    server.process.send_signal(signal.SIGINT)
    _, err = server.process.communicate(timeout=60)
    return {"exit_code": server.process.returncode, "lines_on_stderr": len(err.splitlines()), "first": err[:300]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/serve_soak.json"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = np.random.default_rng(args.seed)
    _, y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in SHAPE), indexing="ij")
    hu = np.where(np.hypot(y - 0.5, x - 0.5) < 0.45, 40.0, -1000.0) + rng.normal(0, 12, SHAPE)
    scan = Volume(hu.round().astype(np.int16), (2.0, 1.2, 1.2))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        io.write(scan, folder / "scan.nii.gz")
        (folder / "jobs").mkdir()
        serve = Server.started("serve", "--folder", str(folder / "jobs"), "--max-gb", "0.05", "--max-scans", "12")
        view = Server.started("view", str(folder / "scan.nii.gz"), str(folder / "scan.nii.gz"))
        soak = Soak(serve, view, (folder / "scan.nii.gz").read_bytes(), args.seed)
        soak.count("warm-up", soak.good_run(random.Random(3)))  # imports of the first run are no leak
        soak.burst()
        before = {server.name: server.state() for server in (serve, view)}
        soak.run(args.minutes)
        for job in json.loads(serve.insist("GET", "jobs")[1])["jobs"]:
            serve.insist("DELETE", f"jobs/{job['name']}")
        time.sleep(REST_S)
        after = {server.name: server.state() for server in (serve, view)}
        left = len([p for p in (folder / "jobs").rglob("*") if p.is_file() and p.name != "lock"])
        ends = {server.name: ended(server) for server in (serve, view)}
        found = {
            "minutes": args.minutes,
            "answers": {what: dict(sorted(counts.items())) for what, counts in sorted(soak.counts.items())},
            "wrong": soak.wrong[:50],
            "before": before,
            "memory_mb_each_minute": soak.memory,
            "after": after,
            "files_left_after_deletion": left,
            "entries_left_after_the_end": len(list((folder / "jobs").iterdir())),
            "end": ends,
        }
    write_json(args.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
