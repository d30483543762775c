"""The command line in this process, small weights and a small scan."""

import logging
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from run_cli import Result, Uhrct

from uhrct.cli import main as cli
from uhrct.core.volume import Volume


@pytest.fixture
def uhrct(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uhrct:
    """uhrct("upscale", a, b, ...) in this process: importing torch anew for every test would take minutes."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["uhrct", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        before = signal.getsignal(signal.SIGTERM)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                cli.main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        finally:
            signal.signal(signal.SIGTERM, before)
            logging.disable(logging.NOTSET)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def small_scans_are_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scans of these tests are a few pixels wide, far outside of the training; they shall not be warned of."""
    monkeypatch.setattr("uhrct.upscaling.plan.scan_warnings", lambda *_: [])


@pytest.fixture
def weights(tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    """Three slices with odd sides, pixels that are not square, somewhere in the patient."""
    hu = np.stack([np.roll(slice_hu, k, 1)[:45, :37] for k in range(3)])
    return Volume(hu, (2.5, 0.9, 0.8), origin_mm=(-100.0, 20.5, -7.0))
