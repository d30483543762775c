"""`uhrct node` for a long time among good and bad senders: does it crash, grow, or keep others waiting?

    PYTHONPATH=tests/node:tests/io python benchmarks/node_soak.py --minutes 60 --out results/node_soak.json

A node runs on loopback. Senders of seven kinds work at the same time: small series that must come back, the zoo of
damaged DICOM, 100 associations at once, clients that drip bytes, associations that break off, noise, and STOW-RS
requests (good, damaged, without the token). Memory, file handles and threads of the node are noted each minute and,
after all senders are gone, at the end. It uses the helpers of the tests and psutil.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from node_case import (
    SHAPE,
    Pacs,
    Process,
    associate,
    free_port,
    hostile_objects,
    series,
    settings,
    store_bytes,
    write_config,
)
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from uhrct.core.files import write_atomic
from uhrct.node.ledger import SENT, NodeLedger
from uhrct.node.multipart import body_of
from uhrct.node.stow import PATH

TOKEN = "a token of sixteen characters"
CROWD = 100
#: a series that arrives among all this must be answered within so many seconds
PATIENCE_S = 60.0


class Soak:
    """The node, its senders, and what they counted."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.minutes = folder, minutes
        self.counts: Counter[str] = Counter()
        self.sent_series = 0
        self.longest_s = 0.0
        self.pacs = Pacs()
        (folder / "token").write_text(TOKEN)
        self.stow_port = free_port()
        receive = {"network_s": 10, "acse_s": 10, "object_s": 10, "max_object_mb": 2, "max_associations": 20}
        stow = {"token_file": str(folder / "token"), "port": self.stow_port, "max_request_mb": 5, "request_s": 10}
        raw = settings(folder, {"PACS": self.pacs.peer}, receive=receive, stow=stow, quiet_s=5)
        self.node = Process(write_config(folder, raw))
        self.hostile = [content for _, content in hostile_objects(folder / "zoo") if len(content) < 1_000_000]

    def run(self) -> dict[str, Any]:
        self.good(random.Random(0))  # everything is loaded now
        self.await_results()
        begin, samples = self.measured(), []
        self.end = time.monotonic() + 60 * self.minutes
        kinds = (self.good, self.damaged, self.crowd, self.slow, self.abort, self.noise, self.stow)
        threads = [threading.Thread(target=self.repeat, args=(kind, k)) for k, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()
        next_sample = time.monotonic() + 60
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.5)
            if time.monotonic() > next_sample:
                samples.append(self.measured())
                next_sample += 60
        self.await_results()
        time.sleep(20)  # the last associations end
        finish = self.measured()
        log = self.node.text
        alive = self.node.process.poll() is None
        code = self.node.stop() if alive else self.node.process.returncode
        expected = {str(u) for u in self.pacs.arrived}
        return {
            "crashes_of_the_node": int(not alive),
            "exit_code_after_sigterm": code,
            "internal_errors_in_the_log": log.count("internal error"),
            "connections_that_ended_with_an_error": log.count("a connection ended with an error"),
            "good_series_sent": self.sent_series,
            "images_of_results_expected": SHAPE[0] * self.sent_series,
            "images_of_results_arrived": len(expected),
            "images_of_results_sent_twice": sum(n - 1 for n in self.pacs.arrived.values()),
            "longest_wait_of_a_good_series_s": round(self.longest_s, 1),
            "what_senders_saw": dict(sorted(self.counts.items())),
            "what_the_node_logged": self.logged(log),
            "begin": begin,
            "each_minute": samples,
            "end": finish,
        }

    def repeat(self, kind: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < self.end and self.node.process.poll() is None:
            try:
                kind(chance)
            except (OSError, RuntimeError, ValueError, AttributeError, http.client.HTTPException) as error:
                self.counts[f"{kind.__name__}: {type(error).__name__}"] += 1
            time.sleep(chance.uniform(0, 0.2))

    def good(self, _: random.Random) -> None:
        """A new series, tried until the node takes it."""
        number = self.sent_series
        files = series(self.folder / "good" / str(number), seed=1000 + number)
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE_S:
            association = associate(self.node.port)
            if association.is_established:
                taken = [association.send_c_store(dcmread(file)).get("Status") for file in files]
                association.release()
                if taken == [0] * len(files):
                    break
            time.sleep(0.1)
        else:
            self.counts["good: not taken"] += 1
            return
        self.sent_series += 1
        self.longest_s = max(self.longest_s, time.monotonic() - begin)
        self.counts["good: taken"] += 1
        time.sleep(4)

    def damaged(self, chance: random.Random) -> None:
        association = associate(self.node.port)
        if not association.is_established:
            self.counts["damaged: no association"] += 1
            return
        for content in chance.sample(self.hostile, 10):
            if chance.random() < 0.3:  # and damaged further
                content = bytearray(content)
                for _ in range(20):
                    content[chance.randrange(len(content))] = chance.randrange(256)
                content = bytes(content[: chance.randrange(1, len(content))])
            if association.is_established:
                status = store_bytes(association, content, CTImageStorage, "1.2.4711", str(ExplicitVRLittleEndian))
                self.counts[f"damaged: {'no answer' if status is None else f'status 0x{status:04X}'}"] += 1
        if association.is_established:
            association.release()

    def crowd(self, _: random.Random) -> None:
        """Many associations at once. Each sends an image that the node has."""
        [file, *_] = sorted((self.folder / "good" / "0").iterdir())
        dataset = dcmread(file)

        def one() -> None:
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                association = associate(self.node.port)
                if not association.is_established:
                    self.counts["crowd: rejected or closed"] += 1
                    return
                status = association.send_c_store(dataset).get("Status")
                self.counts[f"crowd: status {status}"] += 1
                association.release()

        threads = [threading.Thread(target=one) for _ in range(CROWD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(10)

    def slow(self, chance: random.Random) -> None:
        """A packet that comes byte by byte."""
        with socket.create_connection(("127.0.0.1", self.node.port), timeout=30) as client:
            client.sendall(b"\x01\x00\x00\x00\x10\x00")
            begin = time.monotonic()
            try:
                while time.monotonic() - begin < 30:
                    client.sendall(b"\0")
                    time.sleep(chance.uniform(0.1, 0.5))
                self.counts["slow: not cut off in 30 s"] += 1
            except OSError:
                self.counts["slow: cut off"] += 1

    def abort(self, chance: random.Random) -> None:
        association = associate(self.node.port)
        if association.is_established:
            raw = association.dul.socket.socket
            raw.sendall(b"\x04\x00\x00\x00\x20\x00" + chance.randbytes(chance.randrange(0x2000)))
            if chance.random() < 0.5:
                association.abort()
            raw.close()
            association.kill()
            self.counts["abort: in the middle of a packet"] += 1

    def noise(self, chance: random.Random) -> None:
        with socket.create_connection(("127.0.0.1", self.node.port), timeout=10) as client:
            start = chance.choice((b"", b"\x01\x00", b"\x04\x00", b"\x05\x00", b"GET / HTTP/1.1\r\n"))
            client.sendall(start + chance.randbytes(chance.randrange(5000)))
            self.counts["noise"] += 1

    def stow(self, chance: random.Random) -> None:
        files = sorted((self.folder / "good" / "0").iterdir())
        body, kind = body_of(files)
        what = chance.choice(("good", "damaged", "no token", "cut off"))
        if what == "damaged":
            body = body[: chance.randrange(len(body))]
        token = "wrong" if what == "no token" else TOKEN
        connection = http.client.HTTPConnection("127.0.0.1", self.stow_port, timeout=30)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
            if what == "cut off":
                connection.putrequest("POST", PATH)
                for name, value in (headers | {"Content-Length": "100000"}).items():
                    connection.putheader(name, value)
                connection.endheaders(body[:1000])
                self.counts["stow: cut off"] += 1
                return
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            answer.read()
            self.counts[f"stow: {what}: status {answer.status}"] += 1

    def await_results(self) -> None:
        ledger = NodeLedger(self.folder / "node" / "outgoing")
        end = time.monotonic() + 300
        while ledger.counts_of_deliveries()[SENT] < self.sent_series and time.monotonic() < end:
            time.sleep(0.5)
        ledger.close()

    def measured(self) -> dict[str, Any]:
        """Of the process of the node, without its worker."""
        process = psutil.Process(self.node.process.pid)
        with process.oneshot():
            rss_mb = process.memory_info().rss / 1e6
            return {"rss_mb": round(rss_mb), "file_handles": process.num_fds(), "threads": process.num_threads()}

    def logged(self, text: str) -> dict[str, int]:
        """How often each kind of line is in the log, with numbers and hashes left out."""
        lines = (line.split("uhrct node: ", 1)[1] for line in text.splitlines() if "uhrct node: " in line)
        kinds = Counter(
            re.sub(r"\b(?:[0-9a-f]{16}|\d+)\b", "N", re.sub(r"127\.0\.0\.1\S*", "", line)) for line in lines
        )
        return dict(sorted(kinds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/node_soak.json"))
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), args.minutes)
        try:
            found = {"minutes": args.minutes} | soak.run()
        finally:
            soak.pacs.stop()
            if soak.node.process.poll() is None:
                soak.node.kill()
    print(json.dumps(found, indent=2))
    write_atomic(args.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
