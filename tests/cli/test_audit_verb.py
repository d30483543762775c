"""`uhrct audit` and `uhrct upscale --audit`."""

import json
from pathlib import Path

import numpy as np
from run_cli import REFUSED, Uhrct, refused

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.io.derivation import Derivation


def body(slices: int = 2) -> Volume:
    y, x = np.mgrid[:64, :64]
    r = np.hypot(y - 32, x - 32)
    hu = np.where(r < 30, 40, -1000)
    hu = np.where(r < 20, -850, hu)
    hu[30:33, 20:44] = 0
    return Volume(np.repeat(hu[None], slices, 0).astype(np.int16), (2.5, 1.4, 1.4))


def test_both_verbs_give_the_same_grades(uhrct: Uhrct, tmp_path: Path) -> None:
    low, high = tmp_path / "low.nii.gz", tmp_path / "high.nii.gz"
    io.write(body(), low)
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    assert uhrct("upscale", low, high, "--audit", page, "--json", report).code == 0
    first = json.loads(report.read_text())["audit"]
    assert page.read_text().startswith("<!doctype html>")
    page2, report2 = tmp_path / "page2.html", tmp_path / "report2.json"
    result = uhrct("audit", low, high, "--html", page2, "--json", report2)
    assert result.code == 0
    assert "Measured again" in result.err
    second = json.loads(report2.read_text())
    assert second["schema"] == "uhrct-audit-1"
    assert page2.exists()
    for kind in ("vessels", "airways"):
        assert first[kind] == second[kind]
    assert sum(first["vessels"]["total_mm"].values()) > 20


def test_grades_are_labels_on_the_grid_of_the_result(uhrct: Uhrct, tmp_path: Path) -> None:
    low, high, grades = tmp_path / "low.nii.gz", tmp_path / "high.nii.gz", tmp_path / "grades.nii.gz"
    io.write(body(), low)
    assert uhrct("upscale", low, high, "-q").code == 0
    assert uhrct("audit", low, high, "--grades", grades, "--json", tmp_path / "a.json", "-q").code == 0
    labels, result = io.read(grades), io.read(high)
    assert np.allclose(labels.affine, result.affine)
    assert set(np.unique(labels.hu)) <= {0, 1, 2, 3, 4}
    lengths = json.loads((tmp_path / "a.json").read_text())
    for number, name in enumerate(("supported", "sharpened", "inferred", "doubtful"), 1):
        graded = any(lengths[kind]["total_mm"][name] for kind in ("vessels", "airways"))
        assert graded or not (labels.hu == number).any()
    assert (labels.hu == 1).any()
    # the vessel of this body runs along rows 30 to 32 of the scan
    rows = np.argwhere(labels.hu == 1)[:, 1]
    assert ((rows >= 58) & (rows <= 68)).any()
    refused(uhrct("audit", low, high, "--grades", tmp_path / "grades.dcm", "-q"), "--grades", "not as DICOM")


def test_what_does_not_match_is_refused_and_nothing_is_written(uhrct: Uhrct, tmp_path: Path) -> None:
    low, high, page = tmp_path / "low.nii.gz", tmp_path / "high.nii.gz", tmp_path / "page.html"
    io.write(body(), low)
    io.write(body(3), high)
    refused(uhrct("audit", low, high, "--html", page, "-q"), "low.nii.gz", "must be a multiple", code=REFUSED)
    refused(uhrct("audit", low, low, "--html", page, "-q"), "same number of voxels", code=REFUSED)
    assert not page.exists()


def test_an_audit_needs_a_scale(uhrct: Uhrct, tmp_path: Path) -> None:
    low, high = tmp_path / "low.nii.gz", tmp_path / "high.nii.gz"
    io.write(body(), low)
    result = uhrct("upscale", low, high, "--spacing", "0.6", "--audit", tmp_path / "a.html", "-q")
    assert result.code == REFUSED
    assert "use a scale" in result.err
    assert not high.exists()


def test_the_result_that_is_audited_is_never_replaced(uhrct: Uhrct, tmp_path: Path) -> None:
    low, high = tmp_path / "low.nii.gz", tmp_path / "high.nii.gz"
    io.write(body(), low)
    io.write(body(), high)
    before = high.read_bytes()
    result = uhrct("audit", low, high, "--html", high, "--overwrite", "-q")
    assert result.code != 0
    assert high.read_bytes() == before


def test_the_scan_may_be_one_of_several_series(uhrct: Uhrct, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("first", "second"):
        made = Derivation(name, key=name)
        with io.open_writer(tmp_path / "in" / name, body().grid, dtype=np.int16, derivation=made) as writer:
            writer.write(body().hu)
    low, high = tmp_path / "in", tmp_path / "high.nii.gz"
    number = io.inspect(low)[0].number
    assert uhrct("upscale", low, high, "--series", number, "-q").code == 0
    refused(uhrct("audit", low, high, "-q"), "choose one by --series", code=REFUSED)
    assert uhrct("audit", low, high, "--series", number, "--draws", 0, "-q").code == 0
