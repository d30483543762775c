"""What every test of the command line needs: a result, and what may be expected of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ct_files import PATIENT

from uhrct.core.volume import Volume


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Uhrct = Callable[..., Result]


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too; folders as such."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


#: exit codes, as docs/report.md promises them
INTERNAL, USAGE, REFUSED, NOTHING = 1, 2, 3, 4


def refused(result: Result, *words: str, code: int = USAGE) -> None:
    """One line on stderr that says `words`, the exit code that says what is wrong, no traceback, no patient."""
    assert result.code == code, result
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("uhrct: ")
    assert "Traceback" not in result.err
    assert PATIENT not in result.err
    assert result.out == ""
    for word in words:
        assert word in lines[0], result.err


def done(result: Result) -> Result:
    assert result.code == 0, result
    return result


def same_place(fine: Volume, coarse: Volume) -> None:
    assert np.allclose(fine.grid.corner_mm, coarse.grid.corner_mm, atol=1e-6)
    assert np.allclose(fine.grid.extent_mm, coarse.grid.extent_mm, atol=1e-6)
    assert np.allclose(fine.direction, coarse.direction, atol=1e-6)
