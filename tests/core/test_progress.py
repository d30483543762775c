"""Progress goes to stderr, as lines where nobody watches a bar, and nowhere when quiet."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterator

import pytest

from uhrct.core import progress
from uhrct.core.progress import Progress, track


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
    # looks at 4, 8, 12 ... s; a line whenever 10 s have passed: 3 of 7 in 12 s leave 4 to do in 16 s
    assert err.splitlines() == ["slices: 3 of 7, 16 s left", "slices: 6 of 7, 4 s left", "slices: done in 32.0 s"]


@pytest.mark.usefixtures("clock")
def test_without_a_total_no_promise_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    list(track(iter(range(3)), "slices"))
    assert capsys.readouterr().err.splitlines() == ["slices: 3", "slices: done in 16.0 s"]
    list(track(iter(range(3)), "slices", total=3))
    assert "3 of 3" in capsys.readouterr().err


@pytest.mark.parametrize("total", [None, 3])
def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], total: int | None) -> None:
    assert list(track(range(3), "slices", quiet=True, total=total)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("clock")
def test_amounts_have_a_unit_and_may_be_fractions(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("upscale", 2, unit="slices") as progress:
        for _ in range(10):
            progress.advance(0.2)
    lines = capsys.readouterr().err.splitlines()
    # 12, 24 and 36 s: 0.6, 1.2 and 1.8 slices
    assert lines == [
        "upscale: 0 of 2 slices, 28 s left",
        "upscale: 1 of 2 slices, 16 s left",
        "upscale: 1 of 2 slices, 4 s left",
        "upscale: done in 44.0 s",
    ]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("total", "line"), [(120, "about 8 minutes on this machine (8 samples of 120 slices)"), (30, None)]
)
def test_only_long_work_is_announced_and_only_once(
    capsys: pytest.CaptureFixture[str], total: int, line: str | None
) -> None:
    """A slice in 4 s: 120 take 8 minutes, 30 take 2 minutes."""
    with Progress("upscale", total, announce=f"8 samples of {total} slices") as progress:
        progress.advance()
        assert capsys.readouterr().err == ""  # the first pass is no fair measure
        progress.advance()
        said = capsys.readouterr().err.splitlines()
        for _ in range(total - 2):
            progress.advance()
    assert said == ([] if line is None else [line])
    assert "about" not in capsys.readouterr().err
    with Progress("upscale", 1e6, announce="very much", quiet=True) as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


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
