"""Progress goes to stderr, as lines where nobody watches a bar, and nowhere when quiet."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator

import pytest

from uhrct.core import progress
from uhrct.core.progress import track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is 4 s later than the last."""
    ticks = itertools.count(0, 4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(ticks)))


@pytest.mark.usefixtures("clock")
def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(7), "slices")) == list(range(7))
    out, err = capsys.readouterr()
    assert out == ""
    # looks at 4, 8, 12 ... s; a line whenever 10 s have passed: 2 of 7 in 12 s leave 5 to do in 30 s
    assert err.splitlines() == ["slices: 2/7, 30 s left", "slices: 5/7, 10 s left", "slices: done in 32.0 s"]


@pytest.mark.usefixtures("clock")
def test_without_a_total_no_promise_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    list(track(iter(range(3)), "slices"))
    assert capsys.readouterr().err.splitlines() == ["slices: 2", "slices: done in 16.0 s"]
    list(track(iter(range(3)), "slices", total=3))
    assert "2/3" in capsys.readouterr().err


@pytest.mark.parametrize("total", [None, 3])
def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], total: int | None) -> None:
    assert list(track(range(3), "slices", quiet=True, total=total)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_work_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("slice lost")

    with pytest.raises(ValueError, match="slice lost"):
        list(track(failing(), "slices"))
    assert "done" not in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    assert list(track(range(3), "slices")) == [0, 1, 2]
    assert "slices" in screen.getvalue()
    assert "done in" not in screen.getvalue()
    assert capsys.readouterr().out == ""
