"""MetaImage files that must be refused in one line."""

from __future__ import annotations

from typing import Any

from image_files import Refused, metaimage, put
from zoo_images_refused import CASES, DAMAGED, NO_HEADER, NOT_HU, add, cut, noise


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
        lambda folder, share=share: cut(folder / "a.mha", b"".join(metaimage(noise(), packed=True)), share),
        *(NO_HEADER, *DAMAGED),
    )
    add(
        f"MetaImage cut at {share}",
        SIZE,
        lambda folder, share=share: cut(folder / "a.mha", b"".join(metaimage(noise())), share),
        *(NO_HEADER, *DAMAGED),
    )
