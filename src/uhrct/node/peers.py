"""Send results to a peer: by C-STORE or by STOW-RS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from uhrct.node.config import Peer
from uhrct.node.dicomweb import DicomWeb, WebError
from uhrct.node.tls import client_context

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
#: status of a C-STORE that may be better later: out of resources
LATER = range(0xA700, 0xA800)
#: result of a rejected association; a transient one may be better later
PERMANENT = 0x01


class NotSent(Exception):
    """A peer did not take everything. `refused` tells whether it was there and refused. No patient data."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


def send(peer: Peer, title: str, files: list[Path], stopped: Callable[[], bool] = lambda: False) -> None:
    """Send files. A second try sends all of them again: the peer knows those that it has by their UIDs.

    Parameters
    ----------
    title : our AE title
    stopped : asked between two images; then the rest is not sent

    Raises
    ------
    NotSent
        If the peer did not take all files.
    """
    if peer.url is not None:
        with _web(peer) as web:
            web.store(files)
        return
    with _associated(peer, title, CTImageStorage) as association:
        for file in files:
            if stopped():
                raise NotSent("the node stops")
            try:
                status = association.send_c_store(dcmread(file)).get("Status")
            except (OSError, ValueError, RuntimeError) as error:
                raise NotSent(f"an image could not be sent ({type(error).__name__})") from None
            if status is None:
                raise NotSent("the connection broke off")
            if status != 0 and not 0xB000 <= status < 0xC000:  # B...: stored, with a warning
                raise NotSent(f"it refused an image with status 0x{status:04X}", refused=status not in LATER)


def echo(peer: Peer, title: str) -> str:
    """Ask a peer whether it is there (C-ECHO, or a query by QIDO-RS). "" if it is, else the reason."""
    try:
        if peer.url is not None:
            with _web(peer) as web:
                next(iter(web.series(SeriesInstanceUID="0")), None)
            return ""
        with _associated(peer, title, Verification) as association:
            status = association.send_c_echo().get("Status")
    except NotSent as error:
        return str(error)
    return "" if status == 0 else "it does not answer C-ECHO"


@contextlib.contextmanager
def _web(peer: Peer) -> Iterator[DicomWeb]:
    assert peer.url is not None
    web = DicomWeb(peer.url, peer.token(), peer.ca, peer.timeout_s)
    try:
        yield web
    except WebError as error:
        raise NotSent(str(error), refused=error.refused) from None
    finally:
        web.close()


@contextlib.contextmanager
def _associated(peer: Peer, title: str, sop_class: str) -> Iterator[Association]:
    assert peer.host is not None
    assert peer.port is not None
    ae = AE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = peer.timeout_s
    # results are explicit; pynetdicom converts for a peer that knows only implicit
    ae.add_requested_context(sop_class, [EXPLICIT, IMPLICIT])
    context = client_context(peer.tls)
    association = ae.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title or "ANY-SCP",
        tls_args=None if context is None else (context, peer.host),
    )
    try:
        if association.is_rejected:
            permanent = getattr(association.acceptor.primitive, "result", PERMANENT) == PERMANENT
            raise NotSent("it rejected the association: does it know our AE title?", refused=permanent)
        if not association.is_established:
            raise NotSent("no connection")
        yield association
    finally:
        if association.is_established:
            association.release()
