"""Connections that end when their client does nothing. uvicorn itself waits for a request without a limit."""

from __future__ import annotations

import asyncio
from typing import Any

#: Time between two looks at a connection. One that is quiet at `QUIET_LOOKS` looks in a row is closed.
LOOK_S = 10.0
QUIET_LOOKS = 2


def impatient_protocol(look_s: float = LOOK_S) -> type[Any]:
    """uvicorn's protocol for HTTP/1.1, which closes a connection on which nothing happens.

    Closed are: a connection without a complete request, and one whose client does not read the answer. A request that
    is being answered is left alone, however long that takes. Slow uploads are the business of the application.

    Parameters
    ----------
    look_s : time between two looks
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _seen: object = None
        _quiet = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(look_s, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except Exception:  # h11 refuses to answer what is no HTTP at all
                self.transport.abort()

        def _look(self) -> None:
            busy = self.cycle is not None and not self.cycle.response_complete
            unread = self.transport.get_write_buffer_size()
            state = (id(self.cycle), busy, unread)
            self._quiet = self._quiet + 1 if state == self._seen and (unread or not busy) else 0
            self._seen = state
            if self._quiet >= QUIET_LOOKS:
                self.transport.abort()
            else:
                self._timer = self.loop.call_later(look_s, self._look)

    return Impatient
