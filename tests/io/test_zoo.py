"""Every animal of the zoo: right in voxels and geometry, or refused in one clear line; never a traceback or a hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zoo
import zoo_lying
import zoo_places
import zoo_refused
from ct_files import PATIENT, make_series
from ct_syntaxes import SYNTAXES, in_syntax

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.io import paths


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("reading hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", zoo.CASES)
def test_odd_series_is_read_right(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    expected = zoo.CASES[name](folder)
    path = expected.path or folder
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        volume = io.read(path, **expected.options)
        infos = io.inspect(path)
    np.testing.assert_array_equal(volume.hu, expected.hu)
    np.testing.assert_allclose(volume.spacing_mm, expected.spacing_mm, atol=0.02 if "rounded" in name else 1e-6)
    np.testing.assert_allclose(volume.origin_mm, expected.origin_mm, atol=1e-6)
    np.testing.assert_allclose(volume.direction, expected.direction, atol=1e-8)
    assert len(volume.meta["dicom"]) == len(volume.hu)
    chosen = next(i for i in infos if not i.problem and str(i.number) == expected.options.get("series", str(i.number)))
    assert chosen.processable.startswith(("yes", "with `untilt"))
    assert chosen.shape is not None
    assert chosen.shape[0] == len(volume.hu)
    for said in [str(note.message) for note in notes] + [repr(infos)]:
        assert PATIENT not in said
        assert "\n" not in said


def assert_one_clear_line(message: str, path: Path, words: tuple[str, ...]) -> None:
    assert message.isprintable(), message
    assert message.startswith(paths.shown(path)), message
    assert any(word in message for word in words), message
    assert PATIENT not in message
    assert "4711" not in message


@pytest.mark.parametrize("name", zoo_refused.CASES)
def test_malformed_series_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    expected = zoo_refused.CASES[name](folder)
    path = expected.path or folder
    with pytest.raises(UhrctError) as caught:
        io.read(path, **expected.options)
    assert_one_clear_line(str(caught.value), path, expected.words)
    try:
        infos = io.inspect(path)
    except UhrctError as error:
        assert_one_clear_line(str(error), path, expected.words)
    else:
        assert all(i.problem.isprintable() and PATIENT not in i.problem for i in infos)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, zoo_refused.Refused, str, float]]:
    """What a process with little memory answered to each header that lies about sizes."""
    top = tmp_path_factory.mktemp("lying")
    for number, syntax in enumerate(SYNTAXES):
        make_series(top / "plain" / syntax, shape=(3, 16, 18), number=number, seed=number, edit=in_syntax(syntax))
    asked = {}
    for number, (name, build) in enumerate(zoo_lying.LYING.items()):
        folder = top / f"{number}"
        folder.mkdir()
        expected = build(folder)
        asked[name] = (expected.path or folder, expected)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("read_limited.py"), *(top / "plain").iterdir()],
        input="".join(json.dumps([str(path), expected.options]) + "\n" for path, expected in asked.values()),
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(asked) + 1, done.stderr[-2000:]
    return {
        name: (path, expected, answer, seconds)
        for (name, (path, expected)), (answer, seconds) in zip(asked.items(), lines[:-1], strict=True)
    }


@pytest.mark.parametrize("name", zoo_lying.LYING)
def test_lying_sizes_cost_no_memory(answers: dict, name: str) -> None:
    path, expected, answer, seconds = answers[name]
    assert answer.startswith("refused: "), answer
    assert_one_clear_line(answer.removeprefix("refused: "), path, expected.words)
    assert "memory" not in answer.lower()  # refused because of what the file says, not because memory ran out
    assert "alloc" not in answer.lower()
    assert seconds < 20


def test_the_zoo_is_large_enough() -> None:
    assert zoo_places.CASES is zoo.CASES  # its cases are among them
    assert len(zoo.CASES) + len(zoo_refused.CASES) + len(zoo_lying.LYING) >= 120
