"""A client of DICOMweb servers: QIDO-RS, WADO-RS and STOW-RS (PS3.18), with bounds on what an answer may hold."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import requests

from uhrct.node.multipart import NotMultipart, body_of, boundary_of, parts_of

#: an answer in JSON
MOST_JSON_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
#: files of one STOW-RS request have about so many bytes
STOW_BYTES = 32 << 20
#: results of a query that are asked for at once
PAGE = 200
#: status of a request that may succeed later, besides 5xx
MAY_PASS = (408, 425, 429)
JSON = "application/dicom+json"
DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class WebError(Exception):
    """A request failed. `refused` tells whether the server was there and refused."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class DicomWeb:
    """One server.

    Parameters
    ----------
    url : base of the services, such as https://pacs/dicom-web
    token : bearer token, or None
    ca : file of the authorities of its certificate; None: those of the system
    timeout_s : without an answer, or between two pieces of it
    """

    def __init__(self, url: str, token: str | None, ca: Path | None, timeout_s: float) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self._session = requests.Session()
        # no proxy and no password from the environment: requests go to the servers of the configuration only
        self._session.trust_env = False
        self._session.verify = True if ca is None else str(ca)
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        self._session.close()

    def series(self, **query: str) -> Iterator[dict[str, Any]]:
        """Series that match a query (QIDO-RS), page by page."""
        first = 0
        while True:
            page = self._json("/series", query | {"limit": str(PAGE), "offset": str(first)})
            yield from page
            first += len(page)
            if len(page) < PAGE:
                return

    def metadata(self, study: str, series: str) -> list[dict[str, Any]]:
        """The headers of the images of a series (WADO-RS)."""
        return self._json(f"/studies/{study}/series/{series}/metadata", {})

    def images(self, study: str, series: str, most_bytes: int, within_s: float) -> Iterator[memoryview]:
        """The DICOM files of a series (WADO-RS). Raises `WebError`."""
        answer = self._ask("GET", f"/studies/{study}/series/{series}", headers={"Accept": DICOM}, stream=True)
        with answer, tempfile.TemporaryFile() as file:
            _save(answer, file, most_bytes, time.monotonic() + within_s)
            try:
                yield from parts_of(file, boundary_of(answer.headers.get("Content-Type", "")))
            except NotMultipart as error:
                raise WebError(str(error)) from None

    def store(self, files: list[Path]) -> None:
        """Store files (STOW-RS), some in each request. Raises `WebError` if one was not stored."""
        for group in _groups(files):
            body, kind = body_of(group)
            answer = self._ask("POST", "/studies", headers={"Content-Type": kind, "Accept": JSON}, data=body)
            if answer.status_code == 202 or failed_in(answer):
                raise WebError("the server did not store all images", refused=True)

    def _json(self, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        answer = self._ask("GET", path, headers={"Accept": JSON}, params=query, stream=True)
        with answer, tempfile.TemporaryFile() as file:
            if answer.status_code == 204:  # nothing found
                return []
            _save(answer, file, MOST_JSON_BYTES, time.monotonic() + 10 * self._timeout_s)
            file.seek(0)
            return parsed_json(file.read())

    def _ask(self, method: str, path: str, **how: Any) -> requests.Response:
        try:
            answer = self._session.request(
                method, self._url + path, timeout=self._timeout_s, allow_redirects=False, **how
            )
        except requests.RequestException as error:
            raise WebError(f"no answer ({type(error).__name__})") from None
        if not 200 <= answer.status_code < 300:
            answer.close()
            refused = answer.status_code in range(400, 500) and answer.status_code not in MAY_PASS
            raise WebError(f"HTTP status {answer.status_code}", refused=refused)
        return answer


def parsed_json(content: bytes) -> list[dict[str, Any]]:
    """A list of data sets in DICOM JSON. Raises `WebError`."""
    import json

    try:
        found = json.loads(content or b"[]")
    except (ValueError, RecursionError):
        raise WebError("the answer is no JSON") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise WebError("the answer is no list of data sets")
    return found


def value_of(data_set: dict[str, Any], tag: str) -> str:
    r"""An element of a data set in DICOM JSON as text, "" if it is missing.

    Example
    -------
    >>> value_of({"00080060": {"vr": "CS", "Value": ["CT"]}}, "00080060")
    'CT'
    """
    element = data_set.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return "\\".join(str(v) for v in values if not isinstance(v, dict)) if isinstance(values, list) else ""


def failed_in(answer: requests.Response) -> bool:
    """Whether an answer of STOW-RS names images that failed (FailedSOPSequence)."""
    try:
        found = answer.json()
    except ValueError:
        return False
    found = found[0] if isinstance(found, list) and found else found
    failed = found.get("00081198") if isinstance(found, dict) else None
    return bool(failed.get("Value")) if isinstance(failed, dict) else False


def _save(answer: requests.Response, file: BinaryIO, most_bytes: int, end: float) -> None:
    count = 0
    try:
        for piece in answer.iter_content(PIECE_BYTES):
            count += len(piece)
            if count > most_bytes:
                raise WebError(f"the answer is larger than {most_bytes / 1e6:.0f} MB")
            if time.monotonic() > end:
                raise WebError("the server is too slow")
            file.write(piece)
    except requests.RequestException as error:
        raise WebError(f"the answer broke off ({type(error).__name__})") from None
    file.flush()


def _groups(files: list[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.stat().st_size
        if size >= STOW_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
