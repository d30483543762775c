"""Run a node: all its parts, from the start to a clean stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

from uhrct.batch.ledger import FAILED, SET_ASIDE
from uhrct.core.errors import UhrctError
from uhrct.node.config import NodeConfig, Peer
from uhrct.node.ledger import NodeLedger
from uhrct.node.log import LOG, in_short, start_log
from uhrct.node.retention import remove_old

#: between two looks at received series, workers and deliveries
LOOK_S = 0.5
#: what is being sent may go on for so long when the node stops
STOP_S = 20.0
#: between two looks for old files
RETENTION_S = 600.0


def run_node(config: NodeConfig, *, retry_failed: bool = False) -> None:
    """Run until SIGTERM or Ctrl-C.

    Parameters
    ----------
    retry_failed : series that failed or were set aside wait again, and deliveries that were given up

    Raises
    ------
    UhrctError
        If a port, a folder or a certificate cannot be used, or another node runs on the folder.
    """
    from uhrct.node.workers import node_lock

    start_log()
    os.umask(0o077)  # received files and results are for this user alone
    stopped = threading.Event()
    try:
        with _signals(stopped), node_lock(config.outgoing), contextlib.closing(NodeLedger(config.outgoing)) as ledger:
            ledger.release_all()  # the lock says that no worker is left
            if retry_failed:
                ledger.retry_failed()
            _Node(config, ledger, stopped).run()
    except OSError as error:
        raise UhrctError(f"{error.filename or config.folder}: cannot be used ({error.strerror or error})") from error
    except sqlite3.OperationalError as error:
        raise UhrctError(
            f"{config.outgoing}: the ledger cannot be used ({error}); make room, and start again"
        ) from error


class _Node:
    """The parts of a running node."""

    def __init__(self, config: NodeConfig, ledger: NodeLedger, stopped: threading.Event) -> None:
        from uhrct.node.delivery import Deliverer
        from uhrct.node.enrolment import Enrolment
        from uhrct.node.incoming import Incoming
        from uhrct.node.peers import client_context
        from uhrct.node.polling import Poller
        from uhrct.node.receiver import Receiver
        from uhrct.node.workers import Workers

        for peer in config.peers.values():
            client_context(peer.tls)  # says what is wrong with a certificate
        self._config, self._ledger, self._stopped = config, ledger, stopped
        bounds = config.receive
        self._incoming = Incoming(config.incoming, int(bounds.quota_gb * 1e9), bounds.max_object_mb * 1_000_000)
        self._enrolment = Enrolment(config, self._incoming, ledger)
        self._workers = Workers(self._enrolment.jobs(), config.workers)
        self._deliverers = [Deliverer(config, peer, stopped) for peer in config.peers]
        self._pollers = [Poller(config, source, self._incoming, stopped) for source in config.poll]
        self._receiver = Receiver(config, self._incoming)
        self._stow: Any = None
        if config.stow is not None:
            from uhrct.node.stow import StowServer

            self._stow = StowServer(config.stow, self._incoming)
        self._failed: set[str] = {name for name, _ in ledger.failed()}

    def run(self) -> None:
        for thread in (*self._deliverers, *self._pollers):
            thread.start()
        if self._stow is not None:
            self._stow.start()
        server = threading.Thread(target=self._receiver.serve, name="receiver", daemon=True)
        server.start()
        LOG.info("%s", self._start_line())
        try:
            self._loop()
        finally:
            LOG.info("stopping")
            self._receiver.stop()
            if self._stow is not None:
                self._stow.stop()
            end = time.monotonic() + STOP_S
            for thread in (*self._deliverers, *self._pollers):
                thread.join(max(0.0, end - time.monotonic()))  # one that waits for a peer ends with the process
            self._workers.stop(self._ledger)
            LOG.info("stopped")

    def _loop(self) -> None:
        next_removal = 0.0
        while not self._stopped.wait(LOOK_S):
            try:
                self._enrolment.look()
                self._workers.look(self._ledger)
                self._ledger.plan_deliveries()
                self._tell_failures()
                if time.monotonic() >= next_removal:
                    remove_old(self._config, self._incoming, self._ledger)
                    next_removal = time.monotonic() + RETENTION_S
            except (OSError, sqlite3.OperationalError) as error:  # busy, or the disk is full: it may pass
                LOG.warning("a look at the folders failed (%s)", in_short(error))
                self._stopped.wait(10 * LOOK_S)

    def _tell_failures(self) -> None:
        """Say which series have failed since the last look."""
        failed = self._ledger.failed()
        for name, state in failed:
            if name not in self._failed:
                LOG.warning("series %s: %s; uhrct node CONFIG --status says why", name, state)
        self._failed = {name for name, _ in failed}

    def _start_line(self) -> str:
        config = self._config
        bounds = config.receive
        line = f"AE title {config.ae_title}, {bounds.address}:{self._receiver.port}{' with TLS' if bounds.tls else ''}"
        if self._stow is not None and config.stow is not None:
            line += f", STOW-RS {config.stow.address}:{self._stow.port}"
        line += "".join(f", polls {poll.url}" for poll in config.poll)
        return f"{line}, peers: {', '.join(f'{name} ({where(peer)})' for name, peer in config.peers.items())}"


def where(peer: Peer) -> str:
    """The address of a peer, for messages."""
    return peer.url or f"{peer.ae_title} at {peer.host}:{peer.port}"


def status_lines(config: NodeConfig) -> list[str]:
    """What a node knows: counts, and a line for each series or delivery that failed.

    Raises
    ------
    UhrctError
        If there is no ledger.
    """
    from uhrct.batch.ledger import LEDGER
    from uhrct.batch.summary import sentence

    out = config.outgoing
    if not (out / LEDGER).is_file():
        raise UhrctError(f"{out}: holds no {LEDGER}; has this node been started before?")
    with contextlib.closing(NodeLedger(out)) as ledger:
        counts = ledger.counts_of_deliveries()
        arriving = {p.name for p in config.incoming.glob("[!.]*")} - set(ledger.known())
        lines = [f"{len(arriving)} series are arriving, or wait to be decided"] if arriving else []
        lines += [sentence(ledger.counts()), f"deliveries: {', '.join(f'{n} {state}' for state, n in counts.items())}"]
        lines += [
            f"{row['name']}: {row['state']}: {row['error']}"
            for row in ledger.rows()
            if row["state"] in (FAILED, SET_ASIDE)
        ]
        lines += [
            f"{row['name']}: {row['state']} to {row['peer']}: {row['error']}"
            for row in ledger.deliveries()
            if row["error"] is not None
        ]
    return lines


@contextlib.contextmanager
def _signals(stopped: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the node cleanly."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
