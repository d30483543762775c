"""`uhrct node` under attack: every result must be in the archive exactly once, whoever is killed.

    PYTHONPATH=tests/node:tests/io python benchmarks/node_faults.py --out results/node_faults.json

50 small series reach a node: every second one by C-STORE, the others from an Orthanc that the node polls. The node
sends each result by C-STORE and by STOW-RS to that Orthanc, and by C-STORE to another archive, which counts what
arrives. Meanwhile the node and Orthanc are killed (SIGKILL) again and again. Then the ledger, Orthanc and the other
archive are compared. It uses the helpers of the tests, and needs Orthanc (`apt-get install orthanc orthanc-dicomweb`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from node_case import SHAPE, Pacs, Process, associate, series, settings, write_config
from orthanc_server import Orthanc, orthanc
from pydicom import dcmread

from uhrct.batch.ledger import DONE
from uhrct.core.files import write_atomic
from uhrct.node.ledger import SENT, NodeLedger

PEERS = ("STORE", "STOW", "OTHER")


def send(port: int, files: list[Path]) -> bool:
    """C-STORE of a series; whether all images were taken."""
    with contextlib.suppress(Exception):  # the node was killed meanwhile; the scanner tries again
        association = associate(port)
        if association.is_established:
            taken = [association.send_c_store(dcmread(file)).get("Status") for file in files]
            association.release()
            return taken == [0] * len(files)
    return False


class Attack:
    """The node, Orthanc, and what was done to them."""

    def __init__(self, folder: Path, count: int, every_s: float) -> None:
        self.folder, self.count, self.every_s = folder, count, every_s
        self.random = random.Random(0)
        self.told: dict[str, Any] = {"series": count, "node_killed": 0, "orthanc_killed": 0}
        self.pacs = Pacs()
        self.stack = contextlib.ExitStack()
        self.archive: Orthanc = self.stack.enter_context(orthanc(folder))
        url = f"http://127.0.0.1:{self.archive.http_port}/dicom-web"
        dicom = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": self.archive.dicom_port, "timeout_s": 10}
        peers = {"STORE": dicom, "STOW": {"url": url, "timeout_s": 10}, "OTHER": self.pacs.peer}
        poll = [{"url": url, "every_s": 2, "timeout_s": 10}]
        self.path = write_config(folder, settings(folder, peers, poll=poll))

    def run(self) -> dict[str, Any]:
        scans = [series(self.folder / "in" / str(k), seed=k) for k in range(self.count)]
        for files in scans[1::2]:
            self.archive.stow(files)
        to_send = scans[::2]
        node = Process(self.path)
        begin = time.monotonic()
        next_kill = begin + self._pause_s()
        while not self._all_sent():
            if to_send and send(node.port, to_send[0]):
                to_send.pop(0)
            time.sleep(0.3)
            if time.monotonic() > next_kill:
                if self.random.random() < 0.6:
                    node.kill()
                    node = Process(self.path)
                    self.told["node_killed"] += 1
                else:
                    self.archive.kill()
                    time.sleep(3)
                    self.archive = self.stack.enter_context(orthanc(self.folder, self.archive))
                    self.told["orthanc_killed"] += 1
                next_kill = time.monotonic() + self._pause_s()
        time.sleep(5)  # a loop would show now
        self.told["seconds"] = round(time.monotonic() - begin)
        self.told["exit_code_after_sigterm"] = node.stop()
        return self.told | self._judged()

    def _pause_s(self) -> float:
        """Between two kills: any moment of the work may be hit."""
        return self.random.uniform(0.2, 2) * self.every_s

    def _all_sent(self) -> bool:
        ledger = NodeLedger(self.folder / "node" / "outgoing")
        try:
            return ledger.counts()[DONE] == self.count and (
                ledger.counts_of_deliveries()[SENT] == self.count * len(PEERS)
            )
        finally:
            ledger.close()

    def _judged(self) -> dict[str, Any]:
        results = self.folder / "node" / "outgoing"
        expected = {str(dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in results.glob("*/*.dcm")}
        found = self.archive.json("/dicom-web/instances?limit=10000", Accept="application/dicom+json")
        uids = [one["00080018"]["Value"][0] for one in found]
        ours = [uid for uid in uids if uid in expected]
        arrived = self.pacs.arrived
        return {
            "images_of_results_expected": len(expected),
            "images_of_results_in_orthanc": len(ours),
            "images_of_results_missing_in_orthanc": len(expected - {*uids}),
            "images_in_orthanc_twice": len(uids) - len({*uids}),
            "images_in_orthanc_that_nobody_expects": len(uids) - len(ours) - self.count // 2 * SHAPE[0],
            "images_of_results_missing_in_the_other_archive": len(expected - {*arrived}),
            "images_in_the_other_archive_that_nobody_expects": len({*arrived} - expected),
            "images_sent_again_after_a_kill": sum(n - 1 for n in arrived.values()),
            "images_sent_again_with_another_content": sum(len(c) > 1 for c in self.pacs.content.values()),
            "files_that_are_no_result": len(list(results.rglob(".uhrct-*"))),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/node_faults.json"))
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--every", type=float, default=6.0, help="mean seconds between two kills")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(Path(folder), args.series, args.every)
        try:
            found = attack.run()
        finally:
            attack.stack.close()
            attack.pacs.stop()
    print(json.dumps(found, indent=2))
    write_atomic(args.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
