"""One thread per peer sends results, so that a peer that is away keeps no other waiting."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from pydicom import dcmread

from uhrct.node.config import NodeConfig
from uhrct.node.ledger import Delivery, NodeLedger
from uhrct.node.log import LOG, in_short
from uhrct.node.peers import NotSent, send

LOOK_S = 0.5


class Deliverer(threading.Thread):
    """Sends to one peer what the ledger says, until it is stopped."""

    def __init__(self, config: NodeConfig, peer: str, stopped: threading.Event) -> None:
        super().__init__(name=f"deliver to {peer}", daemon=True)
        self._config, self._peer, self._stopped = config, peer, stopped

    def run(self) -> None:
        with contextlib.closing(NodeLedger(self._config.outgoing)) as ledger:
            while not self._stopped.is_set():
                try:
                    delivery = ledger.next_delivery(self._peer)
                    if delivery is not None:
                        self._deliver(ledger, delivery)
                        continue
                except sqlite3.OperationalError as error:  # busy, or the disk is full: later
                    LOG.warning("the ledger cannot be used now (%s)", error)
                except Exception as error:
                    LOG.warning("sending to %s: internal error (%s)", self._peer, in_short(error))
                self._stopped.wait(LOOK_S)

    def _deliver(self, ledger: NodeLedger, delivery: Delivery) -> None:
        peer = self._config.peers[self._peer]
        try:
            files = sorted(delivery.folder.glob("*.dcm"))
            if not files:
                raise NotSent("the result is not there")
            ledger.note_sent_series(series_uid(files[0]))
            send(peer, self._config.ae_title, files, self._stopped.is_set)
        except (NotSent, OSError) as error:
            refused = isinstance(error, NotSent) and error.refused
            reason = str(error) if isinstance(error, NotSent) else in_short(error)
            state = ledger.settle_delivery(delivery, reason, refused=refused)
            LOG.warning("series %s: not sent to %s: %s (%s)", delivery.name, self._peer, reason, state)
        else:
            ledger.settle_delivery(delivery)
            LOG.info("series %s: result sent to %s, %d images", delivery.name, self._peer, len(files))


def series_uid(file: Path) -> str:
    """SeriesInstanceUID of a result."""
    return str(dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True).SeriesInstanceUID)
