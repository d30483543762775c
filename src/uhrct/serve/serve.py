"""Start and end the server: its private folder, the jobs, and the guard in front."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from uhrct.core.errors import UhrctError
from uhrct.core.workspace import Workspace
from uhrct.serve.app import Service, make_app
from uhrct.serve.store import Limits, Store
from uhrct.viewer.server import CHANGING, LOOKING, check_libraries, serve_guarded

#: Name of the output that the workspace is said to be for; it never appears.
_NAME = "uhrct-serve"


def serve(
    *,
    limits: Limits,
    folder: Path | None = None,
    port: int = 0,
    device: str = "auto",
    ready: Callable[[str], None],
    wording: Callable[[str], str] = str,
) -> None:
    """Serve the page until the process is interrupted. Everything that was uploaded and made is then removed.

    Parameters
    ----------
    limits : of what a client may use
    folder : where scans and results are stored while the server runs; by default that for temporary files
    port, ready : as for `uhrct.viewer.server.serve`
    device : where to compute
    wording : how arguments in the messages of the library are shown

    Raises
    ------
    UhrctError
        If a library is missing, the port is in use, or the folder cannot be used.
    """
    check_libraries()
    home = Path(tempfile.gettempdir()) if folder is None else folder
    with ExitStack() as stack:
        try:
            private = stack.enter_context(Workspace(home / _NAME)).new
        except OSError as error:
            raise UhrctError(f"`folder`: {home} cannot be used ({error.strerror}); give an existing folder") from None
        service = stack.enter_context(closing(Service(Store(private, limits), device, wording)))
        serve_guarded(make_app(service), port=port, ready=ready, methods=(*LOOKING, *CHANGING))
