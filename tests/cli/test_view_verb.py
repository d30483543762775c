"""`uhrct view`: files, messages and exit codes. What the page does is tested in tests/viewer."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from run_cli import REFUSED, Uhrct, done, refused

from uhrct import io
from uhrct.core.volume import Volume


@pytest.fixture
def pair(tmp_path: Path, scan: Volume) -> tuple[Path, Path]:
    low, high = tmp_path / "doe-john.nii.gz", tmp_path / "doe-john-x2.nii.gz"
    io.write(scan, low)
    io.write(scan.on_grid(scan.refined_grid((1, 2, 2)), scan.hu.repeat(2, 1).repeat(2, 2)), high)
    return low, high


def test_one_file_holds_neither_names_nor_paths(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = done(uhrct("view", *pair, "--truth", pair[1], "--html", page, "--box", "0:2,10:60,8:70"))
    assert "box 0:2,10:60,8:70" in result.err
    text = page.read_text()
    assert "not a medical device" in text
    assert "BSD 2-Clause License" in text
    assert "doe-john" not in text
    assert str(tmp_path) not in text
    view = json.loads(re.search(r'id="view">(.*?)</script>', text)[1])  # type: ignore[index]
    assert [p["label"] for p in view["panes"]] == ["scan", "result", "truth"]


def test_the_patient_of_a_dicom_series_is_not_on_the_page(uhrct: Uhrct, tmp_path: Path) -> None:
    make_series(tmp_path / "ct")
    done(uhrct("view", tmp_path / "ct", "--html", tmp_path / "page.html"))
    assert PATIENT not in (tmp_path / "page.html").read_text()


def test_a_page_is_replaced_only_when_asked(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    refused(uhrct("view", *pair, "--html", page), "page.html", "--overwrite")
    assert page.read_text() == "mine"
    done(uhrct("view", *pair, "--html", page, "--overwrite"))


def test_wrong_options_are_one_line(uhrct: Uhrct, pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    low, high = pair
    refused(uhrct("view", *pair, "--html", page, "--box", "1:2"), "--box", "z0:z1,y0:y1,x0:x1")
    refused(uhrct("view", *pair, "--html", page, "--box", "0:99,0:9,0:9"), "--box")
    refused(uhrct("view", *pair, "--html", page, "--port", 80), "--port")
    refused(uhrct("view", *pair, "--html", low), "output equals input")
    refused(uhrct("view", low, high, high, high, high, "--html", page), "at most 4")
    refused(uhrct("view", tmp_path / "none.nii", "--html", page), "no such file", code=REFUSED)
    refused(uhrct("view", low, high, "--overlay", low, "--html", page), "a scan, no map", code=REFUSED)
    refused(uhrct("view", low, high, "--mesh", low, "--html", page), "--mesh")
    refused(uhrct("view", low, high, "--audit", low, "--html", page), "no report of", code=REFUSED)
    assert not page.exists()


def test_a_pair_that_does_not_belong_together(
    uhrct: Uhrct, pair: tuple[Path, Path], scan: Volume, tmp_path: Path
) -> None:
    far = tmp_path / "far.nii.gz"
    io.write(Volume(scan.hu, scan.spacing_mm, (9e3, 0.0, 0.0)), far)
    refused(uhrct("view", far, pair[1], "--html", tmp_path / "p.html"), "no place in common", code=REFUSED)


def test_a_volume_without_spacing_asks_for_it(uhrct: Uhrct, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((2, 9, 9), np.int16))
    refused(uhrct("view", tmp_path / "a.npz", "--html", tmp_path / "p.html"), "--input-spacing", code=REFUSED)
    done(uhrct("view", tmp_path / "a.npz", "--input-spacing", "2,1,1", "--html", tmp_path / "p.html"))


def test_serving_prints_the_address_and_ends_with_ctrl_c(pair: tuple[Path, Path]) -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "uhrct", "view", *map(str, pair)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        address = process.stdout.readline().strip()  # type: ignore[union-attr]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", address)
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"not a medical device" in answer.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert err == "Open this address in a browser on this machine. Ctrl-C ends.\n"
