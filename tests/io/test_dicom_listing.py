"""`inspect` of a whole study: every series is there, and says whether and how it can be processed."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series, refusal
from ct_syntaxes import make_enhanced
from pydicom import DataElement, Dataset
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.uid import generate_uid
from zoo_places import as_localizer, place, secondary_capture

from uhrct import io
from uhrct.cli.main import app
from uhrct.core.errors import UhrctError


def study(folder: Path) -> np.ndarray:
    """Scout, scan in two phases, tilted head, MR, dose page, and one damaged file; returns HU of phase 2."""
    make_series(folder / "scout", number=1, seed=1, edit=as_localizer)
    for phase in (1, 2):

        def two_phases(k: int, ds: Dataset, phase: int = phase) -> None:
            ds.SOPInstanceUID, ds.AcquisitionNumber = generate_uid(entropy_srcs=[f"{phase} {k}"]), phase
            ds.RescaleIntercept = str(-1024 + phase)

        phased = make_series(folder / f"phase {phase}", number=2, seed=2, edit=two_phases)
    make_series(folder / "head", number=3, seed=3, edit=tilt)
    make_series(folder / "mr", number=4, seed=4, edit=lambda k, ds: setattr(ds, "Modality", "MR"))
    make_series(folder / "thin", number=5, seed=5)
    shutil.copytree(folder / "thin", folder / "thin again")
    secondary_capture(folder / "dose.dcm", ImageType=["DERIVED", "SECONDARY", "DOSE_INFO"])
    return phased + 2


def tilt(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = place(2.5 * k, 0.8 * k)


def test_a_study(tmp_path: Path) -> None:
    phased = study(tmp_path)
    infos = io.inspect(tmp_path)
    assert [i.number for i in infos] == [1, 2, 3, 4, 5, 6, 7]
    answers = [i.processable for i in infos]
    assert "is a localizer" in answers[0]
    assert answers[1:3] == ["yes", "yes"]
    assert [i.description for i in infos[1:3]] == ["CHEST 2, acquisition 1", "CHEST 2, acquisition 2"]
    assert infos[1].uid == infos[2].uid
    assert answers[3].startswith("with `untilt=True` (gantry tilt of 17.7 degrees")
    assert "is MR, not CT" in answers[4]
    assert answers[5] == "yes (ignored 5 identical copies of images)"
    assert answers[6].startswith("no: dose.dcm")
    assert PATIENT not in repr(infos)
    np.testing.assert_array_equal(io.read(tmp_path, series="3").hu, phased)
    message = refusal(tmp_path)
    assert "4 CT series; choose one by `series=" in message
    assert "7: no description (report page, 1 slices)" in message
    assert "has 2 phases" in refusal(tmp_path, series=infos[1].uid)
    with pytest.warns(UserWarning, match="ignored 5 identical copies"):
        io.read(tmp_path, series="6")


def test_studies_are_listed_as_their_folders_and_their_series_by_number(tmp_path: Path) -> None:
    make_series(tmp_path / "a" / "x", number=9, seed=1, study="a")
    make_series(tmp_path / "a" / "y", number=4, seed=2, study="a")
    make_series(tmp_path / "b", number=2, seed=3, study="b")
    listed = [(info.path, info.description) for info in io.inspect(tmp_path)]
    assert listed == [("a/y", "CHEST 4"), ("a/x", "CHEST 9"), ("b", "CHEST 2")]


@pytest.mark.parametrize(
    ("key", "values", "label"),
    [
        ("TriggerTime", ["0", "450.5"], "trigger time 450.5"),
        ("TemporalPositionIdentifier", [9, 10], "temporal position 10"),
        ("ConvolutionKernel", ["B30f", "B70f"], "kernel B70f"),
    ],
)
def test_phases_are_named_by_what_tells_them_apart(tmp_path: Path, key: str, values: list, label: str) -> None:
    for phase in (0, 1):

        def edit(k: int, ds: Dataset, phase: int = phase) -> None:
            ds.SOPInstanceUID = generate_uid(entropy_srcs=[f"{phase} {k}"])
            setattr(ds, key, values[phase])

        make_series(tmp_path / str(phase), edit=edit)
    assert io.inspect(tmp_path)[1].description == f"CHEST 3, {label}"


def test_remarks_about_values_stay_off_the_screen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def edit(k: int, ds: Dataset) -> None:
        for key in ("AcquisitionTime", "SeriesInstanceUID"):
            ds[key] = DataElement(key, dictionary_VR(key), PATIENT, validation_mode=0)

    with disable_value_validation():
        make_series(tmp_path, edit=edit)
    caplog.clear()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        io.read(tmp_path)
        io.inspect(tmp_path)
    assert not [note for note in notes if PATIENT in str(note.message)]
    assert PATIENT not in caplog.text


def test_a_damaged_file_hides_no_series_but_stops_reading(tmp_path: Path) -> None:
    make_series(tmp_path / "a", seed=1)
    make_series(tmp_path / "b", seed=2)
    (tmp_path / "b" / "lost.dcm").write_bytes(b"")
    infos = io.inspect(tmp_path)
    assert [i.processable.split(";")[0] for i in infos] == ["yes", "yes", "no: lost.dcm is empty"]
    assert "lost.dcm is empty" in refusal(tmp_path, series="1")  # it may have been a slice of that series


def test_table_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path)
    app(["info", str(tmp_path)], standalone_mode=False)
    out = capsys.readouterr().out
    for said in ("CHEST 2, acquisition 2", "with --untilt", "is a localizer", "yes (ignored 5 identical"):
        assert " ".join(said.split()[:3]) in " ".join(out.split())


def test_untilt_on_the_command_line(tmp_path: Path) -> None:
    make_series(tmp_path / "head", edit=tilt)
    for verb in ("degrade", "structure"):
        command = [verb, str(tmp_path / "head"), str(tmp_path / f"{verb}.nii")]
        with pytest.raises(UhrctError, match="--untilt"):
            app(command, standalone_mode=False)
        app([*command, "--untilt"], standalone_mode=False)
    assert io.read(tmp_path / "structure.nii").shape == (5, 10, 7)


def test_headers_of_enhanced_frames(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", order=[2, 0, 3, 1])
    volume = io.read(tmp_path)
    assert [frame for _, frame in volume.meta["dicom_frames"]] == [2, 4, 1, 3]
    whole = volume.meta["dicom_frames"][0][0]
    assert whole.NumberOfFrames == 4
    for k, header in enumerate(volume.meta["dicom"]):
        assert float(header.ImagePositionPatient[2]) == 20 + 2.5 * k
        assert header.ImageType[2] == "VOLUME"
        assert float(header.RescaleSlope) == 1
        assert "PixelData" not in header
        assert "PerFrameFunctionalGroupsSequence" not in header


def test_a_series_is_chosen_by_its_number_as_text_or_as_an_integer(tmp_path: Path) -> None:
    make_series(tmp_path / "a", number=1, seed=1)
    second = make_series(tmp_path / "b", number=2, seed=2)
    for number in ("2", 2, np.int64(2)):
        np.testing.assert_array_equal(io.read(tmp_path, series=number).hu, second)
    for wrong in (0, 2.5, True, [2]):
        with pytest.raises(UhrctError, match="`series` is"):
            io.read(tmp_path, series=wrong)


@pytest.mark.parametrize("arguments", [{}, {"series": "99"}])
def test_a_refusal_lists_ten_series_at_most(tmp_path: Path, arguments: dict[str, str]) -> None:
    for k in range(12):
        make_series(tmp_path / str(k), shape=(1, 2, 2), number=k, seed=k)
    message = refusal(tmp_path, **arguments)
    assert message.endswith("; ... and 2 more; uhrct info lists them")
    assert message.count(" slices)") == 10
