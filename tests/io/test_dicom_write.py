"""The derived series: what is new, what is kept, what must not be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, SHAPE, make_series, oblique
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset as Item
from pydicom.tag import Tag
from pydicom.uid import JPEGLSNearLossless

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.io import Derivation
from uhrct.io.dicom.write import stored_values

X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0")


def load(folder: Path) -> list[Dataset]:
    return [dcmread(p) for p in sorted(folder.iterdir())]


def named(source: Volume, new: list[Dataset]) -> list[list[int]]:
    """The source slices that each new slice names, as numbers."""
    index = {h.SOPInstanceUID: k for k, h in enumerate(source.meta["dicom"])}
    return [[index[r.ReferencedSOPInstanceUID] for r in ds.SourceImageSequence] for ds in new]


def refine(source: Volume, scale: tuple[int, int, int]) -> Volume:
    fine = source.hu.repeat(scale[0], 0).repeat(scale[1], 1).repeat(scale[2], 2)
    return source.on_grid(source.refined_grid(scale), fine)


def write_x2(source: Volume, out: Path, scale=(1, 2, 2), derivation: Derivation | None = X2) -> list[Dataset]:
    fine = refine(source, scale)
    with io.open_writer(out, fine.grid, dtype=fine.hu.dtype, source=source, derivation=derivation) as writer:
        writer.write(fine.hu)
    return load(out)


@pytest.mark.parametrize("scale", [(1, 2, 2), (2, 1, 1), (3, 2, 4)])
def test_geometry_and_hu(tmp_path: Path, scale: tuple[int, int, int]) -> None:
    make_series(tmp_path / "in", direction=oblique(3))
    source = io.read(tmp_path / "in")
    write_x2(source, tmp_path / "out", scale)
    got, expected = io.read(tmp_path / "out"), refine(source, scale)
    np.testing.assert_array_equal(got.hu, expected.hu)
    np.testing.assert_allclose(got.origin_mm, expected.origin_mm, atol=1e-6)
    np.testing.assert_allclose(got.spacing_mm, expected.spacing_mm, atol=1e-6)
    np.testing.assert_allclose(got.grid.corner_mm, source.grid.corner_mm, atol=1e-6)
    np.testing.assert_allclose(got.grid.extent_mm, source.grid.extent_mm, atol=1e-6)
    assert got.slice_thickness_mm == pytest.approx(3.0 if scale[0] == 1 else 2.5 / scale[0])


def test_rounding_errors_of_positions_do_not_reach_the_header(tmp_path: Path) -> None:
    """A distance is a difference of positions. Files state what was meant, within 1e-6 mm."""
    grid = Grid((3, 4, 4), (5 * 0.799999842, 0.322265625, 0.322265625), slice_thickness_mm=4.449999368)
    with io.open_writer(tmp_path / "out", grid, dtype=np.dtype(np.int16), derivation=X2) as writer:
        writer.write(np.zeros(grid.shape, np.int16))
    for header in load(tmp_path / "out"):
        assert (str(header.SpacingBetweenSlices), str(header.SliceThickness)) == ("4.0", "4.45")
        assert header.PixelSpacing == [0.322265625, 0.322265625]  # many pixels would add up its error


def test_what_is_new_and_what_is_kept(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.WindowCenter, ds.WindowWidth, ds.KVP, ds.BodyPartExamined = "40", "400", "120", "CHEST"
        ds.StudyDate, ds.PatientBirthDate = "20200102", "19500101"

    make_series(tmp_path / "in", edit=edit)
    source = io.read(tmp_path / "in")
    old = source.meta["dicom"]
    new = write_x2(source, tmp_path / "out")
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == [f"{k:05d}.dcm" for k in range(1, 6)]
    assert len({ds.SOPInstanceUID for ds in new}) == SHAPE[0]
    assert len({ds.SeriesInstanceUID for ds in new}) == 1
    for k, (was, now) in enumerate(zip(old, new, strict=True)):
        assert now.file_meta.MediaStorageSOPInstanceUID == now.SOPInstanceUID != was.SOPInstanceUID
        assert now.SeriesInstanceUID != was.SeriesInstanceUID
        for kept in (
            *("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientBirthDate", "StudyDate"),
            *("WindowCenter", "WindowWidth", "KVP", "BodyPartExamined", "ConvolutionKernel", "Manufacturer"),
        ):
            assert now[kept].value == was[kept].value, kept
        assert now.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert (now.Modality, now.ContentQualification) == ("CT", "RESEARCH")
        assert now.InstanceNumber == k + 1
        assert (now.SeriesNumber, now.SeriesDescription) == (1003, "CHEST 3 RESEARCH")
        assert now.DerivationDescription == X2.description
        assert now.DerivationCodeSequence[0].CodeValue == "113085"
        [reference] = now.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == was.SOPInstanceUID
        assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        [equipment] = now.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert (now.Rows, now.Columns) == (12, 14)
        assert (now.BitsAllocated, now.PixelRepresentation) == (16, 1)
        assert (float(now.RescaleSlope), float(now.RescaleIntercept)) == (1, -1024)
        assert max(len(str(v.original_string)) for v in now.PixelSpacing) <= 16


def test_uids_are_those_of_source_and_derivation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    first, again = (write_x2(source, tmp_path / name) for name in ("a", "b"))
    for one, two in zip(first, again, strict=True):
        assert one.SOPInstanceUID == two.SOPInstanceUID
        assert one.SeriesInstanceUID == two.SeriesInstanceUID
    for name in ("00001.dcm", "00005.dcm"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    other = write_x2(source, tmp_path / "c", derivation=Derivation("seed 1", key="weights:x2:seed1"))
    assert other[0].SeriesInstanceUID != first[0].SeriesInstanceUID
    assert other[0].SOPInstanceUID != first[0].SOPInstanceUID


def test_edited_copies_never_share_uids(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    one, two = (write_x2(source, tmp_path / name, derivation=None)[0] for name in "ab")
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert "DerivationCodeSequence" not in one


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ((1, 2, 2), [[0], [1], [2], [3], [4]]),
        ((2, 1, 1), [[0], [0], [1], [1], [2], [2], [3], [3], [4], [4]]),
    ],
)
def test_every_slice_that_an_output_covers_is_named(tmp_path: Path, scale: tuple, expected: list[list[int]]) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    assert named(source, write_x2(source, tmp_path / "out", scale)) == expected


@pytest.mark.parametrize(
    ("scale", "neighbours", "expected"),
    [
        ((1, 2, 2), 1, [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]),
        ((3, 1, 1), 1, [[0, 1]] * 3 + [[0, 1, 2]] * 3 + [[1, 2, 3]] * 3 + [[2, 3, 4]] * 3 + [[3, 4]] * 3),
        ((1, 1, 2), 2, [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4]]),
    ],
)
def test_neighbours_that_a_network_sees_are_named(
    tmp_path: Path, scale: tuple, neighbours: int, expected: list[list[int]]
) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    derivation = replace(X2, reach_mm=neighbours * source.spacing_mm[0])
    assert named(source, write_x2(source, tmp_path / "out", scale, derivation)) == expected


def test_thicker_slices_name_all_that_they_cover(tmp_path: Path) -> None:
    make_series(tmp_path / "in", shape=(6, 4, 4))
    source = io.read(tmp_path / "in")
    grid = source.grid.coarsened((3, 1, 1))
    with io.open_writer(tmp_path / "out", grid, dtype=np.int16, source=source, derivation=X2) as writer:
        writer.write(source.hu[1::3])
    assert named(source, load(tmp_path / "out")) == [[0, 1, 2], [3, 4, 5]]


def test_a_result_that_is_its_own_source_names_the_same(tmp_path: Path) -> None:
    """`io.write` has no other source than the volume: fewer slices than headers must not move the headers."""
    make_series(tmp_path / "in", shape=(6, 4, 4), edit=lambda k, ds: setattr(ds, "WindowCenter", str(k)))
    source = io.read(tmp_path / "in")
    thick = source.on_grid(source.grid.coarsened((3, 1, 1)), source.hu[1::3])
    io.write(thick, tmp_path / "out", X2)
    new = load(tmp_path / "out")
    assert named(source, new) == [[0, 1, 2], [3, 4, 5]]
    assert [ds.WindowCenter for ds in new] == [1, 4]  # of the source slice in the middle


def test_what_must_not_be_carried_over(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.add_new(0x00090010, "LO", "ACME PRIVATE")
        ds.add_new(0x00091001, "LO", "secret")
        nested = Item()
        nested.add_new(0x00090010, "LO", "ACME PRIVATE")
        nested.add_new(0x00091001, "LO", "secret")
        nested.ReferencedSOPInstanceUID = "1.2.3"
        ds.ReferencedImageSequence = [nested]
        ds.add_new(0x60003000, "OW", b"\1\2")
        ds.IconImageSequence = [Item()]
        ds.add_new("LargestImagePixelValue", "SS", 99)
        ds.InstanceCreationDate = "20200101"

    make_series(tmp_path / "in", edit=edit)
    for ds in write_x2(io.read(tmp_path / "in"), tmp_path / "out"):
        assert "secret" not in str(ds)
        assert 0x60003000 not in ds
        for name in ("IconImageSequence", "LargestImagePixelValue"):
            assert name not in ds
        assert ds.InstanceCreationDate != "20200101"
        assert ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3"


def test_padding_value_means_the_same_hu(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.add_new("PixelPaddingValue", "US", 63536)  # -2000 stored, -3024 HU, as GE writes it

    make_series(tmp_path / "in", edit=edit)
    for ds in write_x2(io.read(tmp_path / "in"), tmp_path / "out"):
        assert ds.PixelPaddingValue + ds.RescaleIntercept == -3024


def test_intercepts_that_differ_lose_nothing(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.RescaleIntercept = str(-1024 + k)

    hu = make_series(tmp_path / "in", edit=edit) + np.arange(5, dtype=np.int16)[:, None, None]
    new = write_x2(io.read(tmp_path / "in"), tmp_path / "out", (1, 1, 1))
    assert {float(ds.RescaleIntercept) for ds in new} == {0.0}
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, hu)


def test_hu_at_the_ends_of_16_bits_are_kept(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    hu = source.hu.copy()
    hu[2, 0, :2] = -32768, 32767  # beyond int16 once the intercept of -1024 is taken off
    new = write_x2(source.on_grid(source.grid, hu), tmp_path / "out", (1, 1, 1))
    assert [float(ds.RescaleIntercept) for ds in new] == [-1024, -1024, 0, -1024, -1024]
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, hu)


def test_hu_beyond_16_bits_are_counted(tmp_path: Path) -> None:
    hu = np.zeros((2, 3, 4), np.float32)
    hu[0, 0, :3] = 40000, -40000, 0.6
    with pytest.warns(UserWarning, match="2 voxels beyond 16 bits were clipped"):
        io.write(Volume(hu, (1, 1, 1)), tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu[0, 0, :3], [32767, -32768, 1])


def test_once_lossy_always_lossy(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    for header in source.meta["dicom"]:
        header.file_meta.TransferSyntaxUID = JPEGLSNearLossless
    assert {ds.LossyImageCompression for ds in write_x2(source, tmp_path / "out")} == {"01"}


def test_without_dicom_source(tmp_path: Path) -> None:
    io.write(Volume(np.ones((3, 4, 5), np.int16), (2, 1, 1)), tmp_path / "a.nii.gz")
    source = io.read(tmp_path / "a.nii.gz")
    first, again = (write_x2(source, tmp_path / name) for name in ("a", "b"))
    assert [ds.SOPInstanceUID for ds in first] == [ds.SOPInstanceUID for ds in again]
    assert len({ds.StudyInstanceUID for ds in first}) == len({ds.FrameOfReferenceUID for ds in first}) == 1
    assert (first[0].PatientName, first[0].PatientID, first[0].Modality) == ("", "", "CT")
    assert "SourceImageSequence" not in first[0]
    changed = Volume(source.hu + np.int16(1), source.spacing_mm, source.origin_mm, source.direction)
    assert write_x2(changed, tmp_path / "c")[0].StudyInstanceUID != first[0].StudyInstanceUID


def test_irregular_source_elements_pass_without_a_word_of_the_patient(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    from pydicom.config import disable_value_validation

    def edit(k, ds):
        with disable_value_validation():
            ds.PatientBirthDate = "1950 or so, " + PATIENT
            ds.StudyDescription = "x" * 80

    with disable_value_validation():
        make_series(tmp_path / "in", edit=edit)
    recwarn.clear()
    [one, *_] = write_x2(io.read(tmp_path / "in"), tmp_path / "out")
    assert [w for w in recwarn if PATIENT in str(w.message)] == []
    assert one.get_item("StudyDescription") is not None


def test_unreadable_source_element_is_left_out_with_a_warning(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    source = io.read(tmp_path / "in")
    tag = Tag("AcquisitionMatrix")
    for header in source.meta["dicom"]:
        header._dict[tag] = RawDataElement(tag, "US", 3, b"abc", 0, False, True)  # three bytes are no 16-bit numbers
    with pytest.warns(UserWarning, match="1 unreadable header elements of the source are left out"):
        new = write_x2(source, tmp_path / "out")
    assert tag not in new[0]


def test_series_description_stays_short_and_keeps_its_suffix(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.SeriesDescription = "a" * 64

    make_series(tmp_path / "in", edit=edit)
    [ds, *_] = write_x2(io.read(tmp_path / "in"), tmp_path / "out")
    assert len(ds.SeriesDescription) == 64
    assert ds.SeriesDescription.endswith(" RESEARCH")


def test_derived_series_beside_its_source_must_be_chosen(tmp_path: Path) -> None:
    make_series(tmp_path / "study" / "in")
    write_x2(io.read(tmp_path / "study" / "in"), tmp_path / "study" / "sr")
    with pytest.raises(UhrctError, match="2 CT series"):
        io.read(tmp_path / "study")
    assert io.read(tmp_path / "study", series="2").shape == (5, 12, 14)


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_pydicom_files(tmp_path: Path, name: str) -> None:
    source = io.read(get_testdata_file(name, download=False))
    write_x2(source, tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, refine(source, (1, 2, 2)).hu)


@settings(max_examples=200, deadline=None)
@given(
    hu=arrays(
        st.sampled_from(["int16", "float32"]),
        st.tuples(st.integers(1, 3), st.integers(1, 3)),
        elements=st.one_of(st.sampled_from([-32768, -1024, 0, 32767]), st.integers(-32768, 32767)),
    ),
    beyond=st.sampled_from([0, 1, 40000]),
    intercept=st.one_of(st.sampled_from([-32768, -1024, 0, 32767]), st.integers(-70000, 70000)),
)
def test_stored_values_give_the_hu_back(hu: np.ndarray, beyond: int, intercept: int) -> None:
    """HU that 16 bits hold come back whatever the source's intercept is; the rest is clipped and counted."""
    if hu.dtype == np.float32:
        hu = np.where(hu < 0, hu - beyond, hu + beyond)
    for out in (None, np.full(hu.shape, 7, np.int16)):
        stored, used, clipped = stored_values(hu, intercept, out)
        assert stored.dtype == np.int16
        assert out is None or np.shares_memory(stored, out)
        got = stored.astype(np.int64) + used
        lost = got != hu
        assert clipped == np.count_nonzero(lost)
        assert hu.dtype == np.float32 or clipped == 0
        np.testing.assert_array_equal(got[lost], np.clip(hu[lost], -32768, 32767))
