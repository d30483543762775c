"""DICOM in, DICOM out by the command line: one study of an image and its maps, in the dress that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from pydicom import dcmread
from run_cli import Uhrct, done, refused

from uhrct import io


@pytest.fixture
def series(tmp_path: Path) -> Path:
    make_series(tmp_path / "in", shape=(3, 45, 37))
    return tmp_path / "in"


@pytest.mark.parametrize("anonymous", [False, True])
def test_image_and_maps_lie_in_one_study(
    uhrct: Uhrct, weights: Path, series: Path, tmp_path: Path, anonymous: bool
) -> None:
    pytest.importorskip("highdicom")
    done(
        uhrct(
            *("upscale", series, tmp_path / "out", "--weights", weights, "--steps", 2, "--samples", 2),
            *("--structure", tmp_path / "v", "--uncertainty", tmp_path / "sd.dcm", "--transfer-syntax", "jpegls"),
            *(["--anonymize"] if anonymous else []),
        )
    )
    image = dcmread(tmp_path / "out" / "00001.dcm")
    v, sd = dcmread(tmp_path / "v" / "00001.dcm"), dcmread(tmp_path / "sd.dcm")
    source = io.read(series).meta["dicom"][0]
    assert image.file_meta.TransferSyntaxUID.name.startswith("JPEG-LS Lossless")
    for key in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"):
        assert image[key].value == v[key].value == sd[key].value
        assert (image[key].value == source[key].value) is not anonymous
    assert len({ds.SeriesInstanceUID for ds in (image, v, sd, source)}) == 4
    values = np.frombuffer(v.FloatPixelData, "<f4")
    assert 0 <= values.min() < values.max() <= 1
    assert (v.NumberOfFrames, v.Rows, v.Columns) == (3, 90, 74)
    if anonymous:
        for file in (tmp_path / "sd.dcm", *(tmp_path / "out").iterdir()):
            assert PATIENT.encode() not in file.read_bytes()


def test_the_key_of_anonymous_outputs(uhrct: Uhrct, series: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a long secret of one site\n")
    keys = {"a": f"@{tmp_path / 'key'}", "b": "a long secret of one site", "c": "another secret of a site", "d": None}
    studies = {}
    for name, key in keys.items():
        options = [] if key is None else ["--anonymize-key", key]
        done(uhrct("degrade", series, tmp_path / name, "--anonymize", *options))
        studies[name] = dcmread(tmp_path / name / "00001.dcm").StudyInstanceUID
    assert studies["a"] == studies["b"]
    assert len(set(studies.values())) == 3
    for options, words in (
        (["--anonymize", "--anonymize-key", "short"], "--anonymize-key is short enough"),
        (["--anonymize", "--anonymize-key", "@missing"], "--anonymize-key: missing cannot be read"),
        (["--anonymize-key", keys["b"]], "add --anonymize"),
    ):
        refused(uhrct("degrade", series, tmp_path / "no", *options), words)
    assert not (tmp_path / "no").exists()


def test_structure_verb_writes_a_parametric_map(uhrct: Uhrct, series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    done(uhrct("structure", series, tmp_path / "v.dcm"))
    ds = dcmread(tmp_path / "v.dcm")
    assert ds.SOPClassUID.name == "Parametric Map Storage"
    assert ds.SeriesDescription == "CHEST 3 structure map"


def test_private_elements_of_a_degraded_series(uhrct: Uhrct, tmp_path: Path) -> None:
    def edit(k, ds):
        ds.add_new(0x00090010, "LO", "ACME PRIVATE")
        ds.add_new(0x00091001, "LO", "of interest")

    make_series(tmp_path / "in", shape=(2, 8, 8), edit=edit)
    for name, options in (("a", []), ("b", ["--keep-private"])):
        done(uhrct("degrade", tmp_path / "in", tmp_path / name, *options))
        assert (0x00091001 in dcmread(tmp_path / name / "00001.dcm")) is bool(options)
