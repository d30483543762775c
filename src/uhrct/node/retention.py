"""Remove received files and results some days after they were delivered."""

from __future__ import annotations

import shutil
import time

from uhrct.node.config import NodeConfig
from uhrct.node.incoming import Incoming
from uhrct.node.ledger import NodeLedger
from uhrct.node.log import LOG

DAY_S = 86400.0


def remove_old(config: NodeConfig, incoming: Incoming, ledger: NodeLedger) -> int:
    """Remove what was delivered to all its peers before the time that the configuration says. Returns how many series.

    What failed, or waits for a peer, stays.
    """
    if config.retention_days is None:
        return 0
    before = time.time() - DAY_S * config.retention_days
    count = 0
    for name, result in ledger.delivered_before(before):
        received = incoming.folder / name
        if received.exists() and received.stat().st_mtime >= before:  # something arrived since
            continue
        if received.exists() or result.exists():
            incoming.remove(received, before)
            shutil.rmtree(result, ignore_errors=True)
            LOG.info("series %s: received files and result are removed, as the configuration says", name)
            count += 1
    return count
