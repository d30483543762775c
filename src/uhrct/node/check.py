"""What is asked before a node starts: libraries, folder, ports and peers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from uhrct.core.errors import UhrctError
from uhrct.node.config import NodeConfig, Peer
from uhrct.node.log import start_log
from uhrct.node.workers import NODE_LOCK


def check_libraries(config: NodeConfig) -> None:
    """Raise `UhrctError` if a library that this configuration needs is missing."""
    try:
        import pynetdicom  # noqa: F401
        import requests  # noqa: F401

        if config.stow is not None:
            import uvicorn  # noqa: F401
    except ImportError as error:
        raise UhrctError(f"a node needs {error.name}: pip install 'uhrct[node]'") from None


def check_places(config: NodeConfig) -> list[str]:
    """Ask whether the folder and the ports can be used; what a user should know about them, one line each.

    Raises
    ------
    UhrctError
        If one of them cannot be used.
    """
    notes = []
    for folder in (config.folder, config.incoming, config.outgoing):
        if folder.exists() and not folder.is_dir():
            raise UhrctError(f"{folder}: is a file; the node needs a folder")
        if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise UhrctError(f"{folder}: cannot be written; give it to the user of the node")
    if not config.folder.exists():
        notes.append(f"folder {config.folder}: does not exist yet; the node makes it")
    if _runs(config.outgoing):
        return [*notes, "a node runs on this folder, so its ports were not tried"]
    for name, server in (("receive", config.receive), ("stow", config.stow)):
        if server is not None:
            _try_port(name, server.address, server.port)
    return notes


def check_peers(config: NodeConfig) -> dict[str, str]:
    """Ask every peer and every polled server whether it is there. The reason for each that is not, "" for the others.

    Raises
    ------
    UhrctError
        If a certificate cannot be used.
    """
    from uhrct.node.peers import echo
    from uhrct.node.tls import server_context

    start_log()
    for tls in (config.receive.tls, config.stow.tls if config.stow else None):
        server_context(tls)
    found = {name: echo(peer, config.ae_title) for name, peer in config.peers.items()}
    for poll in config.poll:
        server = {name: getattr(poll, name) for name in ("url", "ca", "timeout_s", "token_file", "token_env")}
        found[poll.url] = echo(Peer.model_validate(server), config.ae_title)
    return found


def _runs(out: Path) -> bool:
    """Whether a node runs on this folder."""
    with contextlib.suppress(FileNotFoundError), (out / NODE_LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _try_port(name: str, address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError as error:
            raise UhrctError(
                f"{name}: {address}:{port} cannot be used ({error.strerror}); choose another port"
            ) from None
