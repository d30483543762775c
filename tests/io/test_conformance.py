"""No error in what we write that was not in the source: each real series, each kind of output."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import contradictions, errors, program
from ct_files import make_series, oblique
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file
from standard import complaints

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.io import Derivation, DicomOptions, Segment

X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0", suffix="x2")
REAL = (
    *("test/lidc0314", "train/cmbcrc01068", "train/lidc0001", "train/lidc0002", "train/lidc0003", "train/phantomfda"),
    "validation/rider0117",
)


def refined(source: Volume, scale: tuple[int, int, int] = (1, 2, 2)) -> Volume:
    hu = source.hu.repeat(scale[0], 0).repeat(scale[1], 1).repeat(scale[2], 2)
    return source.on_grid(source.refined_grid(scale), hu)


def derive(source: Volume, out: Path, scale: tuple[int, int, int] = (1, 2, 2), **options: Any) -> list[Path]:
    fine = refined(source, scale)
    with io.open_writer(
        out, fine.grid, dtype=fine.hu.dtype, source=source, derivation=X2, dicom=DicomOptions(**options)
    ) as writer:
        writer.write(fine.hu)
    return files_of(out)


def files_of(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def everything(source: Volume, out: Path, **options: Any) -> list[Path]:
    """An image, both maps and a mask of one run."""
    grid = source.refined_grid((1, 2, 2))
    dicom = DicomOptions(**options)
    made = derive(source, out / "image", **options)
    for quantity in ("structure", "spread"):
        path = out / f"{quantity}.dcm"
        with io.open_map_writer(path, grid, quantity, source=source, derivation=X2, dicom=dicom) as writer:
            writer.write(np.full(grid.shape, 0.25, np.float32))
        made.append(path)
    mask = np.zeros(grid.shape, np.uint8)
    mask[:, ::2] = 1
    vessels = Segment("vessels", kind=("59820001", "SCT", "Blood vessel"))
    io.write_segmentation(mask, grid, out / "seg.dcm", [vessels], source=source, derivation=X2, dicom=dicom)
    return [*made, out / "seg.dcm"]


def two_slices(series: Path, folder: Path) -> list[Path]:
    """Copy two neighbouring slices of a series into a new folder; their original files."""
    chosen = sorted(series.glob("*.dcm"))[40:42]
    folder.mkdir()
    for file in chosen:
        shutil.copy(file, folder)
    return chosen


@pytest.mark.parametrize("series", REAL)
def test_real_series(tmp_path: Path, shared_ct: Path, series: str) -> None:
    pytest.importorskip("highdicom")
    old = two_slices(shared_ct / series, tmp_path / "in")
    source = io.read(tmp_path / "in")
    new = everything(source, tmp_path)
    known = errors(old)
    assert errors(new) <= known
    assert contradictions([*old, *new]) <= contradictions(old)
    assert errors(derive(source, tmp_path / "between", (2, 1, 1))) <= known
    assert errors(derive(source, tmp_path / "jpegls", transfer_syntax="jpegls")) <= known


@pytest.mark.parametrize("options", [{}, {"transfer_syntax": "jpegls"}, {"transfer_syntax": "htj2k"}])
@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_single_slices_of_pydicom(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    if options.get("transfer_syntax") == "htj2k":
        pytest.importorskip("imagecodecs")
    file = Path(get_testdata_file(name, download=False))
    new = derive(io.read(file), tmp_path / "out.dcm", **options)
    assert errors(new) <= errors([file])
    assert contradictions([file, *new]) <= contradictions([file])


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "a.mha"])
def test_other_formats_become_valid_dicom(tmp_path: Path, name: str, dtype: type) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (3, 9, 8)).astype(dtype)
    io.write(Volume(hu, (2.0, 0.7, 0.7), direction=oblique(1)), tmp_path / name)
    source = io.read(tmp_path / name)
    new = everything(source, tmp_path)
    assert errors(new) == set()
    assert contradictions(new) == set()


def new_contradictions(new: list[Path], old: list[Path]) -> set[str]:
    """Contradictions that the sources do not have. Anonymous sources, which references name, are in no file."""
    return {line for line in contradictions(new) if "Missing SOPInstanceUID" not in line} - contradictions(old)


def test_anonymous_outputs(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    file = Path(get_testdata_file("CT_small.dcm", download=False))
    new = everything(io.read(file), tmp_path, anonymize=True, anonymize_key="a long secret of one site")
    assert errors(new) <= errors([file])
    assert new_contradictions(new, [file]) == set()


@pytest.mark.parametrize("series", REAL)
def test_anonymous_outputs_of_real_series(tmp_path: Path, shared_ct: Path, series: str) -> None:
    pytest.importorskip("highdicom")
    old = two_slices(shared_ct / series, tmp_path / "in")
    new = everything(io.read(tmp_path / "in"), tmp_path, anonymize=True, anonymize_key="a long secret of one site")
    assert errors(new) <= errors(old)
    assert new_contradictions(new, old) == set()
    for file in new:
        was, now = dcmread(old[0]), dcmread(file)
        assert str(was.PatientID).encode() not in file.read_bytes()
        assert now.StudyInstanceUID != was.StudyInstanceUID


def test_private_elements(tmp_path: Path) -> None:
    file = Path(get_testdata_file("CT_small.dcm", download=False))
    new = derive(io.read(file), tmp_path / "out.dcm", keep_private=True)
    assert any(element.is_private for element in dcmread(new[0]))
    assert errors(new) <= errors([file])


def test_the_checkers_find_what_is_wrong(tmp_path: Path) -> None:
    """A checker that can't fail would make all of the above worthless."""
    make_series(tmp_path / "in", shape=(2, 8, 8))
    new = derive(io.read(tmp_path / "in"), tmp_path / "out")
    good, clash = errors(new), contradictions(new)
    ds = dcmread(new[0])
    del ds.RescaleSlope
    ds.ImageType = ["DERIVED"]
    ds.PatientName = "OTHER^PERSON"
    ds.save_as(new[0])
    assert len(errors(new) - good) >= 2
    assert contradictions(new) - clash
    assert program("dciodvfy")


def no_slope(ds: Dataset) -> None:
    del ds.RescaleSlope


def no_unit(ds: Dataset) -> None:
    ds.MultienergyCTAcquisition = "YES"
    del ds.RescaleType


def no_meaning(ds: Dataset) -> None:
    del ds.DerivationCodeSequence[0].CodeMeaning


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (no_slope, "(0028,1053) RescaleSlope: TagMissing"),
        (lambda ds: setattr(ds, "RescaleIntercept", None), "(0028,1052) RescaleIntercept: TagEmpty"),
        (lambda ds: setattr(ds, "EchoTime", "3"), "(0018,0081) EchoTime: TagUnexpected"),
        (lambda ds: setattr(ds, "Laterality", "X"), "(0020,0060) Laterality: EnumValueNotAllowed"),
        (lambda ds: setattr(ds, "PatientBirthDate", "today"), "(0010,0030) PatientBirthDate: InvalidValue"),
        (no_unit, "(0028,1054) RescaleType: TagMissing"),
        (no_meaning, "(0008,9215) / (0008,0104) CodeMeaning: TagMissing"),
    ],
)
def test_dicom_validator_finds_what_is_wrong(
    tmp_path: Path, damage: Callable[[Dataset], object], complaint: str
) -> None:
    """Its rules are put together here: each kind of rule must have arrived, conditions and listed values too."""
    [file] = derive(io.read(get_testdata_file("CT_small.dcm", download=False)), tmp_path / "out")
    assert complaints([file]) == set()
    ds = dcmread(file)
    with disable_value_validation():
        damage(ds)
        ds.save_as(file)
    assert complaint in complaints([file])
