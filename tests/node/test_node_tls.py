"""TLS on both sides of the node: certificates are checked, and a handshake keeps nobody waiting."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from node_case import associate, config, receiver, series
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification

from uhrct.core.errors import UhrctError
from uhrct.node.config import Peer, Tls
from uhrct.node.peers import NotSent, echo, send
from uhrct.node.receiver import Receiver
from uhrct.node.tls import client_context, server_context


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of 127.0.0.1 from it (`node`) and from another one (`stranger`)."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("keys")

    def run(*words: str) -> None:
        subprocess.run([program, *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "2")
    for name in ("ca", "other"):
        run(*new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    for name, authority in (("node", "ca"), ("stranger", "other")):
        extra = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
        run(*new, "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-keyout", f"{name}.key", "-out",
            f"{name}.pem", "-subj", f"/CN={name}", *extra)  # fmt: skip
    return folder


def tls(keys: Path, name: str | None = "node", ca: str | None = "ca") -> dict[str, str]:
    found = {} if name is None else {"certificate": str(keys / f"{name}.pem"), "key": str(keys / f"{name}.key")}
    return found if ca is None else found | {"ca": str(keys / f"{ca}.pem")}


def peer(port: int, **how: Any) -> Peer:
    return Peer(ae_title="UHRCT", host="127.0.0.1", port=port, timeout_s=5, tls=Tls(**how))


def test_callers_need_a_certificate_of_the_authority(tmp_path: Path, keys: Path) -> None:
    files = series(tmp_path / "in")
    node = config(tmp_path, receive={"tls": tls(keys), "acse_s": 5})
    with receiver(node) as (server, incoming):
        assert echo(peer(server.port, **tls(keys)), "SCANNER") == ""
        send(peer(server.port, **tls(keys)), "SCANNER", files)
        for how in (tls(keys, "stranger"), tls(keys, None)):
            assert echo(peer(server.port, **how), "SCANNER") != ""
        assert not associate(server.port).is_established  # without TLS
        assert sum(len(list(folder.iterdir())) for folder in incoming.series()) == len(files)


def test_a_peer_must_show_a_certificate_of_the_authority(tmp_path: Path, keys: Path) -> None:
    arrived: list[str] = []
    ae = AE("UHRCT")
    ae.add_supported_context(CTImageStorage)
    ae.add_supported_context(Verification)
    context = server_context(Tls(**tls(keys, "stranger", None)))  # type: ignore[arg-type]
    handlers = [(evt.EVT_C_STORE, lambda event: arrived.append("x") or 0)]
    server = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=handlers)
    assert server is not None
    port = int(server.server_address[1])
    try:
        with pytest.raises(NotSent, match="no connection"):
            send(peer(port, **tls(keys)), "NODE", series(tmp_path / "in"))
        assert arrived == []
        send(peer(port, **tls(keys, ca="other")), "NODE", series(tmp_path / "in"))
        assert len(arrived) == 2
    finally:
        server.shutdown()


def test_handshakes_that_do_not_go_on_block_nobody(tmp_path: Path, keys: Path) -> None:
    files = series(tmp_path / "in")
    node = config(tmp_path, receive={"tls": tls(keys), "acse_s": 30})
    with receiver(node) as (server, _):
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        silent[0].sendall(b"\x16\x03\x01")
        sender = threading.Thread(target=send, args=(peer(server.port, **tls(keys)), "SCANNER", files), daemon=True)
        sender.start()
        sender.join(20)
        assert not sender.is_alive()
        for client in silent:
            client.close()


def test_old_versions_of_tls_are_refused(tmp_path: Path, keys: Path) -> None:
    with receiver(config(tmp_path, receive={"tls": tls(keys, ca=None)})) as (server, _):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", server.port)) as client, pytest.raises(OSError):  # noqa: PT011
            context.wrap_socket(client)


@pytest.mark.parametrize(
    "how", [{"certificate": "missing.pem", "key": "missing.key"}, {"certificate": "node.key", "key": "node.key"}, {}]
)
def test_a_wrong_certificate_is_one_line(tmp_path: Path, keys: Path, how: dict[str, str]) -> None:
    bad = Tls(**{name: keys / file for name, file in how.items()})
    with pytest.raises(UhrctError, match="tls") as caught:
        server_context(bad)
    assert "\n" not in str(caught.value)
    assert server_context(None) is None
    assert client_context(None) is None


def test_a_port_that_is_in_use_is_one_line(tmp_path: Path) -> None:
    node = config(tmp_path)
    with receiver(node) as (server, incoming):
        taken = config(tmp_path, receive={"port": server.port})
        with pytest.raises(UhrctError, match=r"127\.0\.0\.1:\d+ cannot be used .*choose another port"):
            Receiver(taken, incoming)
