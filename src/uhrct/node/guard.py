"""A DICOM server with bounds that pynetdicom does not have: size of packets and objects, slow clients, connections.

pynetdicom 3.0 reads a packet of any length that its header states, waits for the rest of it without end, and makes the
TLS handshake in the thread that accepts connections.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from uhrct.node.config import Receive
from uhrct.node.log import LOG, in_short

#: The request for an association may be longer than a PDU of data: it can list 128 presentation contexts.
LEAST_PDU_BYTES = 256 << 10
#: a command and the ends of packets beside an object
BESIDE_BYTES = 1 << 20
#: connections for each association that may be open; further ones are closed at once
CONNECTIONS_PER_ASSOCIATION = 3


class Guard:
    """Reads from the socket of one association, within the bounds.

    Parameters
    ----------
    wrapped : socket of pynetdicom, whose `recv` it replaces
    """

    def __init__(self, wrapped: AssociationSocket, bounds: Receive) -> None:
        self._wrapped = wrapped
        self._bounds = bounds
        self._most_pdu = max(bounds.max_pdu_kb << 10, LEAST_PDU_BYTES)
        self._most_message = bounds.max_object_mb * 1_000_000 + BESIDE_BYTES
        self._pdu_end = 0.0
        self.message_is_complete()

    def message_is_complete(self) -> None:
        """The next byte begins another message."""
        self._message_bytes = 0
        self._message_end: float | None = None

    def recv(self, nr_bytes: int) -> bytearray:
        """As `AssociationSocket.recv`: all of so many bytes, or fewer at the end of the connection.

        Raises
        ------
        OSError
            If a bound is exceeded. The connection is then closed.
        """
        count, now = nr_bytes, time.monotonic()
        if count == 6:  # the head of the next packet
            self._pdu_end = now + self._bounds.network_s
        if self._message_end is None:
            self._message_end = now + self._bounds.object_s
        self._message_bytes += count
        if count > self._most_pdu:
            self._refuse("a packet is too large")
        if self._message_bytes > self._most_message:
            self._refuse(f"an object is larger than {self._bounds.max_object_mb} MB")
        received = bytearray(count)
        view, done = memoryview(received), 0
        while done < count:
            left_s = min(self._pdu_end, self._message_end) - time.monotonic()
            if left_s <= 0:
                self._refuse("the sender is too slow")
            raw: socket.socket | None = self._wrapped.socket
            if raw is None:
                break
            raw.settimeout(left_s)
            try:
                read = raw.recv_into(view[done:])
            except TimeoutError:
                continue
            if not read:
                break
            done += read
        raw = self._wrapped.socket
        if raw is not None:
            raw.settimeout(self._bounds.network_s)  # for what is sent
        view.release()
        return received if done == count else received[:done]

    def _refuse(self, reason: str) -> None:
        LOG.warning("a connection was closed: %s", reason)
        if self._wrapped.socket is not None:
            with contextlib.suppress(OSError):
                self._wrapped.socket.shutdown(socket.SHUT_RDWR)
        raise OSError(reason)


class GuardedHandler(RequestHandler):
    """Makes associations that read through a `Guard` and close their socket at the end, whatever happened."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        server = self.server
        assert isinstance(server, GuardedServer)
        wrapped = association.dul.socket
        assert wrapped is not None
        guard = Guard(wrapped, server.bounds)
        raw = wrapped.socket
        wrapped.recv = guard.recv  # type: ignore[method-assign]
        association.guard = guard  # type: ignore[attr-defined]
        run = association.run

        def run_and_close() -> None:
            try:
                run()
            finally:
                association.dul.join(server.bounds.acse_s)
                if raw is not None:
                    raw.close()
                server.connection_is_closed(self.request)

        association.run = run_and_close  # type: ignore[method-assign]
        association.bind(evt.EVT_REQUESTED, server.admit, [self.request])
        association.bind(evt.EVT_FSM_TRANSITION, _wake)
        return association


def _wake(event: evt.Event) -> None:
    """Let an association end whose connection ended before it began; it would wait for `acse_s`."""
    if event.next_state in ("Sta1", "Sta13") and not event.assoc.is_established:
        queue: Any = event.assoc.dul.to_user_queue
        queue.put(None)


class GuardedServer(ThreadedAssociationServer):
    """Accepts connections. A TLS handshake does not keep others waiting. `bounds` is set after it was made.

    If there are too many connections, the oldest of those without an association is closed. So clients that connect and
    say nothing take nobody's place.
    """

    bounds: Receive
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._lock = threading.Lock()
        #: connections without an association, the oldest first
        self._waiting: dict[Any, None] = {}
        #: connections with an association
        self._admitted: set[Any] = set()
        #: connections that were closed to make room, and are not gone yet
        self._closing: set[Any] = set()
        super().__init__(*arguments, **named | {"request_handler": GuardedHandler})

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        assert self.socket is not None
        client, address = self.socket.accept()
        client.settimeout(self.ae.acse_timeout)
        if self.ssl_context is not None:
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Make room for a connection. False: it is closed at once."""
        most = CONNECTIONS_PER_ASSOCIATION * self.bounds.max_associations
        oldest = None
        with self._lock:
            if len(self._closing) >= most:
                return False
            if self.open_connections >= most:
                oldest = next(iter(self._waiting))  # there is one: fewer are admitted
                del self._waiting[oldest]
                self._closing.add(oldest)
            self._waiting[request] = None
        if oldest is not None:
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        return True

    @property
    def open_connections(self) -> int:
        """How many there are, without those that are being closed."""
        return len(self._waiting) + len(self._admitted)

    def admit(self, event: evt.Event, request: Any) -> None:
        """Let an association begin, or reject it because there are too many."""
        with self._lock:
            admitted = len(self._admitted) < self.bounds.max_associations
            if admitted and request in self._waiting:
                del self._waiting[request]
                self._admitted.add(request)
        if not admitted:
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)  # transient: local limit exceeded
            event.assoc.is_rejected = True
            event.assoc.kill()
            LOG.warning("an association was rejected: too many at once")

    def connection_is_closed(self, request: Any) -> None:
        """Of a connection that was accepted."""
        with self._lock:
            self._waiting.pop(request, None)
            self._admitted.discard(request)
            self._closing.discard(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None and not self._shakes_hands(request):
            self.shutdown_request(request)
            self.connection_is_closed(request)
            return
        super().process_request_thread(request, client_address)

    def _shakes_hands(self, request: Any) -> bool:
        try:
            request.do_handshake()
            return True
        except OSError as error:  # also ssl.SSLError
            LOG.warning("a connection was closed: no TLS handshake (%s)", type(error).__name__)
            return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        LOG.warning("a connection was closed: %s", in_short(error) if error else "error")
        self.connection_is_closed(request)

    def service_actions(self) -> None:
        """pynetdicom collects garbage here, which takes long in a process with torch."""
