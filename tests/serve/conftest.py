"""A server, and scans as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Client, chest, serving

from uhrct import io


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server for a module; each test removes its jobs by `clean`."""
    with serving(tmp_path_factory.mktemp("served"), most_bytes=50_000_000, most_jobs=4) as found:
        yield found


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test its jobs are gone, and so are their files."""
    yield
    if "client" in request.fixturenames:
        found: Client = request.getfixturevalue("client")
        for job in found.ask("GET", "jobs").said["jobs"]:
            assert found.ask("DELETE", f"jobs/{job['name']}").status == 204
        assert found.stored() == []


@pytest.fixture(scope="session")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scans") / "DOE_JANE.nii.gz"
    io.write(chest(), file)
    return file
