"""The STOW-RS server: takes DICOM files by HTTP from those who know the token (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from uhrct.core.errors import UhrctError
from uhrct.node.config import Stow
from uhrct.node.incoming import NEW, Incoming, Refused
from uhrct.node.log import LOG, in_short
from uhrct.node.multipart import NotMultipart, boundary_of, parts_of
from uhrct.node.tls import server_context

PATH = "/dicom-web/studies"
#: time for the head of a request
HEAD_S = 20.0
CLASS_UID, INSTANCE_UID, STORED, FAILED, REASON = "00081150", "00081155", "00081199", "00081198", "00081197"
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Failure(Exception):
    """A request that is answered with a status and nothing else."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class StowApp:
    """The application (ASGI)."""

    def __init__(self, stow: Stow, incoming: Incoming) -> None:
        self._stow, self._incoming = stow, incoming
        self._token = f"Bearer {stow.token()}".encode()
        self._most = stow.max_request_mb * 1_000_000

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body: dict[str, Any] = {}
        try:
            content_type = self._checked(scope)
            with tempfile.TemporaryFile(dir=self._incoming.folder / NEW) as file:
                await self._receive(receive, file)
                status, body = await asyncio.to_thread(self._store, file, content_type)
        except _Failure as failure:
            status = failure.status
            LOG.warning("a STOW-RS request was refused: %s (%d)", failure, status)
        except Exception as error:
            status = 500
            LOG.warning("a STOW-RS request was refused: internal error (%s)", in_short(error))
        await _answer(send, status, body)

    def _checked(self, scope: dict[str, Any]) -> str:
        """The content type of a request that may be read."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not secrets.compare_digest(headers.get(b"authorization", b""), self._token):
            raise _Failure(401, "no valid token")
        if scope["path"].rstrip("/") != PATH:
            raise _Failure(404, "another path")
        if scope["method"] != "POST":
            raise _Failure(405, "another method")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most:
            raise _Failure(413, f"larger than {self._stow.max_request_mb} MB")
        return headers.get(b"content-type", b"").decode("latin-1")

    async def _receive(self, receive: Receive, file: BinaryIO) -> None:
        """Write the body of a request to a file."""
        end = time.monotonic() + self._stow.request_s
        count, more = 0, True
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                raise _Failure(408, "the sender is too slow") from None
            if message["type"] != "http.request":
                raise _Failure(400, "the sender went away")
            count += len(message.get("body", b""))
            if count > self._most:
                raise _Failure(413, f"larger than {self._stow.max_request_mb} MB")
            file.write(message.get("body", b""))
            more = message.get("more_body", False)
        file.flush()

    def _store(self, file: BinaryIO, content_type: str) -> tuple[int, dict[str, Any]]:
        """Store all parts. The status of the answer, and its data set."""
        stored: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        try:
            for part in parts_of(file, boundary_of(content_type)):
                try:
                    taken = self._incoming.take([part])
                except Refused as refused:
                    LOG.warning("an image was refused: %s (status 0x%04X)", refused.reason, refused.status)
                    failed.append({REASON: {"vr": "US", "Value": [refused.status]}})
                    continue
                uids = {CLASS_UID: taken.sop_class, INSTANCE_UID: taken.sop_instance}
                stored.append({tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items()})
        except NotMultipart as error:
            if not stored and not failed:
                raise _Failure(400, str(error)) from None
            failed.append({REASON: {"vr": "US", "Value": [0xC000]}})  # the rest of the body
        lists = {STORED: stored, FAILED: failed}
        body = {tag: {"vr": "SQ", "Value": items} for tag, items in lists.items() if items}
        return (409 if not stored else 202 if failed else 200), body


class _Timely(H11Protocol):
    """Closes a connection whose first request does not begin in time; uvicorn would wait without end."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._expire)

    def _expire(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class StowServer:
    """Serves from a thread of its own.

    Raises
    ------
    UhrctError
        If the port or a certificate cannot be used.
    """

    def __init__(self, stow: Stow, incoming: Incoming) -> None:
        server_context(stow.tls)  # says what is wrong with a certificate
        try:
            self._socket = socket.create_server((stow.address, stow.port))
        except OSError as error:
            raise UhrctError(
                f"stow: {stow.address}:{stow.port} cannot be used ({error.strerror or error}); choose another port"
            ) from None
        tls = stow.tls
        config = uvicorn.Config(
            StowApp(stow, incoming),
            http=_Timely,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=stow.max_requests + 1,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
            ssl_ca_certs=str(tls.ca) if tls and tls.ca else None,
            ssl_cert_reqs=2 if tls and tls.ca else 0,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="stow", daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests that are open, for ten seconds at most."""
        self._server.should_exit = True
        self._thread.join(15)
        self._socket.close()


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode() if body else b""
    headers = [
        (b"content-type", b"application/dicom+json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status >= 400:  # a body that was not read ends the connection
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
