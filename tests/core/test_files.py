"""Files appear complete or not at all."""

from pathlib import Path

import pytest

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic, write_atomic


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "old")

    def interrupted() -> None:
        with atomic(tmp_path / "a.txt") as folder:
            (folder / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").write_text("keep")

    def replaced() -> None:
        with atomic(tmp_path / "out") as folder:
            (folder / "out").mkdir()

    with pytest.raises(UhrctError, match="cannot be written"):
        replaced()
    assert (tmp_path / "out" / "other").read_text() == "keep"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match="No such file"):
        write_atomic(tmp_path / "missing" / "a.txt", "text")
