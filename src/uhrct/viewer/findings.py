"""Read the findings of `uhrct audit --json`, to be listed beside the panes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from uhrct.core.errors import InputRefused
from uhrct.io.paths import shown

#: Colours of the grades, as in the report of `uhrct audit`.
GRADE_COLOURS = {"supported": "#3fa7ff", "sharpened": "#5fe0c0", "inferred": "#ffc845", "doubtful": "#ff3d6e"}
#: A report has twelve findings.
_MOST_FINDINGS = 1000
_MOST_BYTES = 20_000_000


class Finding(BaseModel):
    """A structure that deserves a look. `slice`, `row` and `column` are voxels of the result."""

    kind: Literal["vessels", "airways"]
    grade: Literal["supported", "sharpened", "inferred", "doubtful"]
    slice: int = Field(ge=0)
    row: int = Field(ge=0)
    column: int = Field(ge=0)
    length_mm: float = Field(ge=0, allow_inf_nan=False)

    @property
    def place(self) -> tuple[int, int, int]:
        """The voxel (z, y, x)."""
        return self.slice, self.row, self.column


class _Audit(BaseModel):
    schema_: Literal["uhrct-audit-1"] = Field(alias="schema")
    findings: list[Finding] = Field(max_length=_MOST_FINDINGS)


class _Run(BaseModel):
    audit: _Audit


def read_findings(path: Path, shape: tuple[int, int, int]) -> list[Finding]:
    """The findings in the report of `uhrct audit --json` or `uhrct upscale --audit --json`, worst first.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of the result that was audited.

    Raises
    ------
    InputRefused
        If the file is no such report, or a finding lies outside of the result.
    """
    name = shown(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputRefused(f"{name}: is too large for a report of `uhrct audit --json`")
        text = path.read_bytes()
    except OSError as error:
        raise InputRefused(f"{name}: cannot be read ({error.strerror or error})") from None
    found = _parsed(text)
    if found is None:
        raise InputRefused(f"{name}: is no report of `uhrct audit --json` (schema uhrct-audit-1)")
    for finding in found:
        if any(k >= n for k, n in zip(finding.place, shape, strict=True)):
            raise InputRefused(f"{name}: a finding lies outside of the result; give the report of this result")
    return found


def _parsed(text: bytes) -> list[Finding] | None:
    for kind in (_Audit, _Run):
        try:
            report = kind.model_validate_json(text)
        except ValidationError:
            continue
        return report.audit.findings if isinstance(report, _Run) else report.findings
    return None
