"""NIfTI, NRRD and MetaImage files that must be refused in one line: fields that contradict, hostile headers, bombs."""

from __future__ import annotations

import bz2
import gzip
import itertools
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from image_files import HU, OBLIQUE, SPACING, Case, Refused, metaimage, nifti, nrrd, put, quaternion

CASES: dict[str, Case] = {}
NO_HEADER, NOT_HU, DAMAGED = "no valid header", "not CT values in HU", ("truncated", "damaged")
PLACE = "qform_code, sform_code, quatern, qoffset, srow"


def add(name: str, row: str, build: Callable[[Path], Path], *words: str) -> None:
    assert name not in CASES, name
    CASES[name] = Case(row, lambda folder: Refused(build(folder), words))


# --- NIfTI


def nifti_case(name: str, row: str, *words: str, **fields: Any) -> None:
    """In a plain and in a packed file, in both versions and both byte orders."""
    for suffix, version, order in ((".nii", 1, "<"), (".nii.gz", 1, ">"), (".nii", 2, ">")):
        add(
            f"NIfTI-{version}{suffix[4:]}: {name}",
            row,
            lambda folder, suffix=suffix, version=version, order=order: put(
                folder / f"a{suffix}", nifti(**({"version": version, "order": order} | fields))
            ),
            *words,
        )


for kind, bits in ((32, 64), (128, 24), (1792, 128), (2048, 256), (2304, 32)):
    nifti_case(f"type {kind}", "datatype, bitpix", NOT_HU, datatype=kind, bitpix=bits)
for kind, bits in ((0, 0), (1, 1), (4, 8), (4, -16), (1536, 128), (-4, 16), (255, 16)):
    nifti_case(f"type {kind} of {bits} bits", "datatype, bitpix", "unknown or damaged", datatype=kind, bitpix=bits)
for dim, words in (
    ((0, 5, 4, 3, 1, 1, 1, 1), NO_HEADER),
    ((8, 5, 4, 3, 1, 1, 1, 1), NO_HEADER),
    ((-3, 5, 4, 3, 1, 1, 1, 1), NO_HEADER),
    ((3, 5, 0, 3, 1, 1, 1, 1), NO_HEADER),
    ((3, 5, 4, -3, 1, 1, 1, 1), NO_HEADER),
    ((2, 5, 4, 3, 1, 1, 1, 1), "2 dimensions"),
    ((1, 5, 4, 3, 1, 1, 1, 1), "1 dimensions"),
    ((4, 5, 4, 1, 3, 1, 1, 1), "4 dimensions (5 x 4 x 1 x 3)"),
    ((5, 5, 4, 1, 1, 3, 1, 1), NOT_HU),
    ((7, 5, 4, 1, 1, 1, 1, 3), "7 dimensions"),
    ((3, 32767, 32767, 32767, 1, 1, 1, 1), "is damaged"),
    ((3, 5, 4, 4, 1, 1, 1, 1), "truncated"),
    ((3, 5, 4, 2, 1, 1, 1, 1), "smaller than the file's voxels"),
    ((3, 5, 4, 1, 1, 1, 1, 1), "smaller than the file's voxels"),
):
    nifti_case(f"dim {dim}", "dim", words, dim=dim)
for axis, value in itertools.product((1, 2, 3), (0.0, -0.5, np.nan, np.inf)):
    pixdim = [1.0, *SPACING, 0, 0, 0, 0]
    pixdim[axis] = value
    nifti_case(f"pixdim[{axis}] {value}", "pixdim", "is not positive", pixdim=tuple(pixdim))
nifti_case("pixdim tiny", "pixdim", "not plausible", pixdim=(1, 1e-30, 1e-30, 1e-30, 0, 0, 0, 0))
for form in ("sform", "both"):
    pixdim = (1, 1, 1, 1, 0, 0, 0, 0)
    nifti_case(f"pixdim against {form}", "pixdim", "different spacings", form=form, pixdim=pixdim)
for value in (0.5, -2.0, np.nan):
    nifti_case(f"qfac {value}", "pixdim[0]", "qform is no rotation", form="qform", pixdim=(value, *SPACING, 0, 0, 0, 0))
for bad in ((np.nan, 0, 0), (1, 1, 0), (0, 0, 1.01), (np.inf, 0, 0)):
    nifti_case(f"quaternion {bad}", PLACE, "qform is no rotation", form="qform", quatern=bad)
for bad in (np.nan, np.inf, 1e30):
    nifti_case(f"qoffset {bad}", PLACE, "position of the first voxel", form="qform", qoffset=(bad, 0, 0))
    srow = [-0.5, 0, 0, bad, 0, -0.75, 0, 0, 0, 0, 2, 0]
    nifti_case(f"srow offset {bad}", PLACE, "position of the first voxel", form="sform", srow=srow)
nifti_case("srow NaN", PLACE, "position of the first voxel", form="sform", srow=[np.nan] * 12)
nifti_case("srow zero", PLACE, "is not positive", form="sform", srow=[0.0] * 12)
sheared = [-0.5, 0.3, 0, 0, 0, -0.6873863542433, 0, 0, 0, 0, 2, 0]
nifti_case("sheared", PLACE, "not orthonormal", form="sform", srow=sheared)
nifti_case("no orientation", PLACE, "states no orientation", sform_code=0, qform_code=0)
for name, fields in (
    ("another rotation", {"quatern": quaternion(np.diag([-1, -1, 1]) @ OBLIQUE)}),
    ("another position", {"qoffset": (10.5, -20.25, 31.0)}),
    ("a mirrored axis", {"pixdim": (-1, *SPACING, 0, 0, 0, 0)}),
):
    nifti_case(f"qform with {name}", PLACE, "qform and sform state different places", **fields)
for key, code in itertools.product(("qform_code", "sform_code"), (-1, 6, 1000)):
    nifti_case(f"{key} {code}", PLACE, "is unknown", **{key: code})
for unit in (4, 5, 6, 7):
    nifti_case(f"unit {unit}", "xyzt_units", f"space unit {unit} is unknown", xyzt_units=unit)
nifti_case(
    "metres that are mm", "xyzt_units", "not plausible", xyzt_units=1, form="qform", pixdim=(1, *[50] * 3, 0, 0, 0, 0)
)
for slope, inter in ((1, np.nan), (1, np.inf), (np.inf, 0), (1e-30, 0), (1e30, 0), (-1e-20, 5), (1, 1e30)):
    nifti_case(
        f"slope {slope}, intercept {inter}", "scl_slope, scl_inter", "cannot give HU", scl_slope=slope, scl_inter=inter
    )
for intent in (2, 3, 5, 24, 1003, 1005, 1007, 1010, 2001, 2003, 2004, 9999):
    nifti_case(f"intent {intent}", "intent_code", NOT_HU, intent_code=intent)
for offset in (0, 100, 351, -352, 1 << 30):
    nifti_case(f"vox_offset {offset}", "vox_offset", NO_HEADER, vox_offset=offset)
for magic in (b"", b"n+3", b"xyz", b"n+1x"):
    nifti_case(f"magic {magic!r}", "magic, sizeof_hdr", NO_HEADER, magic=magic)
for magic in (b"ni1", b"ni2"):
    nifti_case(f"magic {magic!r}", "magic, sizeof_hdr", "NIfTI pair", magic=magic)
for size in (0, 347, -348, 1 << 30):
    nifti_case(f"sizeof_hdr {size}", "magic, sizeof_hdr", NO_HEADER, sizeof_hdr=size, magic=b"n+1")
for count in (0, 9, 300, 347, 352, 400):
    add(
        f"NIfTI of {count} bytes",
        "(gzip)",
        lambda folder, count=count: put(folder / "a.nii", nifti()[:count]),
        NO_HEADER,
        "truncated",
    )
    add(
        f"NIfTI gzip cut at {count // 3}",
        "(gzip)",
        lambda folder, count=count: _bytes(folder / "a.nii.gz", gzip.compress(nifti())[: count // 3]),
        *(NO_HEADER, *DAMAGED),
    )


def _bytes(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


add("NIfTI not packed, called .gz", "(gzip)", lambda folder: _bytes(folder / "a.nii.gz", nifti()), *DAMAGED)
add("NIfTI packed, called .nii", "(gzip)", lambda folder: _bytes(folder / "a.nii", gzip.compress(nifti())), NO_HEADER)
add(
    "NIfTI rubbish after gzip",
    "(gzip)",
    lambda folder: _bytes(folder / "a.nii.gz", gzip.compress(nifti()), b"x" * 99),
    *DAMAGED,
)

# --- NRRD


def nrrd_case(name: str, row: str, *words: str, **fields: Any) -> None:
    add(f"NRRD {name}", row, lambda folder: put(folder / "a.nrrd", nrrd(**fields)), *words)


SIZES = "kinds, dimension, sizes"
AXES = "spacings, axis mins, axis maxs, units, space dimension"
for field in ("dimension", "type", "encoding", "sizes"):
    nrrd_case(f"without {field}", SIZES, f"'{field}' is missing", **{field: None})
for dimension in ("0", "2", "99999999", "-3", "3.0", "x", ""):
    nrrd_case(
        f"dimension {dimension}",
        SIZES,
        "does not fit sizes",
        "no whole numbers",
        "holds no numbers",
        dimension=dimension,
    )
for sizes in ("5 4 0", "5 4 -3", "5 -4 -3", "99999 99999 99999999", "999999999999999 9 9"):
    nrrd_case(f"sizes {sizes}", SIZES, "is damaged", sizes=sizes)
for sizes in ("5 4 3.5", "5 4 nan", "5 4 x", "5 4 1_0", "5 4 \uff13", "1e9 1e9 1e9", "9" * 400 + " 1 1"):
    nrrd_case(f"sizes {sizes[:20]}", SIZES, "no whole numbers", "holds no numbers", sizes=sizes)
for sizes in ("5 4", "5 4 3 1", ""):
    nrrd_case(f"sizes '{sizes}'", SIZES, "does not fit", "no whole numbers", sizes=sizes)
nrrd_case("sizes too large", SIZES, "truncated", sizes="5 4 4")
nrrd_case("sizes too small", SIZES, "smaller than the file's voxels", sizes="5 4 2")
nrrd_case("two dimensions", SIZES, "2 dimensions", dimension="2", sizes="5 12", kinds="domain domain")
nrrd_case("four dimensions", SIZES, "4 dimensions", dimension="4", sizes="5 4 3 1", kinds=None)
for kind in ("vector", "RGB-color", "complex", "time", "3-vector", "list", "covariant-vector"):
    nrrd_case(f"kind {kind}", SIZES, NOT_HU, kinds=f"{kind} domain domain")
for kind in ("block", "string", "int128", "f4", "complex", ""):
    nrrd_case(f"type {kind}", "type", "is not a number", type=kind)
for endian in ("middle", "", None):
    nrrd_case(f"endian {endian}", "encoding, endian", "byte order", endian=endian)
for encoding in ("ascii", "text", "txt", "hex"):
    nrrd_case(f"encoding {encoding}", "encoding, endian", "stored as text", encoding=encoding)
for encoding in ("zstd", "", "raw gzip"):
    nrrd_case(f"encoding {encoding}", "encoding, endian", "is unknown", encoding=encoding)
for encoding, value in itertools.product(("gzip", "bzip2"), ("-1", "-2", str(1 << 40))):
    nrrd_case(
        f"byte skip {value} {encoding}", "byte skip", "not possible", "truncated", encoding=encoding, byte_skip=value
    )
for value in ("-2", "1.5", "x", str(1 << 40)):
    nrrd_case(f"byte skip {value}", "byte skip", "not possible", "whole numbers", "holds no numbers", byte_skip=value)
for value in ("-1", "99999999", "1.5", "20"):
    nrrd_case(f"line skip {value}", "line skip", "not possible", "whole numbers", "behind the end", line_skip=value)
ORIENTATION = "space, space directions, space origin"
nrrd_case("no space", ORIENTATION, "states no orientation", space=None)
nrrd_case("no directions", ORIENTATION, "states no orientation", space_directions=None)
nrrd_case(
    "nothing about space", ORIENTATION, "states no orientation", space=None, space_directions=None, space_origin=None
)
nrrd_case("only spacings", ORIENTATION, "states no orientation", space=None, space_directions=None, spacings="1 1 2")
for space in ("scanner-xyz", "3D-right-handed", "RAST", "LPI", "nowhere", "\x1b[31m"):
    nrrd_case(f"space {space!r}", ORIENTATION, "is not one of a patient", space=space)
for directions, words in (
    ("(1,0,0) (0,1,0) (0,0,0)", "is not positive"),
    ("(1,0,0) (0,1,0) (0,0,nan)", "is not positive"),
    ("(1,0,0) (0,1,0) none", "is not positive"),
    ("(1,0,0) (0,1,0) (0,0,1e300)", "inf mm (x, y, z) is not positive"),
    ("(1,0,0) (0,1,0) (0,0,1e-300)", "is not positive"),
    ("(1,0,0) (0.5,1,0) (0,0,1)", "not orthonormal"),
    ("(1,0,0) (1,0,0) (0,0,1)", "not orthonormal"),
    ("(1,0,0) (0,1,0)", "three numbers per axis"),
    ("(1,0) (0,1) (0,0)", "three numbers per axis"),
    ("(1,0,0) (0,1,0) (0,0)", "damaged"),
    ("1,0,0 0,1,0 0,0,1", "damaged"),
    ("(a,0,0) (0,1,0) (0,0,1)", "holds no numbers"),
    ("(1,0,0) (0,1,0) (0,0,1_0)", "holds no numbers"),
    ("", "damaged"),
):
    nrrd_case(f"directions {directions}", ORIENTATION, words, space_directions=directions)
for origin, words in (
    ("(nan,0,0)", "position of the first voxel"),
    ("(1e300,0,0)", "position of the first voxel"),
    ("(inf,0,0)", "holds no numbers"),
    ("(0,0)", "three numbers per axis"),
    ("0,0,0", "damaged"),
    ("", "damaged"),
):
    nrrd_case(f"origin {origin}", ORIENTATION, words, space_origin=origin)
for units in ('"furlong" "mm" "mm"', '"mm" "mm"', '"mm', '"MM" "MM" "MM"', '"px" "px" "px"'):
    nrrd_case(f"units {units}", "space units", "are unknown", "damaged", space_units=units)
for field, value in (
    ("spacings", "1 1 2"),
    ("spacings", "0.5 0.75 2"),
    ("axis mins", "0 0 0"),
    ("axis maxs", "1 2 3"),
    ("axismins", "0 0 0"),
    ("space dimension", "3"),
    ("units", '"um" "um" "um"'),
):
    nrrd_case(f"{field} {value}", AXES, "contradicts space directions", **{field: value})
for field in ("old min", "old max", "oldmin", "oldmax"):
    nrrd_case(field, "old min, old max", "quantised", **{field: "-1024"})
nrrd_case("old min no number", "old min, old max", "no numbers", "damaged", **{"old min": "low"})
for centering in ("corner", "cell cell edge"):
    nrrd_case(f"centering {centering}", "centerings (centers)", "is unknown", centers=centering)
for thickness in ("nan nan -1", "nan nan 0", "nan nan 1e9", "2", "x y z"):
    nrrd_case(f"thickness {thickness}", "thicknesses", "thickness", thicknesses=thickness)
for units in ("mm", '"cm^-1"'):
    nrrd_case(f"sample units {units}", "sample units", "are not HU", sample_units=units)
for name in ("vox.raw", "/etc/passwd", "../vox.raw", "LIST", "vox%03d.raw 1 9 1"):
    nrrd_case(f"data file {name}", "data file, block size", "in another file", data_file=name)
    nrrd_case(f"datafile {name}", "data file, block size", "in another file", datafile=name)
UNKNOWN = "(unknown, repeated or damaged field)"
for field in ("spacing", "rescale", "\x1b[31mred", "x" * 5000, "\u00e9", ""):
    nrrd_case(f"field {field[:9]!r}", UNKNOWN, "is unknown", lines=(f"{field}: 1",))
for line in ("sizes: 5 4 3", "space: RAS", "centers: cell cell cell\ncenterings: node node node", "SIZES: 5 4 3"):
    nrrd_case(f"twice {line[:20]}", UNKNOWN, "appears twice", lines=(line,))
nrrd_case("line without colon", UNKNOWN, "is unknown", lines=("what is this",))
nrrd_case("line of 100 kB", UNKNOWN, NO_HEADER, lines=("content: " + "x" * 100_000,))
nrrd_case("header of 2 MB", UNKNOWN, NO_HEADER, lines=("# " + "x" * 1000,) * 2000)
add("NRRD no blank line", UNKNOWN, lambda folder: _bytes(folder / "a.nrrd", nrrd().split(b"\n\n")[0]), NO_HEADER)
for magic in (b"NRRD0006", b"NRRD9999", b"NRRD", b"nrrd0005", b"NRRD-005", b"\x89PNG"):
    add(
        f"NRRD magic {magic!r}",
        "magic",
        lambda folder, magic=magic: _bytes(folder / "a.nrrd", magic + nrrd()[8:]),
        NO_HEADER,
    )
for encoding, share in itertools.product(("gzip", "bzip2", "raw"), (0.6, 0.9)):
    add(
        f"NRRD {encoding} cut at {share}",
        "encoding, endian",
        lambda folder, encoding=encoding, share=share: _cut(
            folder / "a.nrrd", nrrd(encoding=encoding, values=_noise()), share
        ),
        *DAMAGED,
    )


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (3, 20, 30)).astype(np.int16)


def _cut(path: Path, content: bytes, share: float) -> Path:
    return _bytes(path, content[: int(len(content) * share)])


# --- MetaImage


def meta_case(name: str, row: str, *words: str, **fields: Any) -> None:
    add(f"MetaImage {name}", row, lambda folder: put(folder / "a.mha", metaimage(**fields)), *words)


SIZE = "NDims, DimSize"
for key in ("NDims", "DimSize", "ElementType", "ElementSpacing"):
    row = {"ElementType": "ElementType, ElementNBits", "ElementSpacing": "ElementSpacing"}.get(key, SIZE)
    meta_case(f"without {key}", row, f"'{key}' is missing", **{key: None})
for count in ("0", "1", "2", "4", "100", "99999999", "-3", "3.0", "x", "", "3 3", "\u0663"):
    meta_case(f"NDims {count}", SIZE, "does not fit DimSize", "no whole numbers", "more than one", NDims=count)
for sizes in ("5 4 0", "5 4 -3", "5 -4 -3", "99999 99999 999999999", "999999999999999 9 9"):
    meta_case(f"DimSize {sizes}", SIZE, "is damaged", DimSize=sizes)
for sizes in ("5 4 3.5", "5 4 nan", "5 4 x", "5 4 1_0", "1e9 1e9 1e9", "9" * 400 + " 1 1", "", "1 " * 999):
    meta_case(f"DimSize {sizes[:20]}", SIZE, "no whole numbers", DimSize=sizes)
meta_case("DimSize 100 long", SIZE, "no whole numbers", NDims="100", DimSize="1 " * 100)
meta_case("DimSize of a huge image", SIZE, "truncated", DimSize="30000 30000 3000")
meta_case("DimSize too large", SIZE, "truncated", DimSize="5 4 4")
meta_case("DimSize too small", SIZE, "smaller than the file's voxels", DimSize="5 4 2")
meta_case("two dimensions", SIZE, "2 dimensions", NDims="2", DimSize="5 12")
meta_case("four dimensions", SIZE, "4 dimensions", NDims="4", DimSize="5 4 3 1")
for kind in ("MET_OTHER", "MET_STRING", "MET_FLOAT_ARRAY", "SHORT", "MET_short", "", "MET_NONE", "MET_FLOAT_MATRIX"):
    meta_case(f"ElementType {kind}", "ElementType, ElementNBits", "is not a number", ElementType=kind)
for bits in ("8", "12", "-16", "x"):
    meta_case(f"ElementNBits {bits}", "ElementType, ElementNBits", "does not fit", ElementNBits=bits)
for count in ("3", "0", "x", "2147483647"):
    meta_case(f"{count} channels", "ElementNumberOfChannels", NOT_HU, ElementNumberOfChannels=count)
for spacing in ("0.5 0.75 0", "0.5 -0.75 2", "0.5 0.75 nan", "NaN NaN NaN"):
    meta_case(f"spacing {spacing}", "ElementSpacing", "is not positive", ElementSpacing=spacing)
for spacing in ("0.5 0.75", "", "a b c", "0.5 0.75 1_0", "0.5 0.75 inf", "1,5 1,5 2,0", "0.5 0.75 0x10"):
    meta_case(f"spacing '{spacing}'", "ElementSpacing", "holds no 3 number", ElementSpacing=spacing)
for spacing in ("1e300 1 1", "1 1 1e-300"):
    meta_case(f"spacing {spacing}", "ElementSpacing", "not plausible", ElementSpacing=spacing)
meta_case("ElementSize alone", "ElementSize", "'ElementSpacing' is missing", ElementSpacing=None, ElementSize="1 1 1")
for size in ("1 1 0", "1 1 nan", "1 1 -2", "1 1"):
    meta_case(f"ElementSize {size}", "ElementSize", "ElementSize", ElementSize=size)
MATRIX = "TransformMatrix (Rotation, Orientation), Offset (Position, Origin)"
for matrix, words in (
    ("1 0 0 0 1 0 0 0", "holds no 9 number"),
    ("1 0 0 0 1 0 0 0 x", "holds no 9 number"),
    ("1 0 0 0 1 0 0 0 nan", "length 1"),
    ("1 0 0 0 1 0 0 0 2", "length 1"),
    ("1 0 0 0 1 0 0 0 0", "length 1"),
    ("1 0 0 0 1 0 0 0 1e300", "length 1"),
    ("1 0 0 0.6 0.8 0 0 0 1", "not orthonormal"),
    ("1 0 0 1 0 0 0 0 1", "not orthonormal"),
):
    for key in ("TransformMatrix", "Rotation", "Orientation"):
        meta_case(f"{key} {matrix}", MATRIX, words, **{"TransformMatrix": None, key: matrix})
for offset, words in (
    ("nan 0 0", "position of the first voxel"),
    ("1e300 0 0", "position of the first voxel"),
    ("0 0", "holds no 3 number"),
    ("inf 0 0", "holds no 3 number"),
):
    for key in ("Offset", "Position", "Origin"):
        meta_case(f"{key} {offset}", MATRIX, words, **{"Offset": None, key: offset})
for key, value in (
    ("Position", "1 2 3"),
    ("Origin", "1 2 3"),
    ("Rotation", "0 1 0 1 0 0 0 0 1"),
    ("ElementByteOrderMSB", "True"),
):
    meta_case(f"{key} against its synonym", "(unknown, repeated or damaged key)", "appears twice", **{key: value})
for center in ("0 0 1", "nan 0 0", "1 2"):
    meta_case(f"CenterOfRotation {center}", "CenterOfRotation", "CenterOfRotation", CenterOfRotation=center)
for unit in ("px", "inch", "\x1b[31m", "MM", "nm"):
    meta_case(f"unit {unit!r}", "DistanceUnits", "is unknown", DistanceUnits=unit)
for slope, offset, words in (
    ("0", "0", "cannot give HU"),
    ("nan", "0", "cannot give HU"),
    ("1e-310", "0", "cannot give HU"),
    ("1e300", "0", "cannot give HU"),
    ("1", "nan", "cannot give HU"),
    ("1", "1e300", "cannot give HU"),
    ("x", "0", "holds no 1 number"),
    ("1 1", "0", "holds no 1 number"),
    ("", "0", "holds no 1 number"),
):
    fields = {"ElementToIntensityFunctionSlope": slope, "ElementToIntensityFunctionOffset": offset}
    row = "ElementToIntensityFunctionSlope, ElementToIntensityFunctionOffset"
    meta_case(f"slope '{slope}' offset {offset}", row, words, **fields)
for value in ("False", "0", "maybe", ""):
    meta_case(f"BinaryData '{value}'", "BinaryData", "stored as text", "neither True nor False", BinaryData=value)
for value in ("maybe", "", "T"):
    meta_case(
        f"byte order '{value}'", "ElementByteOrderMSB (BinaryDataByteOrderMSB)", "neither", BinaryDataByteOrderMSB=value
    )
    meta_case(f"CompressedData '{value}'", "CompressedData, CompressedDataSize", "neither", CompressedData=value)
for value in ("-2", "x", "1 2", "1", str(1 << 40)):
    words = ("HeaderSize", "not supported", "more than one")
    meta_case(f"HeaderSize {value}", "HeaderSize", *words, HeaderSize=value)
meta_case("HeaderSize and packed", "HeaderSize", "not supported", HeaderSize="-1", packed=True)
for value in ("999999", "x", "1 2", "-5x"):
    row = "CompressedData, CompressedDataSize"
    meta_case(f"packed size {value}", row, "truncated", "CompressedDataSize", packed=True, CompressedDataSize=value)
for kind in ("Scene", "Tube", "", "image"):
    meta_case(f"object {kind}", "ObjectType, Modality", "not an image", ObjectType=kind)
for modality in ("MET_MOD_MR", "MET_MOD_US", "CT"):
    meta_case(f"modality {modality}", "ObjectType, Modality", "not CT", Modality=modality)
for acronym in ("RAS", "ASR", "x"):
    meta_case(
        f"{acronym} without matrix",
        "AnatomicalOrientation",
        "ambiguous",
        TransformMatrix=None,
        AnatomicalOrientation=acronym,
    )
KEYS = "(unknown, repeated or damaged key)"
for key in ("ElementSpacings", "elementspacing", "NDIMS", "Kinds", "\x1b[31mred", "x" * 5000, "\u00e9", "_", "0008|00"):
    meta_case(f"key {key[:15]!r}", KEYS, "is unknown", lines=(f"{key} = 1",))
for line in ("NDims = 2", "DimSize = 1 1 1", "ElementSpacing = 1 1 1", "CompressedData = True"):
    meta_case(f"twice {line}", KEYS, "appears twice", lines=(line,))
meta_case("line without equals", KEYS, "is unknown", lines=("what is this",))
meta_case("line of 100 kB", KEYS, NO_HEADER, lines=("Comment = " + "x" * 100_000,))
meta_case("header of 2 MB", KEYS, NO_HEADER, lines=("Comment = " + "x" * 1000,) * 2000)
meta_case("no newline at the end", KEYS, NO_HEADER, lines=("Comment = \n" * 3 + "x" * 70_000,))
for name, words in (
    ("LIST", "in several files (ElementDataFile = LIST)"),
    ("LIST 2", "in several files"),
    ("/etc/passwd", "in another folder"),
    ("../vox.raw", "in another folder"),
    ("sub/vox.raw", "in another folder"),
    ("..\\vox.raw", "in another folder"),
    ("C:\\vox.raw", "in another folder"),
    ("..", "in another folder"),
    (".", "in another folder"),
    ("", "in another folder"),
    ("missing.raw", "is missing"),
    ("mis\0sing.raw", "is missing"),
    ("\x1b[31mred", "is missing"),
    ("v%03d.raw 1 9 1", "is missing"),
    ("y" * 5000, "is missing"),
    ("a.mha", "names itself"),
    ("folder", "is missing"),
):
    meta_case(f"data {name[:20]!r}", "ElementDataFile", words, data=name)
CASES["MetaImage data 'folder'"].build = lambda folder: (
    (folder / "folder").mkdir(),
    Refused(put(folder / "a.mha", metaimage(data="folder")), ("is missing",)),
)[1]
for share in (0.1, 0.5, 0.95):
    add(
        f"MetaImage packed cut at {share}",
        "CompressedData, CompressedDataSize",
        lambda folder, share=share: _cut(folder / "a.mha", b"".join(metaimage(_noise(), packed=True)), share),
        *(NO_HEADER, *DAMAGED),
    )
    add(
        f"MetaImage cut at {share}",
        SIZE,
        lambda folder, share=share: _cut(folder / "a.mha", b"".join(metaimage(_noise())), share),
        *(NO_HEADER, *DAMAGED),
    )

# --- files that unpack to far more than their header states, or state far more than they hold

ZEROS = 10 << 20


def _repeated(length: int) -> tuple[bytes, bytes, bytes]:
    """Start, middle and end of a zlib stream; the middle holds 10 MB of zeros and may be repeated."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(bytes(length)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start, middle, packer.flush()


def bomb(name: str, row: str, build: Callable[[Path], Path], *words: str) -> None:
    add(f"bomb: {name}", row, build, *(words or ("smaller than the file's voxels",)))


def _gzip_bomb(folder: Path) -> Path:
    return _bytes(folder / "a.nii.gz", gzip.compress(nifti()), gzip.compress(bytes(ZEROS)) * 2000)


def _claims(folder: Path) -> Path:
    """18 MB of packed noise behind a header of 20 GB."""
    header = nifti(np.zeros((1, 1, 1), np.int16), dim=(3, 2200, 2200, 2066, 1, 1, 1, 1))[:352]
    noise = np.random.default_rng(0).bytes(18 << 20)
    return _bytes(folder / "a.nii.gz", gzip.compress(header + noise, 1))


def _zlib_bomb(folder: Path) -> Path:
    start, middle, end = _repeated(ZEROS)
    header, _ = metaimage(packed=True, CompressedDataSize=None)
    return _bytes(folder / "a.mha", header, start, middle * 2000, end)


def _sparse(folder: Path) -> Path:
    path = put(folder / "a.nii", nifti(dim=(3, 1024, 1024, 1024, 1, 1, 1, 1)))
    os.truncate(path, 352 + (2 << 30))
    return path


bomb("gzip of 20 GB in a NIfTI of 120 bytes", "(gzip)", _gzip_bomb)
bomb("NIfTI of 18 MB that states 20 GB", "(gzip)", _claims, "cannot hold a CT of this size")
bomb(
    "a million empty gzip members",
    "(gzip)",
    lambda f: _bytes(f / "a.nii.gz", gzip.compress(b"") * 1_000_000),
    "empty parts",
)
bomb(
    "a gzip name of 18 MB",
    "(gzip)",
    lambda f: _bytes(f / "a.nii.gz", b"\x1f\x8b\x08\x08" + b"\1" * (18 << 20)),
    *DAMAGED,
)
bomb("zlib of 20 GB in a MetaImage of 120 bytes", "CompressedData, CompressedDataSize", _zlib_bomb)
bomb(
    "gzip of 20 GB in an NRRD of 120 bytes",
    "encoding, endian",
    lambda folder: _bytes(folder / "a.nrrd", nrrd(encoding="gzip"), gzip.compress(bytes(ZEROS)) * 2000),
)
bomb(
    "bzip2 of 100 MB in an NRRD of 120 bytes",
    "encoding, endian",
    lambda folder: _bytes(
        folder / "a.nrrd", nrrd(encoding="bzip2", values=HU[:0], sizes="5 4 3")[:-14], bz2.compress(bytes(100 << 20))
    ),
)
bomb("NIfTI of 2 GB in a sparse file", "dim", _sparse, "not enough memory")
for encoding in ("gzip", "bzip2", "raw"):
    bomb(
        f"NRRD {encoding} that states 20 GB",
        "encoding, endian",
        lambda folder, encoding=encoding: put(folder / "a.nrrd", nrrd(encoding=encoding, sizes="2200 2200 2066")),
        *DAMAGED,
    )
    bomb(
        f"NRRD {encoding} that states 400 MB",
        "encoding, endian",
        lambda folder, encoding=encoding: put(folder / "a.nrrd", nrrd(encoding=encoding, sizes="1000 1000 200")),
        *DAMAGED,
    )
