"""What a result says of itself to a PACS: its name, when it was made, and how thick its slices are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_files import make_series
from ct_syntaxes import make_enhanced
from pydicom import Dataset, dcmread

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.io import Derivation, DicomOptions, Segment

MOMENT = datetime(2027, 1, 15, 22, 30, 5, tzinfo=UTC)
KINDS = ("image", "structure", "spread", "mask")
X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0", suffix="x2")
DATES = tuple(f"{what}{part}" for what in ("Series", "Content", "InstanceCreation") for part in ("Date", "Time"))


def outputs(
    source: Volume, out: Path, scale: tuple[int, int, int], derivation: Derivation = X2, **options: Any
) -> dict:
    """Name of each kind of output -> its first file."""
    grid = source.refined_grid(scale)
    dicom = DicomOptions(**options)
    out.mkdir(exist_ok=True)
    how: dict[str, Any] = {"source": source, "derivation": derivation, "dicom": dicom}
    with io.open_writer(out / "image", grid, dtype=np.int16, **how) as writer:
        writer.write(np.zeros(grid.shape, np.int16))
    for quantity in ("structure", "spread"):
        with io.open_map_writer(out / quantity, grid, quantity, **how) as writer:
            writer.write(np.zeros(grid.shape, np.float32))
    io.write_segmentation(np.ones(grid.shape, np.uint8), grid, out / "mask", [Segment("x")], **how)
    return {kind: dcmread(out / kind / "00001.dcm") for kind in KINDS}


def source_of(tmp_path: Path, kind: str, edit: Any = lambda ds: None) -> Volume:
    if kind == "enhanced":
        make_enhanced(tmp_path / "in.dcm", whole=edit)
        return io.read(tmp_path / "in.dcm")
    make_series(tmp_path / "in", edit=lambda k, ds: edit(ds))
    return io.read(tmp_path / "in")


# --- the name


def test_names_say_research_and_never_sr(tmp_path: Path) -> None:
    """SR means Structured Report to a PACS."""
    pytest.importorskip("highdicom")
    made = outputs(source_of(tmp_path, "classic"), tmp_path, (1, 2, 2))
    assert {kind: ds.SeriesDescription for kind, ds in made.items()} == {
        "image": "CHEST 3 RESEARCH x2",
        "structure": "CHEST 3 RESEARCH x2 structure map",
        "spread": "CHEST 3 RESEARCH x2 spread of samples",
        "mask": "CHEST 3 RESEARCH x2 segmentation",
    }


@pytest.mark.parametrize("source_kind", ["classic", "enhanced"])
def test_a_new_thickness_comes_before_the_old_name(tmp_path: Path, source_kind: str) -> None:
    pytest.importorskip("highdicom")

    def thin(ds: Dataset) -> None:
        ds.SeriesDescription = "CHEST 3MM"

    made = outputs(source_of(tmp_path, source_kind, thin), tmp_path, (2, 1, 1), Derivation("", "k", suffix="2x1x1"))
    assert made["image"].SeriesDescription == "RESEARCH 2x1x1, 1.25 mm slices, from: CHEST 3MM"
    assert made["structure"].SeriesDescription == "RESEARCH 2x1x1 structure map, 1.25 mm slices, from: CHEST 3MM"


@pytest.mark.parametrize("scale", [(1, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("name", ["", "a" * 64, "CHEST 1.25 MM " * 4, "胸部" * 32])
def test_names_fit_and_keep_the_word(tmp_path: Path, name: str, scale: tuple[int, int, int]) -> None:
    pytest.importorskip("highdicom")

    def edit(ds: Dataset) -> None:
        ds.SpecificCharacterSet, ds.SeriesDescription = "ISO_IR 192", name

    for kind, ds in outputs(source_of(tmp_path, "classic", edit), tmp_path, scale).items():
        assert len(ds.SeriesDescription) <= 64
        assert "RESEARCH x2" in ds.SeriesDescription
        assert kind == "image" or kind[:4] in ds.SeriesDescription or "segmentation" in ds.SeriesDescription
        assert not ds.SeriesDescription.endswith(("1.", "1", "from:", ","))  # no half number


def test_any_derivation_is_research(tmp_path: Path) -> None:
    source = source_of(tmp_path, "classic")
    io.write(source, tmp_path / "copy")
    assert dcmread(tmp_path / "copy" / "00001.dcm").SeriesDescription == "CHEST 3 RESEARCH copy"
    io.write(Volume(source.hu, source.spacing_mm), tmp_path / "of nifti", X2)
    assert dcmread(tmp_path / "of nifti" / "00001.dcm").SeriesDescription == "RESEARCH x2"


# --- dates


def dates(ds: Dataset) -> dict[str, str]:
    return {name: str(ds.get(name, "")) for name in DATES}


@pytest.mark.parametrize("source_kind", ["classic", "enhanced"])
def test_dates_are_those_of_the_making(tmp_path: Path, source_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom")

    def old(ds: Dataset) -> None:
        for name in DATES:
            setattr(ds, name, "20000102" if name.endswith("Date") else "030405")
        ds.StudyDate, ds.AcquisitionDate, ds.AcquisitionTime = "20000102", "20000102", "030405"
        ds.AcquisitionDateTime, ds.TimezoneOffsetFromUTC = "20000102030405", "+0200"

    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(MOMENT.timestamp())))
    made = outputs(source_of(tmp_path, source_kind, old), tmp_path, (1, 2, 2))
    for ds in made.values():
        assert dates(ds) == {name: "20270116" if name.endswith("Date") else "003005" for name in DATES}
        assert ds.StudyDate == "20000102"
        assert ds.TimezoneOffsetFromUTC == "+0200"
    for name in ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"):
        assert made["image"][name].value.startswith(("20000102", "030405"))


def test_without_a_fixed_time_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    before = datetime.now(UTC).replace(microsecond=0)

    def utc(ds: Dataset) -> None:
        ds.TimezoneOffsetFromUTC = "+0000"

    io.write(source_of(tmp_path, "classic", utc), tmp_path / "out", X2)
    for file in (tmp_path / "out").iterdir():
        ds = dcmread(file)
        for what in ("Series", "Content", "InstanceCreation"):
            said = datetime.strptime(ds[f"{what}Date"].value + ds[f"{what}Time"].value, "%Y%m%d%H%M%S")
            assert before <= said.replace(tzinfo=UTC) <= datetime.now(UTC)


def test_uids_do_not_depend_on_the_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom")
    source = source_of(tmp_path, "classic")
    made = []
    for day in range(2):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int((MOMENT + timedelta(days=day)).timestamp())))
        made.append(outputs(source, tmp_path / str(day), (1, 2, 2)))
    for kind in KINDS:
        one, two = (m[kind] for m in made)
        assert dates(one) != dates(two)
        assert (one.SOPInstanceUID, one.SeriesInstanceUID) == (two.SOPInstanceUID, two.SeriesInstanceUID)


@pytest.mark.parametrize("source_kind", ["classic", "enhanced"])
def test_anonymous_outputs_have_no_date(tmp_path: Path, source_kind: str) -> None:
    """Often a scan is processed on the day on which it was made."""
    pytest.importorskip("highdicom")
    for kind, ds in outputs(source_of(tmp_path, source_kind), tmp_path, (1, 2, 2), anonymize=True).items():
        required = source_kind == "enhanced" or kind != "image"
        empty = {"ContentDate": "19000101", "ContentTime": "000000"} if required else {}
        assert dates(ds) == dict.fromkeys(DATES, "") | empty


@pytest.mark.parametrize("zone", ["", "+2500", "unknown", "-1500"])
def test_a_time_zone_that_cannot_be_is_passed_over(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from uhrct.io.dicom.dates import creation_time

    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(MOMENT.timestamp())))
    header = Dataset()
    header.add_new("TimezoneOffsetFromUTC", "LO", zone)
    assert creation_time(header) == MOMENT
    assert creation_time(header).utcoffset() == MOMENT.astimezone().utcoffset()
    header.TimezoneOffsetFromUTC = "-0330"
    assert creation_time(header).tzinfo == timezone(-timedelta(hours=3, minutes=30))


@pytest.mark.parametrize("wrong", ["today", "1e9", "9" * 30])
def test_a_fixed_time_that_cannot_be_is_one_line(tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
    with pytest.raises(UhrctError, match=r"^SOURCE_DATE_EPOCH is '.*'; give whole seconds since 1970, or unset it$"):
        io.write(Volume(np.zeros((1, 2, 2), np.int16), (1, 1, 1)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
