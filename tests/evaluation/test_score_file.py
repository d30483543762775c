"""Score files: rows come back, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from uhrct.core.errors import UhrctError
from uhrct.evaluation.score_file import read_scores, write_scores


def test_rows_come_back_with_seven_digits(tmp_path: Path) -> None:
    rows = [{"case": c, "method": m, "slice": z, "psnr_wide": 30 + z / 7} for c in "ab" for z in (0, 3) for m in "xy"]
    rows[-1]["consistency_hu"] = 0.25  # a row with another column
    write_scores(tmp_path / "s.jsonl", {"slices": 2}, rows)
    meta, found = read_scores(tmp_path / "s.jsonl")
    assert meta == {"slices": 2}
    key = lambda r: (r["case"], r["method"], r["slice"])  # noqa: E731
    for a, b in zip(sorted(rows, key=key), sorted(found, key=key), strict=True):
        assert a == {**b, "psnr_wide": pytest.approx(b["psnr_wide"], rel=1e-6)}


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match=r"none\.jsonl: cannot be read"):
        read_scores(tmp_path / "none.jsonl")
    for text in ("", "{}\n", "no json\n"):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(UhrctError, match="is not a score file"):
            read_scores(tmp_path / "bad.jsonl")
