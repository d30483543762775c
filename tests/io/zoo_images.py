"""NIfTI, NRRD and MetaImage files that must be read right: header fields crossed with types, orders and packings."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from image_files import (
    DIRECTIONS,
    HU,
    META_TYPES,
    NIFTI_TYPES,
    NRRD_TYPES,
    ORIGIN,
    SPACING,
    Case,
    Right,
    metaimage,
    nifti,
    nrrd,
    put,
    quaternion,
)

CASES: dict[str, Case] = {}


def add(name: str, row: str, build: Callable[[Path], Right], *judges: str) -> None:
    assert name not in CASES, name
    CASES[name] = Case(row, build, judges)


def values(code: str) -> np.ndarray:
    """Voxels that fit the type; with fractions for floats, and values beyond int16 for wide types."""
    numbers = HU.astype(np.int64) if code[0] != "u" else HU.astype(np.int64) + 1024
    if code[1] == "1":
        numbers = numbers % 100
    if code in ("u2", "i4", "u4", "i8", "u8"):
        numbers = numbers * 15
    return (numbers * 0.25 if code[0] == "f" else numbers).astype(code)


# --- NIfTI


def nifti_case(name: str, row: str, suffix: str = ".nii", right: Any = None, **fields: Any) -> None:
    # SimpleITK reads no NIfTI-2, and adds the intercept although slope 0 means no scaling
    only_nibabel = fields.get("version") == 2 or (fields.get("scl_slope") == 0 and fields["scl_inter"] != 0)
    judges = ("nibabel",) if only_nibabel else ("nibabel", "SimpleITK")
    right = right or {}
    add(f"NIfTI {name}", row, lambda folder: Right(put(folder / f"a{suffix}", nifti(**fields)), **right), *judges)


for version, order, suffix, code in itertools.product((1, 2), "<>", (".nii", ".nii.gz"), NIFTI_TYPES):
    name = f"{version} {'little' if order == '<' else 'big'} {code} {suffix}"
    nifti_case(
        name, "datatype, bitpix", suffix, {"hu": values(code)}, version=version, order=order, values=values(code)
    )

for version, form, (where, matrix) in itertools.product((1, 2), ("sform", "qform", "both"), DIRECTIONS.items()):
    for unit, unit_mm in ((0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)):
        nifti_case(
            f"{version} {form} {where} unit {unit}",
            "xyzt_units" if unit != 2 else "qform_code, sform_code, quatern, qoffset, srow",
            right={"direction": matrix},
            **{"version": version, "form": form, "direction": matrix, "unit_mm": unit_mm, "xyzt_units": unit},
        )

for seconds in (8, 16, 24, 32):
    nifti_case(f"mm and time unit {seconds}", "xyzt_units", xyzt_units=2 | seconds)

for slope, intercept in ((0, -1024), (0, 0), (1, -1024), (2, -1000), (0.5, -24.25), (-1, 100), (np.nan, np.nan)):
    for version, code, suffix in itertools.product((1, 2), ("i2", "u1", "f4"), (".nii", ".nii.gz")):
        scaled = values(code) if slope == 0 or slope != slope else values(code) * float(slope) + intercept
        nifti_case(
            f"{version} slope {slope} intercept {intercept} {code} {suffix}",
            "scl_slope, scl_inter",
            suffix,
            {"hu": scaled},
            **{"version": version, "values": values(code), "scl_slope": slope, "scl_inter": intercept},
        )

for offset in (352, 368, 400, 1024):
    for suffix in (".nii", ".nii.gz"):
        nifti_case(f"voxels at {offset} {suffix}", "vox_offset", suffix, vox_offset=offset)
for dimensions in (4, 5, 7):
    nifti_case(f"{dimensions} dimensions, one long", "dim", dim=(dimensions, 5, 4, 3, 1, 1, 1, 1))
for qfac in (0.0, 1.0):
    nifti_case(f"qfac {qfac}", "pixdim[0]", form="qform", pixdim=(qfac, *SPACING, 0, 0, 0, 0))
for intent in (0, 1001, 1002):
    nifti_case(f"intent {intent}", "intent_code", intent_code=intent)
for code in range(1, 6):
    nifti_case(f"both codes {code}", "qform_code, sform_code, quatern, qoffset, srow", qform_code=code, sform_code=code)
# SimpleITK takes the spacing from pixdim
add(
    "NIfTI pixdim rounded",
    "pixdim",
    lambda folder: Right(put(folder / "a.nii", nifti(form="sform", pixdim=(1, 0.4999, 0.7501, 2.001, 0, 0, 0, 0)))),
    "nibabel",
)
turn = np.array([[np.cos(3e-4), -np.sin(3e-4), 0], [np.sin(3e-4), np.cos(3e-4), 0], [0, 0, 1]])
nifti_case(
    "qform rounded", "qform_code, sform_code, quatern, qoffset, srow", quatern=quaternion(np.diag([-1, -1, 1]) @ turn)
)
nifti_case("display window and notes", "cal_min, cal_max, toffset, descrip", cal_max=(9, 1), toffset=5, descrip=b"\x1b")
add(
    "NIfTI gzip in three members",
    "(gzip)",
    lambda folder: Right(_bytes(folder / "a.nii.gz", b"".join(gzip.compress(part) for part in _thirds(nifti())))),
    *("nibabel", "SimpleITK"),
)
add(
    "NIfTI gzip with zeros behind",
    "(gzip)",
    lambda folder: Right(_bytes(folder / "a.nii.gz", gzip.compress(nifti()) + bytes(512))),
    *("nibabel", "SimpleITK"),
)


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _thirds(content: bytes) -> list[bytes]:
    return [content[:300], content[300:400], content[400:]]


# --- NRRD


def nrrd_case(name: str, row: str, *judges: str, right: Any = None, **fields: Any) -> None:
    right = right or {}
    judges = judges or ("pynrrd", "SimpleITK")
    add(f"NRRD {name}", row, lambda folder: Right(put(folder / "a.nrrd", nrrd(**fields)), **right), *judges)


for code, order, encoding in itertools.product(NRRD_TYPES, "<>", ("raw", "gzip", "gz", "bzip2", "bz2")):
    # SimpleITK is built without bzip2
    judges = ("pynrrd",) if encoding[0] == "b" else ("pynrrd", "SimpleITK")
    nrrd_case(
        f"{code} {order} {encoding}",
        "type" if encoding == "raw" else "encoding, endian",
        *judges,
        right={"hu": values(code)},
        values=values(code),
        order=order,
        encoding=encoding,
    )

SPACES = {"left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "right-anterior-superior": (-1, -1, 1)}
SPACES |= {"RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "LAS": (1, -1, 1)}
for (space, signs), (where, matrix) in itertools.product(SPACES.items(), DIRECTIONS.items()):
    nrrd_case(
        f"{space} {where}",
        "space, space directions, space origin",
        right={"direction": matrix},
        **{"space": space, "signs": signs, "direction": matrix},
    )
for unit, unit_mm in (("mm", 1.0), ("um", 0.001), ("cm", 10.0), ("m", 1000.0), ("", 1.0), ("microns", 0.001)):
    for where in ("axial", "oblique"):
        nrrd_case(
            f"unit {unit} {where}",
            "space units",
            *(("pynrrd", "SimpleITK") if unit_mm == 1 else ("pynrrd",)),  # SimpleITK ignores the unit
            right={"direction": DIRECTIONS[where]},
            **{"space_units": f'"{unit}" ' * 3, "unit_mm": unit_mm, "direction": DIRECTIONS[where]},
        )
for skip, encoding in itertools.product((0, 1, 7, 100), ("raw", "gzip", "bzip2")):
    # pynrrd skips bytes before it unpacks and again after it; SimpleITK knows no bzip2
    judges = ("pynrrd", "SimpleITK") if encoding == "raw" else ("SimpleITK",) if encoding == "gzip" else ("by hand",)
    nrrd_case(
        f"byte skip {skip} {encoding}",
        "byte skip",
        *judges,
        **{"byte_skip": str(skip), "inside": b"x" * skip, "encoding": encoding},
    )
for junk in (b"", b"abc\n", b"x" * 33):
    nrrd_case(f"byte skip -1 after {len(junk)} bytes", "byte skip", byte_skip="-1", before=junk)
for count, encoding in itertools.product((0, 1, 3), ("raw", "gzip")):
    nrrd_case(
        f"line skip {count} {encoding}", "line skip", line_skip=str(count), before=b"note\n" * count, encoding=encoding
    )
nrrd_case("line skip and byte skip", "line skip", line_skip="2", byte_skip="3", before=b"a\nb\n", inside=b"xyz")
for centering in ("cell cell cell", "node node node", "??? none cell"):
    for field in ("centerings", "centers"):
        nrrd_case(f"{field} {centering}", "centerings (centers)", **{field: centering})
nrrd_case("thickness", "thicknesses", right={"slice_thickness_mm": 2.5}, thicknesses="NaN NaN 2.5")
nrrd_case("thickness unknown", "thicknesses", thicknesses="NaN NaN NaN")
nrrd_case(
    "thickness in um",
    "thicknesses",
    "pynrrd",
    right={"slice_thickness_mm": 2.5},
    **{"thicknesses": "nan nan 2500", "space_units": '"um" "um" "um"', "unit_mm": 0.001},
)
nrrd_case(
    "spacings of none", "spacings, axis mins, axis maxs, units, space dimension", "pynrrd", spacings="NaN NaN NaN"
)
nrrd_case("units of none", "spacings, axis mins, axis maxs, units, space dimension", "pynrrd", units='"" "" ""')
for kinds in (None, "space space space", "??? domain none"):
    nrrd_case(f"kinds {kinds}", "kinds, dimension, sizes", "pynrrd", kinds=kinds)
for units in ("HU", '"Hounsfield units"'):
    nrrd_case(f"sample units {units}", "sample units", "pynrrd", sample_units=units)
nrrd_case(
    "notes", "content, labels, min, max, number, measurement frame", "pynrrd", content="\u80f8\u90e8 \x1b[31m", max="5"
)
# pynrrd takes pairs for fields
nrrd_case(
    "key/value pairs and comments",
    "# comments, key:=value pairs",
    "SimpleITK",
    lines=("# NaN", "space units:=um", "old min:=3"),
)
nrrd_case("no origin", "space, space directions, space origin", right={"origin_mm": (0, 0, 0)}, space_origin=None)
add(
    "NRRD of line ends of Windows",
    "# comments, key:=value pairs",
    lambda folder: Right(
        _bytes(folder / "a.nrrd", nrrd().split(b"\n\n")[0].replace(b"\n", b"\r\n") + b"\r\n\r\n" + HU.tobytes())
    ),
    *("pynrrd", "SimpleITK"),
)
add(
    "NRRD spaces inside vectors",
    "space, space directions, space origin",
    lambda folder: Right(
        put(
            folder / "a.nrrd",
            nrrd(space_directions="(0.5, 0, 0) ( 0,0.75 ,0) (0,0,2 )", space_origin="( -10.5, 20.25, 30 )"),
        )
    ),
    "SimpleITK",
)

# --- MetaImage


def meta_case(name: str, row: str, *judges: str, right: Any = None, **fields: Any) -> None:
    right = right or {}
    add(
        f"MetaImage {name}",
        row,
        lambda folder: Right(put(folder / "a.mha", metaimage(**fields)), **right),
        *(judges or ("SimpleITK",)),
    )


def two_files(
    name: str, row: str, data: str, *judges: str, head: bytes = b"", right: Any = None, **fields: Any
) -> None:
    def build(folder: Path) -> Right:
        header, raw = metaimage(data=data, **fields)
        (folder / "a.mhd").write_bytes(header)
        (folder / data).write_bytes(head + raw)
        return Right(folder / "a.mhd", **(right or {}))

    add(f"MetaImage {name}", row, build, *(judges or ("SimpleITK",)))


for code, order, packed in itertools.product(META_TYPES, "<>", (False, True)):
    same = {"right": {"hu": values(code)}, "values": values(code), "order": order, "packed": packed}
    row = "CompressedData, CompressedDataSize" if packed else "ElementType, ElementNBits"
    row = "ElementByteOrderMSB (BinaryDataByteOrderMSB)" if order == ">" and not packed else row
    meta_case(f"{code} {order} packed {packed} .mha", row, **same)
    two_files(f"{code} {order} packed {packed} .mhd", row, "a.zraw" if packed else "a.raw", **same)
for code, name in (("i4", "MET_LONG"), ("u4", "MET_ULONG")):
    meta_case(name, "ElementType, ElementNBits", right={"hu": values(code)}, values=values(code), ElementType=name)
meta_case("ElementNBits", "ElementType, ElementNBits", ElementNBits="16")
meta_case(
    "ElementByteOrderMSB",
    "ElementByteOrderMSB (BinaryDataByteOrderMSB)",
    **{"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True", "order": ">"},
)
meta_case("no byte order", "ElementByteOrderMSB (BinaryDataByteOrderMSB)", BinaryDataByteOrderMSB=None)
for key, place, (where, matrix) in itertools.product(
    ("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"), DIRECTIONS.items()
):
    names = {"TransformMatrix": None, "Offset": None}
    names |= {key: " ".join(repr(float(v)) for v in matrix.T.ravel()), place: " ".join(str(v) for v in ORIGIN)}
    meta_case(
        f"{key} and {place} {where}",
        "TransformMatrix (Rotation, Orientation), Offset (Position, Origin)",
        right={"direction": matrix},
        **names,
    )
PLACE = "TransformMatrix (Rotation, Orientation), Offset (Position, Origin)"
meta_case("no TransformMatrix", PLACE, TransformMatrix=None)
meta_case("no Offset", PLACE, right={"origin_mm": (0, 0, 0)}, Offset=None)
meta_case("Offset twice, the same", PLACE, Position=" ".join(repr(float(v)) for v in ORIGIN))
for unit, unit_mm in (("mm", 1.0), ("um", 0.001), ("cm", 10.0), ("m", 1000.0), ("?", 1.0)):
    for where in ("axial", "oblique"):
        meta_case(
            f"unit {unit} {where}",
            "DistanceUnits",
            *(("SimpleITK",) if unit_mm == 1 else ("by hand",)),  # SimpleITK ignores the unit
            right={"direction": DIRECTIONS[where]},
            **{"DistanceUnits": unit, "unit_mm": unit_mm, "direction": DIRECTIONS[where]},
        )
for slope, intercept in ((1, 0), (1, -1024), (2, -1000), (0.5, 0.25), (-1, 7)):
    meta_case(
        f"slope {slope} intercept {intercept}",
        "ElementToIntensityFunctionSlope, ElementToIntensityFunctionOffset",
        "SimpleITK" if (slope, intercept) == (1, 0) else "by hand",  # SimpleITK ignores both
        right={"hu": HU.astype(float) * slope + intercept},
        **{
            "ElementToIntensityFunctionSlope": str(slope),
            "ElementToIntensityFunctionOffset": str(intercept),
        },
    )
for size in (0, 1, 17, 4096):
    two_files(f"HeaderSize {size}", "HeaderSize", "a.raw", head=b"h" * size, HeaderSize=str(size))
    two_files(f"HeaderSize -1 after {size}", "HeaderSize", "a.raw", head=b"h" * size, HeaderSize="-1")
meta_case("HeaderSize -1 in one file", "HeaderSize", HeaderSize="-1")
meta_case("ElementSize", "ElementSize", right={"slice_thickness_mm": 2.5}, ElementSize="0.5 0.75 2.5")
meta_case(
    "ElementSize in um",
    "ElementSize",
    "by hand",
    right={"slice_thickness_mm": 2.5},
    **{"ElementSize": "500 750 2500", "DistanceUnits": "um", "unit_mm": 0.001},
)
for text in ("LOCAL", "Local", "local"):
    meta_case(f"data {text}", "ElementDataFile", data=text)
for name in ("vox el.raw", "\u80f8\u90e8.raw", "%d.raw", "a%03d.raw", "\udcff.raw", "LISTE", "a.raw 1 2"):
    two_files(f"voxels in {name.encode('utf-8', 'backslashreplace').decode()}", "ElementDataFile", name, "by hand")
for acronym in ("RAI", "LPS", "???", "RAS"):
    meta_case(f"AnatomicalOrientation {acronym}", "AnatomicalOrientation", AnatomicalOrientation=acronym)
for truth in ("True", "true", "1"):
    meta_case(f"BinaryData {truth}", "BinaryData", BinaryData=truth)
meta_case("no BinaryData", "BinaryData", BinaryData=None)
meta_case("Modality", "ObjectType, Modality", Modality="MET_MOD_CT")
meta_case("CenterOfRotation missing", "CenterOfRotation", CenterOfRotation=None)
meta_case(
    "notes",
    "Comment, Name, ID, ...",
    Comment="a = b",
    Name="\u80f8",
    ID="5",
    ParentID="3",
    Color="1 0 0 1",
    ElementMin="3",
    AcquisitionDate="2020",
)
CASES["MetaImage notes of ITK"] = Case(
    "Comment, Name, ID, ...",
    lambda folder: Right(put(folder / "a.mha", metaimage(lines=("ITK_FileNotes = x", "0008|0060 = CT")))),
    ("SimpleITK",),
)
CASES["MetaImage packed with gzip"] = Case(
    "CompressedData, CompressedDataSize",
    lambda folder: Right(
        put(folder / "a.mha", (metaimage(packed=True, CompressedDataSize=None)[0], gzip.compress(HU.tobytes())))
    ),
)
meta_case(
    "without the packed size", "CompressedData, CompressedDataSize", "by hand", packed=True, CompressedDataSize=None
)
CASES["MetaImage of line ends of Windows"] = Case(
    "Comment, Name, ID, ...",
    lambda folder: Right(_bytes(folder / "a.mha", metaimage()[0].replace(b"\n", b"\r\n") + HU.tobytes())),
    ("SimpleITK",),
)
