"""`uhrct detect` on a small chest with one nodule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_cli import REFUSED, Uhrct, done, refused

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.io.derivation import Derivation


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    z, y, x = np.mgrid[:24, :100, :100]
    hu = np.where(np.hypot(y - 50, x - 50) < 45, 40, -1000)
    hu[(np.hypot(y - 50, x - 25) < 16) | (np.hypot(y - 50, x - 75) < 16)] = -850
    hu[np.sqrt((z - 12) ** 2 + (y - 48) ** 2 + (x - 73) ** 2) < 2.4] = 30
    path = tmp_path_factory.mktemp("chest") / "ct.nii.gz"
    io.write(Volume(hu.astype(np.int16), (2.0, 2.0, 2.0), origin_mm=(-90.0, -80.0, 7.0)), path)
    return path


def test_the_nodule_is_in_table_json_and_csv(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    result = uhrct(
        "detect", chest, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv", "--least-score", "0.4", "-q"
    )
    done(result)
    report = json.loads((tmp_path / "a.json").read_text())
    first = report["nodules"][0]
    assert np.allclose(first["centre_mm"], (-90 + 73 * 2, -80 + 48 * 2, 7 + 12 * 2), atol=2)
    assert 6 <= first["diameter_mm"] <= 12
    assert f"{first['centre_mm'][0]:.1f}" in result.out
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0].startswith("seriesuid,coordX")
    assert len(lines) == 1 + len(report["nodules"])


def test_a_dicom_scan_gets_a_report(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    volume = io.read(chest)
    with io.open_writer(tmp_path / "in", volume.grid, dtype=np.int16, derivation=Derivation("t", key="t")) as writer:
        writer.write(volume.hu)
    done(uhrct("detect", tmp_path / "in", "--sr", tmp_path / "a.dcm", "--least-score", "0.4"))
    assert (tmp_path / "a.dcm").is_file()
    nothing = done(uhrct("detect", tmp_path / "in", "--sr", tmp_path / "b.dcm", "--least-score", "1"))
    assert "not written, because there are no findings" in nothing.err
    assert not (tmp_path / "b.dcm").exists()


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        (np.full((12, 30, 30), 40, np.int16), "no lungs were found"),
        (np.full((2, 30, 30), 40, np.int16), "has 2 slices"),
    ],
)
def test_bad_scans_are_one_line(hu: np.ndarray, words: str, tmp_path: Path, uhrct: Uhrct) -> None:
    io.write(Volume(hu, (2.0, 2.0, 2.0)), tmp_path / "a.nii.gz")
    result = uhrct("detect", tmp_path / "a.nii.gz", "--csv", tmp_path / "a.csv", "-q")
    assert result.code == REFUSED
    assert words in result.err.splitlines()[-1]
    assert not (tmp_path / "a.csv").exists()


def test_a_report_needs_dicom(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    refused(uhrct("detect", chest, "--sr", tmp_path / "a.dcm"), "refers to DICOM images")
