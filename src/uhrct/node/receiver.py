"""The DICOM server: C-ECHO and C-STORE of CT images."""

from __future__ import annotations

import time
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from uhrct.core.errors import UhrctError
from uhrct.io.dicom.encode import preamble
from uhrct.node.config import NodeConfig
from uhrct.node.guard import GuardedServer
from uhrct.node.incoming import CT_CLASSES, NOT_UNDERSTOOD, UID_TEXT, Incoming, Refused
from uhrct.node.log import LOG, in_short
from uhrct.node.tls import server_context

#: Transfer syntaxes in which images may arrive: all that the reader decodes.
SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit, first: it is what we prefer
    "1.2.840.10008.1.2",  # implicit
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # big endian
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",  # JPEG 2000
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",  # HTJ2K
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)
SUCCESS = 0x0000
#: how long open associations may go on when the node stops
STOP_S = 10.0


class Receiver:
    """Receives images until it is stopped.

    Raises
    ------
    UhrctError
        If the port cannot be used.
    """

    def __init__(self, config: NodeConfig, incoming: Incoming) -> None:
        bounds = config.receive
        self._incoming = incoming
        _config.LOG_HANDLER_LEVEL = "none"  # it would describe every packet
        self._ae = ae = AE(config.ae_title)
        ae.maximum_pdu_size = bounds.max_pdu_kb << 10
        ae.maximum_associations = 10**6  # `GuardedServer.admit` counts, without connections that say nothing
        ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = bounds.acse_s, bounds.dimse_s, bounds.network_s
        ae.require_called_aet = True
        ae.require_calling_aet = list(bounds.callers)
        ae.add_supported_context(Verification)
        for sop_class in CT_CLASSES:
            ae.add_supported_context(sop_class, list(SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DIMSE_RECV, lambda event: event.assoc.guard.message_is_complete()),
            (evt.EVT_REJECTED, self._tell_rejected),
        ]
        try:
            self._server = ae.make_server(
                (bounds.address, bounds.port),
                ssl_context=server_context(bounds.tls),
                evt_handlers=handlers,
                server_class=GuardedServer,
            )
        except OSError as error:
            raise UhrctError(
                f"receive: {bounds.address}:{bounds.port} cannot be used ({error.strerror or error}); "
                "choose another port"
            ) from None
        assert isinstance(self._server, GuardedServer)
        self._server.bounds = bounds
        ae._servers.append(self._server)  # as `AE.start_server` does, which takes no class

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def connections(self) -> int:
        """How many are open, also those without an association."""
        assert isinstance(self._server, GuardedServer)
        return self._server.open_connections

    def serve(self) -> None:
        """Accept connections until `stop`."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """Accept no further connection, let the open ones finish for a while, then abort them."""
        self._server.shutdown()
        end = time.monotonic() + STOP_S
        while any(a.is_established for a in self._server.active_associations) and time.monotonic() < end:
            time.sleep(0.05)
        for association in self._server.active_associations:
            if association.is_established:
                association.abort()
            else:
                association.kill()

    def _tell_rejected(self, event: Event) -> None:
        """Say which title was wrong, and where the caller is. The title itself may be anything, also a name."""
        requestor: Any = event.assoc.requestor
        asked = requestor.primitive
        if asked is None:
            return
        if asked.called_ae_title != self._ae.ae_title:
            LOG.warning("an association from %s was rejected: it did not call %s", requestor.address, self._ae.ae_title)
        elif asked.calling_ae_title not in self._ae.require_calling_aet:
            LOG.warning("an association from %s was rejected: its AE title is not in callers", requestor.address)

    def _store(self, event: Event) -> int:
        """Answer a C-STORE."""
        request: Any = event.request
        try:
            uids = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
            if not UID_TEXT.fullmatch(uids[1]):
                raise Refused(NOT_UNDERSTOOD, "no valid SOPInstanceUID")
            syntax = UID(str(event.context.transfer_syntax))
            content = request.DataSet.getbuffer()
            self._incoming.take([preamble(uids[0], uids[1], syntax), content], expected=uids)
        except Refused as refused:
            LOG.warning("an image was refused: %s (status 0x%04X)", refused.reason, refused.status)
            return refused.status
        except Exception as error:
            LOG.warning("an image was refused: internal error (%s)", in_short(error))
            return NOT_UNDERSTOOD
        return SUCCESS
