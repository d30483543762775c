"""A server of uvicorn in a thread of a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import pytest


@contextmanager
def in_thread(serve: Callable[..., None], *args: Any, **kwargs: Any) -> Iterator[str]:
    """Run a function that serves and tells its address to `ready`; gives the address, and ends the server later."""
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    started: list[Any] = []

    class Kept(uvicorn.Server):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            started.append(self)

    told: Queue[str] = Queue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn, "Server", Kept)
        thread = threading.Thread(target=serve, args=args, kwargs=kwargs | {"ready": told.put}, daemon=True)
        thread.start()
        try:
            yield told.get(timeout=60)
        finally:
            for server in started:
                server.should_exit = True
            thread.join(60)
