"""`uhrct detect` on a small chest with one nodule."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
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
    whole = tmp_path / "1.3.6.1.nii.gz"
    whole.write_bytes(chest.read_bytes())
    done(uhrct("detect", whole, "--csv", tmp_path / "b.csv", "-q"))
    assert (tmp_path / "b.csv").read_text().splitlines()[1].startswith("1.3.6.1,")


def test_the_order_of_the_axes_does_not_matter(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    volume = io.read(chest)
    sagittal = Volume(
        np.ascontiguousarray(volume.hu.transpose(2, 0, 1)),
        (2.0, 2.0, 2.0),
        origin_mm=volume.origin_mm,
        direction=volume.direction[:, [2, 0, 1]],
    )
    io.write(sagittal, tmp_path / "sagittal.nii.gz")
    a, b = (
        json.loads(done(uhrct("detect", path, "--json", "-", "--most", "1", "-q")).out)["nodules"][0]["centre_mm"]
        for path in (chest, tmp_path / "sagittal.nii.gz")
    )
    assert np.allclose(a, b, atol=0.5)


def test_a_dicom_scan_gets_a_report(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    volume = io.read(chest)
    with io.open_writer(tmp_path / "in", volume.grid, dtype=np.int16, derivation=Derivation("t", key="t")) as writer:
        writer.write(volume.hu)
    done(uhrct("detect", tmp_path / "in", "--sr", tmp_path / "a.dcm", "--least-score", "0.4"))
    report = pydicom.dcmread(tmp_path / "a.dcm")
    assert "Certainty" not in str(report)  # the score of the filter is no probability
    done(uhrct("detect", tmp_path / "in", "--csv", tmp_path / "named.csv", "--most", "1"))
    done(uhrct("detect", tmp_path / "in", "--csv", tmp_path / "anonymous.csv", "--most", "1", "--anonymize"))
    names = [(tmp_path / f"{n}.csv").read_text().splitlines()[1].split(",")[0] for n in ("named", "anonymous")]
    series = next((tmp_path / "in").glob("*.dcm"))
    assert names == [pydicom.dcmread(series).SeriesInstanceUID, "anonymous"]
    nothing = done(uhrct("detect", tmp_path / "in", "--sr", tmp_path / "b.dcm", "--least-score", "1"))
    assert "not written, because there are no findings" in nothing.err
    assert not (tmp_path / "b.dcm").exists()
    # an older report must not look like that of this run
    done(uhrct("detect", tmp_path / "in", "--sr", tmp_path / "c.dcm", "-q"))
    done(uhrct("detect", tmp_path / "in", "--sr", tmp_path / "c.dcm", "--least-score", "1", "--overwrite", "-q"))
    assert not (tmp_path / "c.dcm").exists()


def block(n: int) -> np.ndarray:
    """Tissue in air, without lungs."""
    return np.pad(np.full((n, 10, 10), 40, np.int16), ((0, 0), (10, 10), (10, 10)), constant_values=-1000)


@pytest.mark.parametrize(
    ("hu", "words"),
    [
        (block(12), "no lungs were found"),
        (block(2), "has 2 slices"),
        (np.full((12, 30, 30), 40, np.int16), "no chest CT in HU"),
        (block(12) + 1024, "no chest CT in HU"),
    ],
)
def test_bad_scans_are_one_line(hu: np.ndarray, words: str, tmp_path: Path, uhrct: Uhrct) -> None:
    io.write(Volume(hu, (2.0, 2.0, 2.0)), tmp_path / "a.nii.gz")
    refused(uhrct("detect", tmp_path / "a.nii.gz", "--csv", tmp_path / "a.csv", "-q"), words, code=REFUSED)
    assert not (tmp_path / "a.csv").exists()


def test_a_wrong_device_is_refused_without_weights_too(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    refused(uhrct("detect", chest, "--device", "foo"), "foo")
    refused(uhrct("segment", chest, tmp_path / "a.nrrd", "--task", "lungs", "--device", "foo"), "foo")


def test_a_name_with_a_comma_is_quoted(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    named = tmp_path / "a,b.nii.gz"
    named.write_bytes(chest.read_bytes())
    done(uhrct("detect", named, "--csv", tmp_path / "a.csv", "-q"))
    with (tmp_path / "a.csv").open() as file:
        assert next(csv.DictReader(file))["seriesuid"] == "a,b"


def test_a_report_needs_dicom(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    refused(uhrct("detect", chest, "--sr", tmp_path / "a.dcm"), "refers to DICOM images")


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["seriesuid,coordX,coordY,coordZ,diameter_mm", *rows]) + "\n")
    return path


def test_a_folder_with_annotations_gets_its_froc(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    """One scan shows a nodule where the table says so; the other is the same scan, in which the table has none."""
    folder = tmp_path / "scans" / "subset0"
    folder.mkdir(parents=True)
    for name in ("1.2.3", "1.2.4"):
        io.write(io.read(chest), folder / f"{name}.mhd")
    io.write(Volume(block(12), (1.0, 1.0, 1.0)), folder / "1.2.5.mhd")
    known = table(tmp_path / "annotations.csv", "1.2.3,56,16,31,9.6", "9.9.9,0,0,0,5")
    wrong = table(tmp_path / "annotations_excluded.csv", "1.2.4,56,16,31,-1")
    command = ["detect", tmp_path / "scans", "--annotations", known, "--weights", "none", "-q"]
    for used in (known, wrong):
        both = ("--excluded", wrong, "--csv", used, "--overwrite")
        refused(uhrct(*command, *both), "output equals input")
    first = json.loads(done(uhrct(*command, "--json", "-")).out)
    assert first["froc"]["scans"] == 3
    assert first["froc"]["known_nodules"] == 1
    assert first["froc"]["sensitivity"]["8"] == 1
    assert any("1.2.5" in line and "no lungs" in line for line in first["warnings"])
    assert any("not in" in line for line in first["warnings"])
    # the same place in the second scan is a false positive unless it is excluded
    second = json.loads(done(uhrct(*command, "--excluded", wrong, "--json", "-")).out)
    assert second["froc"]["score"] >= first["froc"]["score"]
    done(uhrct(*command, "--csv", tmp_path / "all.csv"))
    assert {line.split(",")[0] for line in (tmp_path / "all.csv").read_text().splitlines()[1:]} == {"1.2.3", "1.2.4"}


def test_annotations_that_do_not_fit_give_one_line(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    other = table(tmp_path / "annotations.csv", "9.9.9,0,0,0,5")
    refused(uhrct("detect", chest.parent, "--annotations", other, "--weights", "none", "-q"), "none of its scans")
    refused(uhrct("detect", chest, "--excluded", other, "--weights", "none", "-q"), "--annotations")
    refused(
        uhrct("detect", chest, "--annotations", other, "--sr", tmp_path / "a.dcm", "--weights", "none", "-q"),
        "one scan",
    )
    for option in (["--series", "3"], ["--input-spacing", "1,1,1"], ["--untilt"], ["--anonymize"]):
        result = uhrct("detect", chest.parent, "--annotations", other, *option, "-q")
        refused(result, f"{option[0]}: has no meaning with --annotations")


def test_two_scans_of_one_name_give_one_line(chest: Path, tmp_path: Path, uhrct: Uhrct) -> None:
    for folder in ("p1", "p2"):
        (tmp_path / "scans" / folder).mkdir(parents=True)
        (tmp_path / "scans" / folder / "ct.nii.gz").write_bytes(chest.read_bytes())
    known = table(tmp_path / "annotations.csv", "ct,56,16,31,9.6")
    refused(uhrct("detect", tmp_path / "scans", "--annotations", known, "-q"), "two scans are called 'ct'")
