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
            *("--structure", tmp_path / "v", "--spread", tmp_path / "sd.dcm", "--transfer-syntax", "jpegls"),
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
    assert ds.SeriesDescription == "CHEST 3 RESEARCH structure map"


def test_private_elements_of_a_degraded_series(uhrct: Uhrct, tmp_path: Path) -> None:
    def edit(k, ds):
        ds.add_new(0x00090010, "LO", "ACME PRIVATE")
        ds.add_new(0x00091001, "LO", "of interest")

    make_series(tmp_path / "in", shape=(2, 8, 8), edit=edit)
    for name, options in (("a", []), ("b", ["--keep-private"])):
        done(uhrct("degrade", tmp_path / "in", tmp_path / name, *options))
        assert (0x00091001 in dcmread(tmp_path / name / "00001.dcm")) is bool(options)


def named(folder: Path, sources: Path) -> list[list[int]]:
    """The source slices that each slice of `folder` names, as numbers in ascending z."""
    numbers = {h.SOPInstanceUID: k for k, h in enumerate(io.read(sources).meta["dicom"])}
    files = [dcmread(file) for file in sorted(folder.iterdir())]
    return [[numbers[r.ReferencedSOPInstanceUID] for r in ds.SourceImageSequence] for ds in files]


def test_a_degraded_series_tells_its_own_thickness_and_its_sources(uhrct: Uhrct, tmp_path: Path) -> None:
    def thin(k, ds):
        ds.SeriesDescription, ds.SliceThickness, ds.SpacingBetweenSlices = "CHEST 1MM", "1", "1"
        ds.ImagePositionPatient = ["0", "0", str(k)]

    make_series(tmp_path / "in", shape=(15, 16, 16), edit=thin)
    done(uhrct("degrade", tmp_path / "in", tmp_path / "out", "--scale", "5x1x1"))
    assert named(tmp_path / "out", tmp_path / "in") == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    for file in (tmp_path / "out").iterdir():
        ds = dcmread(file)
        assert ds.SeriesDescription == "RESEARCH degraded 5x1x1, 5 mm slices, from: CHEST 1MM"
        assert (ds.SliceThickness, ds.SpacingBetweenSlices) == (5, 5)
        assert ds.SeriesDate == ds.ContentDate == ds.InstanceCreationDate != ""
    thicker = ("--scale", "5x1x1", "--slice-thickness-mm", "9")  # averages over two slices of each neighbour
    done(uhrct("degrade", tmp_path / "in", tmp_path / "thicker", *thicker))
    assert named(tmp_path / "thicker", tmp_path / "in") == [list(range(7)), list(range(3, 12)), list(range(8, 15))]
    assert dcmread(tmp_path / "thicker" / "00001.dcm").SliceThickness == 9
    done(uhrct("degrade", tmp_path / "in", tmp_path / "x2"))
    assert named(tmp_path / "x2", tmp_path / "in") == [[k] for k in range(15)]
    assert dcmread(tmp_path / "x2" / "00001.dcm").SeriesDescription == "CHEST 1MM RESEARCH degraded x2"


def test_slices_of_a_through_plane_model_name_what_the_network_saw(uhrct: Uhrct, tmp_path: Path) -> None:
    make_series(tmp_path / "in", shape=(6, 16, 16))
    done(uhrct("upscale", tmp_path / "in", tmp_path / "out", "--scale", "5x1x1"))
    seen = [[j for j in range(6) if abs(j - k) <= 2] for k in range(6)]
    assert named(tmp_path / "out", tmp_path / "in") == [slices for slices in seen for _ in range(5)]
    ds = dcmread(tmp_path / "out" / "00001.dcm")
    assert ds.SeriesDescription == "RESEARCH 5x1x1, 0.5 mm slices, from: CHEST 3"
    # 0.7 mm slices that are interpolated between those of the model need nothing more than the model saw, or a little
    done(uhrct("upscale", tmp_path / "in", tmp_path / "mm", "--spacing", "0.7,0.8,0.7", "--weights", "5x1x1"))
    for k, slices in enumerate(named(tmp_path / "mm", tmp_path / "in")):
        centre = (k + 0.5) * 0.7 / 2.5 - 0.5
        assert set(seen[round(min(max(centre, 0), 5))]) <= set(slices)
        assert slices == list(range(slices[0], slices[-1] + 1))
        assert max(abs(j - centre) for j in slices) < 3.5
