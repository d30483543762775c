"""Serve pages on loopback, to one browser that knows a secret.

Every request is checked before anything else: its method, its Host and Origin, and the secret that its path starts
with. Volumes are asked for by number. No path of a request is used to find a file. `uhrct serve` has the same guard.
"""

# no `from __future__ import annotations`: FastAPI looks at the annotations of functions inside of functions
import contextlib
import json
import math
import re
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from uhrct.core.errors import UhrctError
from uhrct.viewer.connection import impatient_protocol
from uhrct.viewer.mesh import mz3_bytes
from uhrct.viewer.page import PARTS, SERVED_POLICY, part, served_page
from uhrct.viewer.study import Study, View

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
#: Names under which a browser on this machine may reach the page.
_NAMES = (LOOPBACK, "localhost")
#: A browser cannot ask for fewer voxels than so many.
LEAST_VOXELS = 1000
#: Connections at the same time; a page makes about ten. Others get the status 503.
MOST_CONNECTIONS = 32
#: Methods of requests that only look, and of those that change something.
LOOKING, CHANGING = ("GET",), ("POST", "DELETE")
#: A request that changes something must have this field. Pages of other sites cannot send it without being asked first.
CHANGE_FIELD = b"x-uhrct"
HEADERS = {
    "Content-Security-Policy": SERVED_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # the address holds the secret
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_PLACE = re.compile(r"(\d{1,6}),(\d{1,6}),(\d{1,6})", re.A)
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def check_libraries() -> None:
    """Raise `UhrctError` if FastAPI or uvicorn is missing."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UhrctError(
            "a served page needs FastAPI and uvicorn: pip install 'uhrct[view]'; --html needs neither"
        ) from None


def serve(study: Study, first: View, *, port: int = 0, ready: Callable[[str], None]) -> None:
    """Serve the page of a study until the process is interrupted.

    Parameters
    ----------
    first : the view that the page starts with
    port : number of the port; 0: any that is free
    ready : called with the address once the page can be opened

    Raises
    ------
    UhrctError
        If a library is missing, or the port is in use.
    """
    check_libraries()
    serve_guarded(make_app(lambda: (study, first)), port=port, ready=ready)


def serve_guarded(app: Any, *, port: int, ready: Callable[[str], None], methods: Sequence[str] = LOOKING) -> None:
    """Serve an application behind a `Guard` until the process is interrupted.

    Parameters
    ----------
    app : ASGI application
    port, ready : as for `serve`
    methods : of the requests that are let through

    Raises
    ------
    UhrctError
        If the port is in use.
    """
    import uvicorn

    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UhrctError(
            f"`port={port}`: cannot be used ({error.strerror or error}); leave it out for a free one"
        ) from None
    with listener:
        token, port = secrets.token_urlsafe(32), listener.getsockname()[1]
        config = uvicorn.Config(
            Guard(app, token, port, methods),
            http=impatient_protocol(),
            log_level="critical",
            access_log=False,  # requests hold the secret
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
        ready(f"http://{LOOPBACK}:{port}/{token}/")
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how serving ends
            uvicorn.Server(config).run([listener])


class Guard:
    """Lets only requests of this page through, and takes the secret off their path.

    Parameters
    ----------
    app : the application behind it
    token : secret that the path of every request starts with
    port : port of the server, a part of Host and Origin
    methods : those of `LOOKING`, and of `CHANGING` if the application changes something
    """

    def __init__(self, app: Any, token: str, port: int, methods: Sequence[str] = LOOKING) -> None:
        self.app = app
        self._methods = methods
        self._token = token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in _NAMES}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        status = self.refusal(scope)
        if status:
            await _answer(send, status)
            return
        rest = scope["path"][1 + len(self._token) :]

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = dict(message, headers=[*message["headers"], *_RAW_HEADERS])
            await send(message)

        await self.app(dict(scope, path=rest, raw_path=rest.encode(), root_path=""), receive, send_with_headers)

    def refusal(self, scope: dict[str, Any]) -> int:
        """The HTTP status with which a request is refused, 0 if it is not."""
        fields: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            fields.setdefault(name.lower(), []).append(value)
        # another name may be that of an attacker, who made it point to this machine (DNS rebinding)
        hosts = fields.get(b"host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421
        if any(origin not in self._origins for origin in fields.get(b"origin", [])):
            return 403
        if any(site not in (b"same-origin", b"none") for site in fields.get(b"sec-fetch-site", [])):
            return 403
        if scope["method"] not in self._methods:
            return 405
        # a browser names the origin of every such request; without that and the field, no page of ours has sent it
        if scope["method"] in CHANGING and (b"origin" not in fields or CHANGE_FIELD not in fields):
            return 403
        parts = scope["path"].encode("utf-8", "surrogatepass").split(b"/", 2)
        known = len(parts) == 3 and parts[0] == b"" and secrets.compare_digest(parts[1], self._token)
        return 0 if known else 403


async def _answer(send: Send, status: int) -> None:
    text = {421: b"wrong host\n", 405: b"wrong method\n"}.get(status, b"refused\n")
    headers = [*_RAW_HEADERS, (b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def make_app(opened: Callable[[], tuple[Study, View]]) -> "FastAPI":
    """The application behind the guard: the page, its parts, and volumes by number.

    Parameters
    ----------
    opened : gives the study and the view to start with, at the first request that needs them
    """
    from fastapi import FastAPI, HTTPException, Query, Request, Response

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    @app.exception_handler(UhrctError)
    async def cannot_be_shown(_: Request, error: UhrctError) -> Response:
        return Response(str(error), 409, media_type="text/plain")

    lock = threading.Lock()  # one volume at a time: each may need much memory
    at_query, most_query = Query("", max_length=40), Query(math.inf, ge=LEAST_VOXELS)

    def view(study: Study, first: View, at: str, most: float) -> View:
        """The first view if `at` is empty, "whole", or a box around a voxel "z,y,x" of the result.

        A browser without a graphics card asks for at most so many voxels of the whole.
        """
        if at == "" and first.box:
            return first
        if at in ("", "whole"):
            return study.whole(most)
        numbers = _PLACE.fullmatch(at)
        if not numbers:
            raise HTTPException(404)
        return study.box_around([int(n) for n in numbers.groups()])

    @app.get("/")
    def page() -> Response:
        return Response(served_page(), media_type="text/html")

    @app.get("/view")
    def described(at: str = at_query, most: float = most_query) -> Response:
        with lock:
            study, first = opened()
            text = json.dumps(study.describe(view(study, first, at, most)))
        return Response(text, media_type="application/json")

    def volume(kind: str, number: int, at: str, most: float) -> Response:
        with lock:
            study, first = opened()
            count, make = {
                "image": (len(study.panes), study.image),
                "overlay": (len(study.overlays), study.overlay),
            }[kind]
            if not 0 <= number < count:
                raise HTTPException(404)
            data = make(number, view(study, first, at, most))
        return Response(data, media_type="application/octet-stream")

    @app.get("/image/{number}")
    def image(number: int, at: str = at_query, most: float = most_query) -> Response:
        return volume("image", number, at, most)

    @app.get("/overlay/{number}")
    def overlay(number: int, at: str = at_query, most: float = most_query) -> Response:
        return volume("overlay", number, at, most)

    @app.get("/mesh")
    def mesh() -> Response:
        with lock:
            study, _ = opened()
        if study.mesh is None:
            raise HTTPException(404)
        return Response(mz3_bytes(study.mesh), media_type="application/octet-stream")

    def add(name: str) -> None:
        @app.get(f"/{name}")
        def one_part() -> Response:
            return Response(part(name), media_type=PARTS[name][1])

    for name in PARTS:
        add(name)
    return app
