"""Transfer syntaxes, character sets, private elements, anonymity: the same voxels and place in every dress."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series, oblique
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.io import Derivation, DicomOptions
from uhrct.io.derivation import TRANSFER_SYNTAXES

X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0")
KEY = "a long secret of one site"
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def load(folder: Path) -> list[Dataset]:
    return [dcmread(p) for p in sorted(folder.iterdir())]


def derive(source: Volume, out: Path, **options: object) -> list[Dataset]:
    """The source itself as a derived series, which is enough for all that voxels don't decide."""
    io.write(source, out, X2, DicomOptions(**options))
    return load(out)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_syntax_holds_the_same_voxels(tmp_path: Path, syntax: str) -> None:
    if syntax == "htj2k":
        pytest.importorskip("imagecodecs")
    make_series(tmp_path / "in", direction=oblique(5), shape=(3, 17, 23))
    source = io.read(tmp_path / "in")
    source.hu[1, 0, :4] = -32768, 32767, -1024, 0
    new = derive(source, tmp_path / "out", transfer_syntax=syntax)
    assert {ds.file_meta.TransferSyntaxUID for ds in new} == {TRANSFER_SYNTAXES[syntax]}
    got = io.read(tmp_path / "out")
    np.testing.assert_array_equal(got.hu, source.hu)
    np.testing.assert_allclose(got.origin_mm, source.origin_mm, atol=1e-6)
    for k, ds in enumerate(new):
        np.testing.assert_array_equal(ds.pixel_array + ds.RescaleIntercept, source.hu[k])
        assert "LossyImageCompression" not in ds


@pytest.mark.parametrize("syntax", ["jpegls", "htj2k"])
def test_compressed_is_smaller(tmp_path: Path, syntax: str) -> None:
    if syntax == "htj2k":
        pytest.importorskip("imagecodecs")
    ramp = np.broadcast_to(np.arange(128, dtype=np.int16), (1, 128, 128)).copy()
    for name in ("explicit", syntax):
        io.write(Volume(ramp, (1, 1, 1)), tmp_path / f"{name}.dcm", X2, DicomOptions(name))
    assert (tmp_path / f"{syntax}.dcm").stat().st_size < (tmp_path / "explicit.dcm").stat().st_size / 4


def test_htj2k_without_encoder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UhrctError, match=r"HTJ2K needs an encoder.*uhrct\[dicom\].*jpegls"):
        io.open_writer(tmp_path / "out", Grid((1, 2, 2), (1, 1, 1)), dtype="int16", dicom=DicomOptions("htj2k"))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(UhrctError, match="'jpeg' cannot be written; choose one of explicit, jpegls, htj2k"):
        DicomOptions("jpeg")
    with pytest.raises(UhrctError, match="`keep_private` or `anonymize`"):
        DicomOptions(keep_private=True, anonymize=True)


@pytest.mark.parametrize(
    "charset",
    [["", "ISO 2022 IR 87"], "ISO_IR 192", ["ISO 2022 IR 6", "ISO 2022 IR 87", "ISO 2022 IR 13"]],
    ids=["ISO 2022 Japanese", "UTF-8", "three sets"],
)
@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_names_keep_their_character_set(tmp_path: Path, charset: list[str] | str, implicit: bool) -> None:
    def edit(k, ds):
        ds.SpecificCharacterSet = charset
        ds.PatientName, ds.SeriesDescription = JAPANESE, "胸部 3"
        item = Dataset()
        item.PatientName = item.StudyDescription = "山田"
        ds.ReferencedPatientSequence = [item]

    make_series(tmp_path / "in", edit=edit)
    if implicit:
        for file in (tmp_path / "in").iterdir():
            ds = dcmread(file)
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            dcmwrite(file, ds, implicit_vr=True, little_endian=True)
    source = io.read(tmp_path / "in")
    old = dcmread(next((tmp_path / "in").iterdir()))
    for ds in derive(source, tmp_path / "out"):
        assert ds.SpecificCharacterSet == old.SpecificCharacterSet
        assert ds.get_item("PatientName").value == old.get_item("PatientName").value  # the very bytes
        assert str(ds.PatientName) == JAPANESE
        assert ds.SeriesDescription == "胸部 3 RESEARCH"
        assert str(ds.ReferencedPatientSequence[0].PatientName) == "山田"
        assert ds.DerivationDescription == X2.description


def test_slices_of_one_series_in_different_character_sets(tmp_path: Path) -> None:
    def edit(k: int, ds: Dataset) -> None:
        ds.SpecificCharacterSet = ("ISO_IR 100", "ISO_IR 192")[k % 2]
        ds.PatientName, ds.SeriesDescription = "Müller^Zoë", "Schädel"

    make_series(tmp_path / "in", shape=(4, 4, 4), edit=edit)
    for ds in derive(io.read(tmp_path / "in"), tmp_path / "out"):
        assert (ds.PatientName, ds.SeriesDescription) == ("Müller^Zoë", "Schädel RESEARCH")


def test_big_endian_source(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.AcquisitionMatrix = [0, 512, 512, 0]
        ds.add_new("PixelPaddingValue", "SS", -2000)

    hu = make_series(tmp_path / "in", edit=edit)
    for file in (tmp_path / "in").iterdir():
        ds = dcmread(file)
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds["PixelData"].value = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
        dcmwrite(file, ds, implicit_vr=False, little_endian=False)
    new = derive(io.read(tmp_path / "in"), tmp_path / "out")
    assert new[0].AcquisitionMatrix == [0, 512, 512, 0]
    assert new[0].PixelPaddingValue == -2000
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, hu)


def _with_secrets(k: int, ds: Dataset) -> None:
    ds.add_new(0x00090010, "LO", "ACME PRIVATE")
    ds.add_new(0x00091001, "LO", "secret")
    nested = Dataset()
    nested.add_new(0x00090010, "LO", "ACME PRIVATE")
    nested.add_new(0x00091001, "LO", "secret")
    nested.PatientName, nested.StudyDate = "DOE^NESTED", "20200102"
    nested.ReferencedSOPInstanceUID = "1.2.3"
    ds.ReferencedPatientSequence = [nested]
    ds.RequestAttributesSequence = [nested]
    ds.ReferencedImageSequence = [nested]
    ds.ProcedureCodeSequence = [nested]
    ds.PatientBirthDate, ds.StudyDate, ds.AcquisitionDateTime = "19500607", "20200102", "20200102121314"
    ds.InstitutionName, ds.ReferringPhysicianName, ds.AccessionNumber = "ST ELSEWHERE", "WHO^DOCTOR", "A77665"
    ds.OperatorsName, ds.StationName, ds.DeviceSerialNumber = "OPERATOR^ONE", "STATION7", "SN998877"
    ds.StudyDescription, ds.ProtocolName, ds.ImageComments = "looks for Doe", "PROT doe", "comment on Doe"


def test_private_elements_only_if_asked_for(tmp_path: Path) -> None:
    make_series(tmp_path / "in", edit=_with_secrets)
    source = io.read(tmp_path / "in")
    for ds in derive(source, tmp_path / "out"):
        assert "secret" not in str(ds)
    for ds in derive(source, tmp_path / "private", keep_private=True):
        assert ds[0x00091001].value == "secret"
        assert ds[0x00090010].value == "ACME PRIVATE"
        assert ds.ReferencedPatientSequence[0][0x00091001].value == "secret"


def test_anonymous_files_tell_nothing_of_the_person(tmp_path: Path) -> None:
    hu = make_series(tmp_path / "in", edit=_with_secrets)
    source = io.read(tmp_path / "in")
    old = source.meta["dicom"]
    new = derive(source, tmp_path / "out", anonymize=True, anonymize_key=KEY)  # random UIDs may hold 4711
    telling = [PATIENT, "DOE", "doe", "4711", "secret", "19500607", "2020010", "ELSEWHERE", "WHO", "A77665", "OPERATOR"]
    telling += ["STATION7", "SN998877", "CHEST 3", "1.2.3\0", *(h.SOPInstanceUID for h in old)]
    telling += [old[0].StudyInstanceUID, old[0].SeriesInstanceUID, old[0].FrameOfReferenceUID]
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes()
        assert [word for word in telling if word.encode() in content] == []
    assert len({ds.PatientID for ds in new}) == len({ds.StudyInstanceUID for ds in new}) == 1
    assert {ds.PatientIdentityRemoved for ds in new} == {"YES"}
    assert new[0].DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert new[0].StudyDate == new[0].PatientBirthDate == ""
    assert new[0].ConvolutionKernel == "B30"  # what says nothing of the person stays
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, hu)
    assert PATIENT in str(old[0].PatientName)  # and the volume in memory is not changed


def test_anonymous_outputs_of_one_study_stay_together(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    make_series(tmp_path / "other", seed=1, study="other")
    source = io.read(tmp_path / "in")
    [one, *_] = derive(source, tmp_path / "a", anonymize=True, anonymize_key=KEY)
    io.write(source, tmp_path / "b", Derivation("other", key="other"), DicomOptions(anonymize=True, anonymize_key=KEY))
    [two, *_] = load(tmp_path / "b")
    for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert one[kept].value == two[kept].value
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert one.SourceImageSequence[0] == two.SourceImageSequence[0]
    [other, *_] = derive(io.read(tmp_path / "other"), tmp_path / "c", anonymize=True, anonymize_key=KEY)
    assert other.StudyInstanceUID != one.StudyInstanceUID
    derive(source, tmp_path / "again", anonymize=True, anonymize_key=KEY)
    assert (tmp_path / "again" / "00003.dcm").read_bytes() == (tmp_path / "a" / "00003.dcm").read_bytes()


def test_synthetic_slices_say_so(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    for scale, said in (((1, 2, 2), False), ((2, 1, 1), True)):
        grid = source.refined_grid(scale)
        with io.open_writer(tmp_path / f"{said}", grid, dtype="int16", source=source, derivation=X2) as writer:
            writer.write(np.zeros(grid.shape, np.int16))
        [ds, *_] = load(tmp_path / f"{said}")
        assert ("synthetic" in ds.DerivationDescription) is said
        assert float(ds.SpacingBetweenSlices) == grid.spacing_mm[0]


def test_earlier_equipment_stays_named(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    derive(io.read(tmp_path / "in"), tmp_path / "one")
    [ds, *_] = derive(io.read(tmp_path / "one"), tmp_path / "two")
    assert [item.Manufacturer for item in ds.ContributingEquipmentSequence] == ["uhrct", "uhrct"]
    assert ds.SeriesNumber == 2003


def test_untilted_slices_are_not_said_to_be_tilted(tmp_path: Path) -> None:
    def edit(k, ds):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y + 0.5 * k, z]
        ds.GantryDetectorTilt = "11.3"

    make_series(tmp_path / "in", edit=edit)
    [ds, *_] = derive(io.read(tmp_path / "in", untilt=True), tmp_path / "out")
    assert ds.GantryDetectorTilt == 0
    make_series(tmp_path / "upright", edit=lambda k, ds: setattr(ds, "GantryDetectorTilt", "11.3"))
    [ds, *_] = derive(io.read(tmp_path / "upright"), tmp_path / "out2")
    assert ds.GantryDetectorTilt == 11.3


@pytest.mark.parametrize("looked_at", [False, True], ids=["raw", "parsed"])
def test_what_differs_between_slices_stays_with_its_slice(tmp_path: Path, looked_at: bool) -> None:
    """Elements are encoded once where slices agree; where they don't, no slice may get its neighbour's."""
    own = ("AcquisitionTime", "XRayTubeCurrent", "WindowCenter", "TableHeight", "ImageComments", "FrameOfReferenceUID")

    def edit(k, ds):
        ds.AcquisitionTime, ds.XRayTubeCurrent, ds.WindowCenter = f"12000{k // 2}", 100 + k // 2, [40 + k, 400]
        ds.TableHeight, ds.ImageComments, ds.FrameOfReferenceUID = f"{k / 8}", f"slice {k}", f"1.2.{k + 1}"
        item, deep = Dataset(), Dataset()
        deep.CodeMeaning = f"code {k // 3}"
        item.StudyDescription, item.RequestedProcedureCodeSequence = f"{k}", [deep]
        ds.RequestAttributesSequence = [item]
        ds.ProcedureCodeSequence = [deep]
        if k != 2:
            ds.StationName = "ONE"

    make_series(tmp_path / "in", shape=(12, 4, 4), edit=edit)
    source = io.read(tmp_path / "in")
    old = [dcmread(p) for p in sorted((tmp_path / "in").iterdir(), reverse=True)]
    if looked_at:
        for header in source.meta["dicom"]:
            str(header)
    for k, (was, now) in enumerate(zip(old, derive(source, tmp_path / "out"), strict=True)):
        for name in own:
            assert now[name].value == was[name].value, (k, name)
        assert now.RequestAttributesSequence == was.RequestAttributesSequence
        assert now.ProcedureCodeSequence[0].CodeMeaning == f"code {k // 3}"
        assert ("StationName" in now) is (k != 2)
