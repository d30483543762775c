"""The zoo's odd places: oblique planes, phases, other files beside the scan, trees, links, zips and DICOMDIRs."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ct_files import make_series, oblique
from ct_syntaxes import make_enhanced
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from zoo import AXIAL, CASES, SHAPE, Right, case, fields, per_slice, rescaled

# --- place in the patient


@case("non-square pixels")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=SHAPE, edit=fields(PixelSpacing=[0.5, 1.75]))
    return Right(hu, spacing_mm=(2.5, 0.5, 1.75))


for seed in range(4):
    CASES[f"oblique {seed}"] = lambda folder, seed=seed: Right(
        make_series(folder, shape=SHAPE, direction=oblique(seed), name="{:d}"), direction=oblique(seed)
    )


@case("head first")
def _(folder: Path) -> Right:
    direction = AXIAL @ np.diag([-1, -1, 1])
    return Right(make_series(folder, shape=SHAPE, direction=direction), direction=direction)


@case("one slice")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=(1, 9, 2))
    return Right(hu, spacing_mm=(3.0, 0.8, 0.7))


@case("two slices of one pixel")
def _(folder: Path) -> Right:
    return Right(make_series(folder, shape=(2, 1, 1)))


@case("positions rounded to 0.1 mm")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=(9, 4, 4), edit=lambda k, ds: setattr(ds, "ImagePositionPatient", place(k * 0.625)))
    return Right(hu, spacing_mm=(0.625, 0.8, 0.7))


def place(depth: float, down: float = 0.0) -> list[float]:
    return [-100, -50 + down, round(20 + depth, 1)]


@case("gantry tilt, untilted")
def _(folder: Path) -> Right:
    # one pixel further down with every slice: a shift by whole pixels moves values and changes none
    hu = make_series(
        folder, shape=SHAPE, edit=lambda k, ds: setattr(ds, "ImagePositionPatient", place(2.5 * k, 0.8 * k))
    )
    upright = np.full((4, 9, 7), -1024, np.int16)
    for k in range(4):
        upright[k, k : k + 6] = hu[k]
    return Right(upright, options={"untilt": True})


@case("untilt of an upright scan")
def _(folder: Path) -> Right:
    return Right(make_series(folder, shape=SHAPE), options={"untilt": True})


# --- what else lies in the folder


def secondary_capture(file: Path, **values: Any) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[file.name])
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.Modality = generate_uid(entropy_srcs=["dose"]), 999, "CT"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 4, 4, 8, 8, 7
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.PixelData = bytes(16)
    for key, value in values.items():
        setattr(ds, key, value)
    ds.save_as(file, enforce_file_format=True)


@case("dose report, captured screen and structured report beside the scan")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=SHAPE)
    secondary_capture(folder / "dose.dcm", ImageType=["DERIVED", "SECONDARY", "DOSE_INFO"])
    secondary_capture(folder / "screen.dcm", SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.3.4")
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), folder / "sr.dcm")
    return Right(hu)


def as_localizer(k: int, ds: Dataset) -> object:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["scout"])
    return k == 0


@case("localizer in the series")
def _(folder: Path) -> Right:
    make_series(folder / "scout", shape=SHAPE, edit=as_localizer)
    return Right(make_series(folder / "scan", shape=SHAPE))


@case("localizer series beside")
def _(folder: Path) -> Right:
    make_series(folder / "scout", shape=SHAPE, number=1, seed=1, edit=as_localizer)
    return Right(make_series(folder / "scan", shape=SHAPE))


@case("identical copies")
def _(folder: Path) -> Right:
    hu = make_series(folder / "a", shape=SHAPE)
    shutil.copytree(folder / "a", folder / "b")
    return Right(hu)


@case("identical copies, re-encoded")
def _(folder: Path) -> Right:
    hu = make_series(folder / "a", shape=SHAPE)
    (folder / "b").mkdir()
    for file in (folder / "a").iterdir():
        ds = dcmread(file)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.save_as(folder / "b" / file.name, implicit_vr=True, little_endian=True)
    return Right(hu)


@case("other files")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=SHAPE, name="IM{:d}")
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "empty").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(bytes(range(256)) * 8)
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "._1.dcm").write_bytes(b"resource fork")
    return Right(hu)


for number in (1, 2):
    CASES[f"series {number} of 2"] = lambda folder, number=number: [
        Right(make_series(folder / str(n), shape=SHAPE, number=n, seed=n), options={"series": str(number)})
        for n in (1, 2)
    ][number - 1]

# --- phases and reconstructions under one SeriesInstanceUID


def phase_case(name: str, **keys: list[Any]) -> None:
    """Two volumes at the same places in one series, told apart by attributes, one list of two values each."""

    def build(folder: Path) -> Right:
        for phase in (0, 1):

            def edit(k: int, ds: Dataset, phase: int = phase) -> None:
                ds.SOPInstanceUID = generate_uid(entropy_srcs=[f"{phase} {k}"])
                for key, values in keys.items():
                    value = values[phase]
                    setattr(ds, key, value(k) if callable(value) else value)
                if phase:
                    ds.PixelData = bytes(len(ds.PixelData))

            hu = make_series(folder / str(phase), shape=SHAPE, edit=edit)
        return Right(np.full_like(hu, -1024), options={"series": "2"})

    CASES[f"second phase by {name}"] = build


phase_case("TemporalPositionIdentifier", TemporalPositionIdentifier=[1, 2])
phase_case("AcquisitionNumber", AcquisitionNumber=[9, 10])
phase_case("TriggerTime", TriggerTime=["0", "450.5"])
phase_case("NominalPercentageOfCardiacPhase", NominalPercentageOfCardiacPhase=[35.0, 75.0])
phase_case("AcquisitionTime", AcquisitionTime=["101500.10", "101512.00"])
phase_case("times of each slice", AcquisitionTime=[lambda k: f"10150{2 * k}", lambda k: f"10150{2 * k + 1}"])
phase_case("kernel", ConvolutionKernel=["B30f", "B70f"])


@case("second phase in an Enhanced file")
def _(folder: Path) -> Right:
    for phase in (1, 2):

        def edit(k: int, ds: Dataset, phase: int = phase) -> None:
            ds.TemporalPositionIdentifier = phase
            if phase == 2:
                ds.PixelData = bytes(len(ds.PixelData))

        hu = make_enhanced(folder / f"{phase}.dcm", edit=edit)
    return Right(np.full_like(hu, -1024), options={"series": "2"})


@case("two reconstructions, one between the slices of the other")
def _(folder: Path) -> Right:
    for part in (1, 2):

        def edit(k: int, ds: Dataset, part: int = part) -> None:
            ds.SOPInstanceUID = generate_uid(entropy_srcs=[f"{part} {k}"])
            ds.AcquisitionNumber, ds.ImagePositionPatient = part, place(2.5 * k + 0.8 * (part - 1))

        hu = make_series(folder / str(part), shape=SHAPE, edit=edit)
    return Right(hu, options={"series": "2"}, origin_mm=(-100, -50, 20.8))


# --- Enhanced


CASES["Enhanced, frames shuffled"] = lambda folder: Right(make_enhanced(folder / "a.dcm", order=[2, 0, 3, 1]))
CASES["Enhanced, one frame"] = lambda folder: Right(
    make_enhanced(folder / "a.dcm", shape=(1, 6, 7)), spacing_mm=(3.0, 0.8, 0.7)
)
CASES["Enhanced, slope per frame"] = lambda folder: Right(rescaled(make_enhanced(folder / "a.dcm", edit=per_slice)))


@case("Enhanced in two files")
def _(folder: Path) -> Right:
    make_enhanced(folder / "a.dcm", order=[0, 1])
    return Right(make_enhanced(folder / "b.dcm", order=[2, 3], syntax="jpeg-ls"))


# --- where the files lie


@case("spaces, umlauts and other alphabets")
def _(folder: Path) -> Right:
    inner = folder / "Thorax mit KM" / "größe Ø" / "胸部" / "a\nb"
    return Right(make_series(inner, shape=SHAPE, name="Bild № {:d}.DCM"))


@case("a name that is no text")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=SHAPE)
    os.rename(folder / "001.dcm", os.fsencode(folder) + b"/\xff\xfe.dcm")
    return Right(hu)


@case("eighty folders deep")
def _(folder: Path) -> Right:
    return Right(make_series(folder.joinpath(*["d"] * 80), shape=SHAPE))


@case("links in a circle")
def _(folder: Path) -> Right:
    hu = make_series(folder / "scan", shape=SHAPE)
    (folder / "scan" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "again").symlink_to(folder / "scan", target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    (folder / "nowhere").symlink_to(folder / "missing")
    return Right(hu)


@case("linked files and folders")
def _(folder: Path) -> Right:
    hu = make_series(folder / "annex" / "objects", shape=SHAPE)
    (folder / "scan").mkdir()
    for file in sorted((folder / "annex" / "objects").iterdir()):
        (folder / "scan" / file.name).symlink_to(file)
    (folder / "link").symlink_to(folder / "scan", target_is_directory=True)
    return Right(hu, path=folder / "link")


def zipped(folder: Path, method: int = zipfile.ZIP_DEFLATED, inside: str = "") -> Path:
    with zipfile.ZipFile(folder / "scan.ZIP", "w", method) as archive:
        archive.writestr(inside + "readme.txt", "a scan")
        archive.writestr("__MACOSX/._001.dcm", "resource fork")
        for file in sorted((folder / "in").rglob("*.dcm")):
            archive.write(file, inside + str(file.relative_to(folder / "in")))
    return folder / "scan.ZIP"


for name, method in {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA}.items():
    CASES[f"zip, {name}"] = lambda folder, method=method: Right(
        make_series(folder / "in" / "größe", shape=SHAPE), path=zipped(folder, method, "Jörg 胸部/")
    )
CASES["zip of Enhanced in JPEG-LS"] = lambda folder: Right(
    make_enhanced(folder / "in" / "a.dcm", syntax="jpeg-ls"), path=zipped(folder)
)


def dicomdir(folder: Path, change: Callable[[str], str] = lambda name: name) -> Path:
    """A DICOMDIR over `folder`/DICOM: patient, study and series records are not needed by any reader of images."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["dicomdir"])
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    records = []
    for file in sorted((folder / "DICOM").iterdir()):
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["DICOM", change(file.name)]
        records.append(record)
    ds.FileSetID, ds.DirectoryRecordSequence = "DISC", Sequence(records)
    ds.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


@case("DICOMDIR")
def _(folder: Path) -> Right:
    hu = make_series(folder / "DICOM", shape=SHAPE, name="IM{:d}")
    make_series(folder / "not listed", shape=SHAPE, seed=5)
    return Right(hu, path=dicomdir(folder))


@case("DICOMDIR in capitals, files not")
def _(folder: Path) -> Right:
    hu = make_series(folder / "DICOM", shape=SHAPE, name="im{:d}")
    return Right(hu, path=dicomdir(folder, str.upper))


@case("folder with DICOMDIR")
def _(folder: Path) -> Right:
    hu = make_series(folder / "DICOM", shape=SHAPE, name="IM{:d}")
    return Right(hu, path=dicomdir(folder).parent)


@case("no preamble")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=SHAPE)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    return Right(hu)


@case("no preamble and no file meta information")
def _(folder: Path) -> Right:
    hu = make_series(folder, shape=SHAPE)
    for file in folder.iterdir():
        ds = dcmread(file)
        ds.preamble, ds.file_meta = None, FileMetaDataset()
        ds.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return Right(hu)
