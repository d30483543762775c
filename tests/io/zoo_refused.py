"""The malformed half of the zoo: series that must be refused in one line, and words of that line."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ct_files import make_series
from ct_syntaxes import Edit, make_enhanced
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid
from zoo import SHAPE, fields
from zoo_places import as_localizer, dicomdir, place, secondary_capture, zipped

LARGE = (3, 16, 18)


@dataclass
class Refused:
    """What the one line must say (one of `words`), after the path that was read."""

    words: tuple[str, ...]
    path: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)


Case = Callable[[Path], Refused]
CASES: dict[str, Case] = {}
DAMAGED = ("truncated", "damaged", "missing")


def case(name: str, cases: dict[str, Case] = CASES) -> Callable[[Case], Case]:
    def keep(build: Case) -> Case:
        assert name not in cases
        cases[name] = build
        return build

    return keep


def edited(name: str, edit: Edit, *words: str, cases: dict[str, Case] = CASES, **options: Any) -> None:
    def build(folder: Path) -> Refused:
        make_series(folder, shape=SHAPE, edit=edit)
        return Refused(words, options=options)

    case(name, cases)(build)


# --- required attributes missing, one by one


MISSING = {
    "Rows": "header ends too early",
    "Columns": "no images",
    "PixelSpacing": "no usable PixelSpacing",
    "ImageOrientationPatient": "no usable ImageOrientationPatient",
    "ImagePositionPatient": "no usable ImagePositionPatient",
    "RescaleSlope": "not HU",
    "RescaleIntercept": "not HU",
    "Modality": "unknown modality",
    "PhotometricInterpretation": "colour image",
    "BitsAllocated": "0 bits",
    "BitsStored": "0 of 16 bits",
    "PixelRepresentation": "signed",
    "PixelData": "holds no pixel data",
}
for key, said in MISSING.items():
    edited(f"no {key}", fields(**{key: None}), said, *(("damaged", "truncated") if key == "BitsAllocated" else ()))


@case("no transfer syntax")
def _(folder: Path) -> Refused:
    make_series(folder, shape=SHAPE)
    for file in folder.iterdir():
        content = file.read_bytes()
        at = content.index(b"\x02\x00\x10\x00UI")
        length = struct.unpack_from("<H", content, at + 6)[0]
        file.write_bytes(content[:at] + content[at + 8 + length :])
    return Refused(("transfer syntax missing",))


# --- values of the wrong kind


def patched(name: str, key: str, vr: str, value: bytes, *words: str) -> None:
    """An element replaced byte by byte in every file, as no library would write it."""

    @case(name)
    def _(folder: Path) -> Refused:
        make_series(folder, shape=SHAPE)
        tag = struct.pack("<HH", tag_for_keyword(key) >> 16, tag_for_keyword(key) & 0xFFFF)
        long = vr in ("SQ", "OB", "UN")
        size = b"\0\0" + struct.pack("<I", len(value)) if long else struct.pack("<H", len(value))
        for file in folder.iterdir():
            content = file.read_bytes()
            at = content.index(tag + dictionary_VR(key).encode())
            end = at + 8 + struct.unpack_from("<H", content, at + 6)[0]
            file.write_bytes(content[:at] + tag + vr.encode() + size + value + content[end:])
        return Refused(words)


patched("Rows as text", "Rows", "LO", b"many", "damaged DICOM header")
patched("Rows of one byte", "Rows", "US", b"\x06", "damaged DICOM header")
patched("two values of Rows", "Rows", "US", b"\6\0\7\0", "damaged DICOM header")
patched("Columns as sequence", "Columns", "SQ", b"", "damaged", "no pixels", "no images")
patched("PixelSpacing as words", "PixelSpacing", "DS", b"wide\\high ", "damaged DICOM header", "PixelSpacing")
patched("PixelSpacing of one value", "PixelSpacing", "DS", b"0.7 ", "no usable PixelSpacing")
patched("PixelSpacing infinite", "PixelSpacing", "DS", b"inf\\0.7 ", "no usable PixelSpacing")
patched("PixelSpacing zero", "PixelSpacing", "DS", b"0\\0.7 ", "not positive")
patched("positions not numbers", "ImagePositionPatient", "DS", b"nan\\nan\\nan ", "no usable ImagePositionPatient")
patched("positions huge", "ImagePositionPatient", "DS", b"0\\0\\1e999 ", "no usable ImagePositionPatient")
patched("positions of 2 values", "ImagePositionPatient", "DS", b"0\\1 ", "no usable ImagePositionPatient")
edited("orientation skewed", fields(ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0]), "not orthonormal")
edited("orientation zero", fields(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "not orthonormal")
edited("slope zero", fields(RescaleSlope="0"), "not HU")
patched("slope a word", "RescaleSlope", "DS", b"one ", "damaged DICOM header", "not HU")
patched("slope NaN", "RescaleSlope", "DS", b"nan ", "not HU")
patched("intercept infinite", "RescaleIntercept", "DS", b"inf ", "not HU")
edited("iodine map", fields(RescaleType="MGML"), "holds MGML, not HU")
edited("HighBit 3", fields(HighBit=3), "HighBit 3")
edited("12 bits allocated", fields(BitsAllocated=12), "16 of 12 bits", "damaged")
edited("64 bits allocated", fields(BitsAllocated=64), "of 64 bits")
edited("20 of 16 bits stored", fields(BitsStored=20), "20 of 16 bits")
edited("PixelRepresentation 7", fields(PixelRepresentation=7), "signed")
edited("MR", fields(Modality="MR"), "is MR, not CT")
edited("colour", fields(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour image (RGB)")
edited(
    "unknown transfer syntax", lambda k, ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.3.4"), "cannot be decoded"
)
edited("frames in a classic file", fields(NumberOfFrames=2), "several frames")

# --- place in the patient


def moved(**steps: Callable[[int], float]) -> Edit:
    still: Callable[[int], float] = lambda k: 0.0  # noqa: E731
    depth, down = steps.get("depth", lambda k: 2.5 * k), steps.get("down", still)
    return lambda k, ds: setattr(ds, "ImagePositionPatient", place(depth(k), down(k)))


edited("gantry tilt", moved(down=lambda k: 0.8 * k), "`untilt=True`")
edited("slices sideways", moved(down=lambda k: 3.0 * (k % 2)), "without a common angle")
edited("slices sideways, untilt", moved(down=lambda k: 3.0 * (k % 2)), "without a common angle", untilt=True)
edited("uneven", moved(depth=lambda k: 2.5 * k + k * k), "uneven slice spacing")
edited("a slice twice, moved", moved(depth=lambda k: 2.5 * max(k, 1)), "duplicate slices")
edited(
    "a plane of its own",
    lambda k, ds: k != 2 or setattr(ds, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
    "mixed orientations",
)
edited("a pixel size of its own", lambda k, ds: k != 2 or setattr(ds, "PixelSpacing", [1, 1]), "mixed pixel spacing")


@case("missing slices")
def _(folder: Path) -> Refused:
    make_series(folder, shape=(8, 4, 4), edit=lambda k, ds: k not in (3, 4))
    return Refused(("missing slices: 2, first between 25.00 and 32.50 mm",))


@case("copies that differ")
def _(folder: Path) -> Refused:
    make_series(folder / "a", shape=SHAPE)
    make_series(folder / "b", shape=SHAPE, edit=lambda k, ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))))
    return Refused(("carry the same SOPInstanceUID but differ",))


@case("copies of which one is cut")
def _(folder: Path) -> Refused:
    make_series(folder / "a", shape=LARGE)
    make_series(folder / "b", shape=LARGE)
    file = folder / "b" / "002.dcm"
    file.write_bytes(file.read_bytes()[:-200])
    return Refused(("carry the same SOPInstanceUID but differ",))


@case("two phases and no choice")
def _(folder: Path) -> Refused:
    for phase in (1, 2):

        def edit(k: int, ds: Dataset, phase: int = phase) -> None:
            ds.SOPInstanceUID, ds.AcquisitionNumber = generate_uid(entropy_srcs=[f"{phase} {k}"]), phase

        make_series(folder / str(phase), shape=SHAPE, edit=edit)
    return Refused(("2 CT series; choose one by `series=NUMBER-or-UID`: 1: CHEST 3, acquisition 1",))


@case("localizer alone")
def _(folder: Path) -> Refused:
    make_series(folder, shape=SHAPE, edit=as_localizer)
    return Refused(("localizer",))


@case("dose page alone")
def _(folder: Path) -> Refused:
    secondary_capture(folder / "dose.dcm", ImageType=["DERIVED", "SECONDARY", "DOSE_INFO"])
    return Refused(("not HU",))


@case("structured report alone")
def _(folder: Path) -> Refused:
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), folder / "sr.dcm")
    return Refused(("no images (SR)",))


@case("no such series")
def _(folder: Path) -> Refused:
    make_series(folder, shape=SHAPE)
    return Refused(("no series 2 here",), options={"series": "2"})


# --- Enhanced


def enhanced(name: str, whole: Callable[[Dataset], object], *words: str) -> None:
    @case(f"Enhanced, {name}")
    def _(folder: Path) -> Refused:
        make_enhanced(folder / "a.dcm", whole=whole)
        return Refused(words)


def without(key: str, frame: int) -> Callable[[Dataset], object]:
    return lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[frame], key)


enhanced(
    "a frame described too few", lambda ds: ds.PerFrameFunctionalGroupsSequence.pop(), "states 4 frames but describes 3"
)
enhanced("no functional groups", lambda ds: delattr(ds, "PerFrameFunctionalGroupsSequence"), "but describes 0")
enhanced(
    "a frame without place", without("PlanePositionSequence", 1), "a.dcm frame 2 has no usable ImagePositionPatient"
)
enhanced(
    "a frame without slope", without("PixelValueTransformationSequence", 2), "a.dcm frame 3 has no usable RescaleSlope"
)
enhanced(
    "no pixel measures",
    lambda ds: delattr(ds.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"),
    "no usable PixelSpacing",
)
enhanced("groups as text", lambda ds: ds.add_new("PerFrameFunctionalGroupsSequence", "LO", "four"), *DAMAGED)
enhanced("no pixels", lambda ds: delattr(ds, "PixelData"), "holds no pixel data")


@case("Enhanced, a compressed frame missing")
def _(folder: Path) -> Refused:
    def drop(ds: Dataset) -> None:
        from pydicom.encaps import generate_frames

        ds.PixelData = encapsulate(list(generate_frames(ds.PixelData, number_of_frames=3))[:2])

    make_enhanced(folder / "a.dcm", shape=LARGE, syntax="jpeg-ls", whole=drop)
    return Refused(DAMAGED)


# --- where the files lie


@case("empty folder")
def _(folder: Path) -> Refused:
    return Refused(("folder is empty",))


@case("texts only")
def _(folder: Path) -> Refused:
    (folder / "a.txt").write_text("hello")
    return Refused(("no DICOM among 1 files",))


@case("text called .dcm, with a line break in its name")
def _(folder: Path) -> Refused:
    (folder / "a\nb.dcm").write_text("hello " * 100)
    return Refused(("a?b.dcm is not a DICOM file",))


@case("a path of six thousand letters")
def _(folder: Path) -> Refused:
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    return Refused(("cannot be read", "no DICOM", "is empty"))


@case("a pipe called .dcm")
def _(folder: Path) -> Refused:
    os.mkfifo(folder / "a.dcm")
    return Refused(("a.dcm is a pipe or a device",))


@case("a pipe instead of a file")
def _(folder: Path) -> Refused:
    os.mkfifo(folder / "a.dcm")
    return Refused(("neither a file nor a folder",), path=folder / "a.dcm")


@case("a link in a circle called .dcm")
def _(folder: Path) -> Refused:
    (folder / "a.dcm").symlink_to(folder / "a.dcm")
    return Refused(("a.dcm cannot be read",))


@case("a link in a circle")
def _(folder: Path) -> Refused:
    (folder / "a").symlink_to(folder / "a")
    return Refused(("cannot be read",), path=folder / "a")


def broken_zip(name: str, change: Callable[[bytes], bytes], *words: str) -> None:
    @case(f"zip, {name}")
    def _(folder: Path) -> Refused:
        make_series(folder / "in", shape=LARGE)
        path = zipped(folder)
        path.write_bytes(change(path.read_bytes()))
        return Refused(words, path=path)


def encrypted(content: bytes) -> bytes:
    """Set the flag of encryption in every local header and directory entry."""
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = content.split(marker)
        rest = [p[: offset - 4] + bytes([p[offset - 4] | 1]) + p[offset - 3 :] for p in parts[1:]]
        content = marker.join([parts[0], *rest])
    return content


broken_zip("0 bytes", lambda content: b"", "is not a zip file, or is damaged")
broken_zip("cut", lambda content: content[: len(content) // 2], "is not a zip file, or is damaged")
broken_zip("encrypted", encrypted, "cannot be unpacked")
broken_zip(
    "bits flipped", lambda c: c[:700] + bytes(b ^ 0xFF for b in c[700:1500]) + c[1500:], "cannot be unpacked", *DAMAGED
)


@case("zip without DICOM")
def _(folder: Path) -> Refused:
    (folder / "in").mkdir()
    return Refused(("no DICOM among 1 files",), path=zipped(folder))


@case("DICOMDIR of files that are not there")
def _(folder: Path) -> Refused:
    make_series(folder / "DICOM", shape=SHAPE, name="IM{:d}")
    path = dicomdir(folder)
    (folder / "DICOM" / "IM2").unlink()
    return Refused(("lists 1 missing files, first DICOM/IM2",), path=path)


@case("DICOMDIR that leads out of its folder")
def _(folder: Path) -> Refused:
    (folder / "disc").mkdir()
    make_series(folder / "disc" / "DICOM", shape=SHAPE, name="IM{:d}")
    return Refused(("missing files",), path=dicomdir(folder / "disc", lambda name: ".."))


@case("DICOMDIR of nothing")
def _(folder: Path) -> Refused:
    (folder / "DICOM").mkdir()
    return Refused(("no images",), path=dicomdir(folder))


def emptied(name: str, reference: list[str] | str | None) -> None:
    """A DICOMDIR whose second record names no file: a slice would be lost without a word."""

    @case(name)
    def _(folder: Path) -> Refused:
        make_series(folder / "DICOM", shape=SHAPE, name="IM{:d}")
        path = dicomdir(folder)
        listing = dcmread(path)
        listing.DirectoryRecordSequence[1].ReferencedFileID = reference
        listing.save_as(path)
        return Refused(("lists 1 images without the name of a file",), path=path)


emptied("DICOMDIR with an empty reference", None)
emptied("DICOMDIR with a reference of empty parts", ["", ""])


@case("DICOMDIR with a record without reference")
def _(folder: Path) -> Refused:
    make_series(folder / "DICOM", shape=SHAPE, name="IM{:d}")
    path = dicomdir(folder)
    listing = dcmread(path)
    del listing.DirectoryRecordSequence[1].ReferencedFileID
    listing.save_as(path)
    return Refused(("lists 1 images without the name of a file",), path=path)


# --- impossible scaling


for slope, intercept in (("1e-310", "-1024"), ("1e-30", "0"), ("1e30", "0"), ("1", "1e300")):
    edited(
        f"slope {slope}, intercept {intercept}",
        fields(RescaleSlope=slope, RescaleIntercept=intercept),
        "cannot give HU",
        "no usable RescaleSlope",
    )
