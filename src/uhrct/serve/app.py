"""The application behind the guard: jobs, their files, and the viewer for each result."""

# no `from __future__ import annotations`: FastAPI looks at the annotations of functions inside of functions
import asyncio
import json
import math
import re
import threading
from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uhrct.core.errors import UhrctError
from uhrct.serve.download import zip_pieces
from uhrct.serve.lane import Lane
from uhrct.serve.page import PARTS, page, part
from uhrct.serve.store import CANCELLED, DONE, LOOKING, STARTABLE, UPLOADING, WAITING, Job, Refused, Store
from uhrct.serve.upload import save, small_body
from uhrct.serve.wishes import parsed_wish
from uhrct.serve.worker import REPORT

if TYPE_CHECKING:
    from fastapi import FastAPI

    from uhrct.viewer.study import Study, View

#: Bytes of the settings of a run.
_MOST_SETTINGS = 4096
_COUNT = re.compile(r"\d{1,15}", re.A)
#: Voxels of a result that the viewer opens; more would need too much memory of the server.
_MOST_VOXELS = 1.5e9
Wording = Callable[[str], str]


class Service:
    """The jobs, and the two lanes that work on them: one lists the series of scans, one super-resolves.

    Parameters
    ----------
    store : the jobs
    device : where to compute
    wording : how arguments in the messages of the library are shown
    """

    def __init__(self, store: Store, device: str = "auto", wording: Wording = str) -> None:
        self.store, self._device, self.worded = store, device, wording
        self._lookers, self._workers = (Lane(store, device, store.limits.kept_free) for _ in range(2))
        self.viewer = Viewer()

    def close(self) -> None:
        """End all work."""
        self._lookers.close()
        self._workers.close()

    def listed(self) -> list[dict[str, Any]]:
        """What the page shows of each job, in the words of the command line."""
        jobs = self.store.all()
        for job in jobs:
            job["error"] = self.worded(job["error"])
            job["series"] = [s | {key: self.worded(s[key]) for key in ("problem", "needs")} for s in job["series"]]
        return jobs

    def look(self, job: Job) -> None:
        """All files are there: list the series."""
        with self.store.lock:
            if job.state != UPLOADING or job.uploads or not job.files:
                raise Refused(409, "the upload is not complete; wait, or delete this scan and try again")
            job.state = LOOKING
            self._lookers.add(job)

    def start(self, job: Job, text: bytes) -> None:
        """Let a job wait for its turn to be super-resolved, with the settings of the request."""
        wish = parsed_wish(text)
        wish.settings(self._device)
        if wish.audit:
            _check_audit()
        with self.store.lock:
            if job.state not in STARTABLE or not job.series:
                raise Refused(409, "this scan cannot be started now")
            job.forget_run()
            job.wish, job.run, job.state = wish, job.run + 1, WAITING
            self._workers.add(job)

    def cancel(self, job: Job) -> None:
        """End the work on a job; the scan stays."""
        for lane in (self._lookers, self._workers):
            lane.drop(job)
        with self.store.lock:
            if job.state == CANCELLED:
                job.forget_run()

    def remove(self, job: Job) -> None:
        """End the work on a job and remove its files."""
        for lane in (self._lookers, self._workers):
            lane.drop(job)
        self.viewer.close(job)
        self.store.remove(job)

    def made(self, name: str) -> Job:
        """A job that has a result."""
        job = self.store.get(name)
        if job.state != DONE:
            raise Refused(409, "this scan has no result yet")
        return job

    def reader(self, name: str) -> "_Reader":
        """What reads scan and result of a job for the viewer."""
        job = self.made(name)
        shape = json.loads((job.folder / REPORT).read_text())["output"]["shape"]
        if math.prod(shape) > _MOST_VOXELS:
            raise Refused(413, "the result is too large to be shown here; download it and use uhrct view --box")
        return self.viewer.open(job)


#: what the viewer shows in the present request
_READER: "ContextVar[_Reader]" = ContextVar("reader")


class Viewer:
    """Holds the voxels of one result at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: tuple[str, int] | None = None
        self._reader: _Reader | None = None
        self._app: Any = None

    @property
    def app(self) -> Any:
        """The application. There is one for all jobs: FastAPI keeps a part of every application in memory."""
        from uhrct.viewer.server import make_app

        with self._lock:
            self._app = self._app or make_app(lambda: _READER.get()())
            return self._app

    def open(self, job: Job) -> "_Reader":
        """What reads a finished job, at its first request that needs voxels."""
        with self._lock:
            if self._reader is None or self._shown != (job.name, job.run):
                self._shown, self._reader = (job.name, job.run), _Reader(job)
            return self._reader

    def close(self, job: Job) -> None:
        """Forget the voxels of a job."""
        with self._lock:
            if self._shown is not None and self._shown[0] == job.name:
                self._shown = self._reader = None


class _Reader:
    """Reads scan and result of a job at its first call, and then gives the same again."""

    def __init__(self, job: Job) -> None:
        self._wish, self._shown = job.wish, {key: job.folder / path for key, path in job.shown.items()}
        self._scan = job.folder / job.scan
        self._held: tuple[Study, View] | None = None

    def __call__(self) -> "tuple[Study, View]":
        from uhrct.viewer.files import read_study

        if self._held is None:
            overlays = [self._shown["grades"]] if _has_grades(self._shown) else []
            paths = [self._scan, self._shown["result"]]
            study = read_study(self._read, paths, overlays=overlays, audit=self._shown.get("audit"))
            self._held = study, study.whole()
        return self._held

    def _read(self, path: Path) -> Any:
        from uhrct import io

        wish = self._wish
        if path != self._scan or wish is None:
            return io.read(path)
        several = io.paths.is_dicom(io.paths.readable(path)[1])
        return io.read(path, series=str(wish.series) if several else None, untilt=wish.untilt)


def _has_grades(shown: dict[str, Path]) -> bool:
    """Whether anything was graded: a map without a grade cannot be drawn."""
    if "audit" not in shown:
        return False
    report = json.loads(shown["audit"].read_text())
    return any(mm for kind in ("vessels", "airways") for mm in report[kind]["total_mm"].values())


def _check_audit() -> None:
    from uhrct.evaluation.html_report import check_libraries

    check_libraries()
    if find_spec("scipy") is None:
        raise UhrctError("an audit needs scipy: pip install 'uhrct[evaluation]'")


def make_app(service: Service) -> "FastAPI":
    """The application: the page, its parts, and jobs by the names that the server gave them."""
    from fastapi import FastAPI, Query, Request, Response
    from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
    from starlette.requests import ClientDisconnect

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    store = service.store

    @app.exception_handler(UhrctError)
    async def refused(_: Request, error: UhrctError) -> Response:
        status = error.status if isinstance(error, Refused) else 422
        return JSONResponse({"error": service.worded(str(error))}, status)

    @app.get("/")
    def whole_page() -> Response:
        return Response(page(), media_type="text/html")

    @app.get("/jobs")
    def jobs() -> Response:
        return JSONResponse({"jobs": service.listed(), "most_bytes": store.limits.most_bytes})

    @app.post("/jobs")
    def add() -> Response:
        return JSONResponse({"name": store.add().name}, 201)

    @app.post("/jobs/{name}/files")
    async def upload(name: str, request: Request, suffix: str = Query(max_length=10)) -> Response:
        size = request.headers.get("content-length", "")
        if not _COUNT.fullmatch(size):
            raise Refused(411, "the size of the file was not announced")
        job = store.get(name)
        path = store.reserve(job, suffix, int(size))
        complete = False
        try:
            await save(request.stream(), path, int(size))
            complete = True
        except (OSError, ClientDisconnect):
            raise Refused(507, "the file could not be stored; is the disk of the server full?") from None
        finally:
            store.arrived(job, path, int(size), complete)
        # the page knows names, the server numbers: in messages the page puts one for the other
        return JSONResponse({"number": int(path.stem) if path.stem.isdecimal() else 0}, 201)

    @app.post("/jobs/{name}/look")
    def look(name: str) -> Response:
        service.look(store.get(name))
        return Response(status_code=204)

    @app.post("/jobs/{name}/start")
    async def start(name: str, request: Request) -> Response:
        text = await small_body(request.stream(), _MOST_SETTINGS)
        await asyncio.to_thread(service.start, store.get(name), text)
        return Response(status_code=204)

    @app.post("/jobs/{name}/cancel")
    def cancel(name: str) -> Response:
        service.cancel(store.get(name))
        return Response(status_code=204)

    @app.delete("/jobs/{name}")
    def remove(name: str) -> Response:
        service.remove(store.get(name))
        return Response(status_code=204)

    @app.get("/jobs/{name}/result")
    def result(name: str) -> Response:
        job = service.made(name)
        file = job.folder / job.result
        if file.is_dir():
            pieces = zip_pieces(file, "uhrct-result")
            return StreamingResponse(pieces, media_type="application/zip", headers=_saved_as("uhrct-result.zip"))
        saved = _saved_as(f"uhrct-result{''.join(file.suffixes)}")
        return FileResponse(file, media_type="application/octet-stream", headers=saved)

    @app.get("/jobs/{name}/report")
    def report(name: str) -> Response:
        file = service.made(name).folder / REPORT
        return FileResponse(file, media_type="application/json", headers=_saved_as("uhrct-report.json"))

    async def viewer(scope: Any, receive: Any, send: Any) -> None:
        reader = await asyncio.to_thread(service.reader, scope["path_params"]["name"])
        _READER.set(reader)  # of this request alone: others may look at another job meanwhile
        await service.viewer.app(scope, receive, send)

    app.mount("/jobs/{name}/view", viewer)

    def add_part(name: str) -> None:
        @app.get(f"/{name}")
        def one_part() -> Response:
            return Response(part(name), media_type=PARTS[name])

    for name in PARTS:
        add_part(name)
    return app


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
