"""`uhrct serve` as a process: start, end, and what a killed one leaves behind. The rest is tested in tests/serve."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_cli import Uhrct, refused


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and its address."""
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "uhrct", "serve", "--folder", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()  # type: ignore[union-attr]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", address)
        yield process, address
    finally:
        process.kill()
        process.communicate()


def upload(address: str) -> None:
    """A scan of three bytes."""
    origin = re.match(r"http://[^/]+", address)[0]  # type: ignore[index]
    fields = {"Origin": origin, "X-Uhrct": "1"}

    def post(path: str, data: bytes) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, fields), timeout=60) as answer:
            return answer.read()

    name = re.search(r'"name":"(\w+)"', post("jobs", b"").decode())[1]  # type: ignore[index]
    post(f"jobs/{name}/files?suffix=.dcm", b"abc")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_ends_without_leaving_anything(tmp_path: Path, how: signal.Signals, code: int) -> None:
    with started(tmp_path) as (process, address):
        upload(address)
        assert len(list(tmp_path.rglob("*.dcm"))) == 1
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
    assert err == "Open this address in a browser on this machine. Ctrl-C ends.\n"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with started(tmp_path) as (process, address):
        upload(address)
        process.kill()
        process.wait(60)
    assert len(list(tmp_path.rglob("*.dcm"))) == 1
    with started(tmp_path):
        assert list(tmp_path.rglob("*.dcm")) == []


def test_wrong_options_are_one_line(uhrct: Uhrct, tmp_path: Path) -> None:
    refused(uhrct("serve", "--folder", tmp_path / "none"), "--folder", "give an existing folder")
    refused(uhrct("serve", "--port", 99999), "--port")
    refused(uhrct("serve", "--max-gb", 0), "--max-gb")
    refused(uhrct("serve", "--max-scans", 0), "--max-scans")
