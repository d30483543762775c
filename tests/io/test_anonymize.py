"""Anonymous files hold nothing but what the list says: secrets in every VR, at every depth, against other programs."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series
from ct_syntaxes import make_enhanced
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import Tag

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.io import Derivation, DicomOptions
from uhrct.io.dicom import keep_list
from uhrct.io.dicom.encode import element_bytes, encoded, sequence_element
from uhrct.io.dicom.header import USED, WHOLE

X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0")
KEY = "a long secret of one site"
WORD = "Xsecretx"
#: Reading needs these, so they hold no secrets. Free text that stays is named in the documentation.
NEEDED = {
    Tag(keyword)
    for keyword in (
        *(*USED, *WHOLE, *keep_list.PRODUCTS),
        *("StudyInstanceUID", "FrameOfReferenceUID", "SpecificCharacterSet", "PixelData", "InstanceNumber"),
    )
} - {Tag("SeriesDescription")}
#: A secret in each VR, as bytes in a file. Text in a VR of numbers, dates or codes is not allowed, but occurs.
SECRETS = {
    **dict.fromkeys(
        ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"),
        WORD.encode(),
    ),
    **dict.fromkeys(
        ("OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"),
        WORD.encode(),
    ),
    "UI": b"1.2.3.4711.4712\0",
}
NESTED = ("CTExposureSequence", "FrameAnatomySequence", "ReferencedImageSequence", "RequestAttributesSequence")
TELLING = (WORD.encode(), b"1.2.3.4711.4712")


def raw(tag: int, vr: str) -> bytes:
    return element_bytes(RawDataElement(Tag(tag), vr, len(SECRETS[vr]), SECRETS[vr], 0, False, True))


def planted(dataset: Dataset, depth: int = 2, every: int = 1) -> bytes:
    """A dataset, encoded, with secrets in the elements of the dictionary (each one, or each 40th) and in items."""
    out = {}
    for tag, (vr, *_) in list(DicomDictionary.items())[::every]:
        vr = vr.split(" or ")[0]
        if vr in SECRETS and tag >> 16 not in (0, 2, 4, 0x7FE0, 0xFFFE) and Tag(tag) not in NEEDED:
            out[tag] = raw(tag, vr)
    for k, vr in enumerate(SECRETS):  # private elements, an unknown even group, and an unknown element of a known one
        for block in (0x00091000, 0x0B0A1000, 0x00180F00):
            out[block + k] = raw(block + k, vr)
    out[0x00090010] = raw(0x00090010, "LO")
    for group in (0x5000, 0x6000, 0x6002):  # curves and overlays
        for element, vr in ((0x0022, "LO"), (0x3000, "OW"), (0x4000, "LT"), (0x1500, "LO")):
            out[group << 16 | element] = raw(group << 16 | element, vr)
    # sequences that stay, sequences that go, and unknown ones
    for tag in (*map(tag_for_keyword, NESTED), 0x00091099, 0x0B0A1099) if depth else ():
        out[tag] = sequence_element(tag, [planted(Dataset(), depth - 1, 40)])
    for tag, content in encoded(dataset).items():
        if dataset[tag].VR == "SQ":
            out[tag] = sequence_element(tag, [planted(item, depth, 40) for item in dataset[tag].value])
        elif Tag(tag) in NEEDED or every > 1:
            out[tag] = content
    return b"".join(out[tag] for tag in sorted(out))


def plant(file: Path) -> None:
    """Fill a file with secrets, also before its dataset."""
    ds = dcmread(file)
    ds.file_meta.SourceApplicationEntityTitle = WORD
    ds.file_meta.PrivateInformationCreatorUID = "1.2.3.4711.4712"
    ds.file_meta.PrivateInformation = WORD.encode()
    start = DicomBytesIO()
    write_file_meta_info(start, ds.file_meta)
    file.write_bytes((WORD * 16).encode() + b"DICM" + start.getvalue() + planted(ds))
    assert file.read_bytes().count(WORD.encode()) > 3000


def elements(dataset: Dataset, path: str = "") -> Iterator[tuple[str, DataElement]]:
    for element in dataset:
        yield path + keyword_for_tag(element.tag), element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item, f"{path}{keyword_for_tag(element.tag)}>")


def outputs(source: Volume, folder: Path, **options: object) -> list[Path]:
    """Every kind of object that is written from a source."""
    dicom = DicomOptions(anonymize=True, **options)
    io.write(source, folder / "image", X2, dicom)
    with io.open_map_writer(
        folder / "map.dcm", source.grid, "structure", source=source, derivation=X2, dicom=dicom
    ) as writer:
        writer.write(np.full(source.grid.shape, 0.5, np.float32))
    mask = np.ones(source.grid.shape, np.uint8)
    io.write_segmentation(
        mask, source.grid, folder / "seg.dcm", [io.Segment("x")], source=source, derivation=X2, dicom=dicom
    )
    return [*sorted((folder / "image").iterdir()), folder / "map.dcm", folder / "seg.dcm"]


@pytest.fixture(params=["classic", "enhanced"])
def full_of_secrets(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Volume, list[Path]]:
    if request.param == "enhanced":
        (tmp_path / "in").mkdir()
        make_enhanced(tmp_path / "in" / "in.dcm", shape=(2, 8, 9))
    else:
        make_series(tmp_path / "in", shape=(2, 8, 9))
    files = sorted((tmp_path / "in").iterdir())
    for file in files:
        plant(file)
    return io.read(tmp_path / "in"), files


def test_no_secret_stays(tmp_path: Path, full_of_secrets: tuple[Volume, list[Path]]) -> None:
    pytest.importorskip("highdicom")
    source, old = full_of_secrets
    made = outputs(source, tmp_path)
    names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    was = {str(dcmread(file)[name].value) for file in old for name in names}
    for file in made:
        content = file.read_bytes()
        assert [word for word in TELLING if word in content] == []
        ds = dcmread(file)
        listed = {Tag(tag) for tag in keep_list.KEEP}
        for path, element in elements(ds):
            assert not element.tag.is_private
            if element.VR == "UI" and not str(element.value).startswith("1.2.840.10008"):
                assert str(element.value) not in was, path
            if element.VR in ("DA", "TM", "DT"):
                assert str(element.value) in ("", "19000101", "000000"), path
            if element.tag not in listed:  # written by uhrct, and not copied
                assert not any(word.decode() in str(element.value) for word in TELLING)
        assert ds.PatientIdentityRemoved == "YES"
        assert ds.DeidentificationMethod.startswith("uhrct")
        assert ds.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    np.testing.assert_array_equal(io.read(tmp_path / "image").hu, source.hu)


def test_what_tells_of_the_scan_stays(tmp_path: Path) -> None:
    def edit(k: int, ds: Dataset) -> None:
        ds.KVP, ds.Exposure, ds.SoftwareVersions, ds.BodyPartExamined = "120", "200", "v1", "CHEST"
        ds.WindowCenter, ds.SpecificCharacterSet, ds.Manufacturer = "40", "ISO_IR 192", "Größe"

    make_series(tmp_path / "in", edit=edit)
    io.write(io.read(tmp_path / "in"), tmp_path / "out", X2, DicomOptions(anonymize=True))
    for file in (tmp_path / "out").iterdir():
        ds = dcmread(file)
        assert (ds.KVP, ds.Exposure, ds.SoftwareVersions, ds.BodyPartExamined) == (120, 200, "v1", "CHEST")
        assert (ds.WindowCenter, ds.Manufacturer, ds.ConvolutionKernel) == (40, "Größe", "B30")


# --- other programs and tables


def test_the_list_agrees_with_table_e_1_1() -> None:
    """No listed attribute is one that the basic profile removes, empties or replaces; UIDs get new values."""
    selector = pytest.importorskip("dicomanonymizer.dicomfields_selector")
    table = selector.dicom_anonymization_database_selector("dicomfields_2026c")
    renewed = set(table["U_TAGS"])
    named = {tag for kind, tags in table.items() if kind not in ("U_TAGS", "ALL_TAGS") for tag in tags}
    for tag, vrs in keep_list.KEEP.items():
        pair = (tag >> 16, tag & 0xFFFF)
        assert pair not in named, keyword_for_tag(tag)
        assert pair not in renewed or vrs == ("UI",), keyword_for_tag(tag)


def test_the_list_holds_attributes_of_the_objects_that_are_written() -> None:
    utils = pytest.importorskip("highdicom._standard_utils")
    modules, attributes = utils.get_iod_module_map(), utils.get_module_attribute_map()
    known = {
        row["keyword"]
        for iod in ("ct-image", "enhanced-ct-image", "legacy-converted-enhanced-ct-image", "parametric-map")
        for module in modules[iod]
        for row in attributes[module["key"]]
    }
    groups = [group for name, group in vars(keep_list).items() if name.isupper() and isinstance(group, tuple)]
    keywords = [keyword for group in groups for keyword in group]
    assert len(keywords) == len(set(keywords)) > 150
    assert [keyword for keyword in keywords if tag_for_keyword(keyword) is None] == []
    # retired, but common in CT, and numbers
    old = {"NumberOfTemporalPositions", "TemporalPositionIdentifier", "TemporalResolution", "TriggerTime"}
    assert set(keywords) - known - old == set()


def test_dicognito_finds_nothing_more(tmp_path: Path) -> None:
    """What dicognito replaces or removes in the source is not in our files."""
    dicognito = pytest.importorskip("dicognito.anonymizer")

    def edit(k: int, ds: Dataset) -> None:
        item = Dataset()
        item.PatientName, item.ReferencedSOPInstanceUID, item.AccessionNumber = "NESTED^NAME", "1.2.77.3", "ACC4711"
        ds.RequestAttributesSequence = ds.ReferencedImageSequence = [item]
        ds.PatientID = "PATIENT4711"
        ds.PatientBirthDate, ds.StudyDate, ds.StudyTime = "19500607", "20200102", "121314.15"
        ds.AcquisitionDateTime, ds.IrradiationEventUID = "20200102121314", "1.2.77.4"
        ds.PatientAddress, ds.OtherPatientIDs, ds.EthnicGroup = "Main Street 12", "OTHER4711", "ETHNIC WORD"
        ds.InstitutionName, ds.ReferringPhysicianName, ds.AccessionNumber = "ST ELSEWHERE", "WHO^DOCTOR", "A77665"
        ds.OperatorsName, ds.StationName, ds.DeviceSerialNumber = "OPERATOR^ONE", "STATION7", "SN998877"
        ds.StudyID, ds.RequestingService, ds.CurrentPatientLocation = "STUDY99", "SERVICE X", "WARD 13"

    make_series(tmp_path / "in", shape=(2, 8, 9), edit=edit)
    changed: set[str] = set()
    anonymizer = dicognito.Anonymizer(seed="test")
    for file in (tmp_path / "in").iterdir():
        before, after = dcmread(file), dcmread(file)
        anonymizer.anonymize(after)
        left = {path: str(element.value) for path, element in elements(after)}
        for path, element in elements(before):
            if element.VR != "SQ" and left.get(path) != str(element.value) and len(str(element.value)) > 3:
                changed.add(str(element.value))
    assert len(changed) > 20
    for file in outputs(io.read(tmp_path / "in"), tmp_path):
        content = file.read_bytes()
        assert [value for value in changed if value.encode() in content] == []


# --- the secret


def identity(file: Path) -> dict[str, str]:
    ds = dcmread(file)
    names = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID")
    source = ds.SourceImageSequence[0].ReferencedSOPInstanceUID
    return {name: str(ds[name].value) for name in names} | {"source": str(source)}


def test_uids_follow_the_key(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    made = {}
    for name, key in (("a", KEY), ("b", KEY), ("c", KEY + "!"), ("d", None), ("e", None)):
        io.write(source, tmp_path / name, X2, DicomOptions(anonymize=True, anonymize_key=key))
        made[name] = identity(tmp_path / name / "00001.dcm")
    assert made["a"] == made["b"]
    for one, other in zip(string.ascii_lowercase[1:5], string.ascii_lowercase[2:5], strict=False):
        assert not set(made[one].values()) & set(made[other].values())


def test_outputs_with_one_key_stay_one_study_of_one_patient(tmp_path: Path) -> None:
    uids = {}
    for k, study in enumerate(("1.2.77.1", "1.2.77.1", "1.2.77.2")):

        def edit(_: int, ds: Dataset, study: str = study) -> None:
            ds.StudyInstanceUID = study

        make_series(tmp_path / f"in{k}", seed=k, edit=edit)
        options = DicomOptions(anonymize=True, anonymize_key=KEY)
        io.write(io.read(tmp_path / f"in{k}"), tmp_path / f"out{k}", X2, options)
        uids[k] = identity(tmp_path / f"out{k}" / "00001.dcm")
    assert uids[0]["StudyInstanceUID"] == uids[1]["StudyInstanceUID"] != uids[2]["StudyInstanceUID"]
    assert len({u["PatientID"] for u in uids.values()}) == 1
    assert len({u["SeriesInstanceUID"] for u in uids.values()}) == 3


def test_a_reference_follows_the_object_that_it_names(tmp_path: Path) -> None:
    make_series(tmp_path / "in", shape=(1, 4, 4))
    options = DicomOptions(anonymize=True, anonymize_key=KEY)
    io.write(io.read(tmp_path / "in"), tmp_path / "one", X2, options)
    from uhrct.io.dicom.anonymize import new_uid

    old = dcmread(next((tmp_path / "in").iterdir())).SOPInstanceUID
    assert identity(tmp_path / "one" / "00001.dcm")["source"] == new_uid(old, KEY.encode())


def test_keys_that_cannot_be() -> None:
    with pytest.raises(UhrctError, match="16 characters or more"):
        DicomOptions(anonymize=True, anonymize_key="short")
    with pytest.raises(UhrctError, match="`anonymize_key` is for anonymous outputs"):
        DicomOptions(anonymize_key=KEY)
    assert KEY not in repr(DicomOptions(anonymize=True, anonymize_key=KEY))
