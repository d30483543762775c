"""NIfTI and NRRD files that must be refused in one line: fields that contradict each other, hostile headers, damage.

Those of MetaImage are in `zoo_metaimage_refused.py`, those that lie about their size in `zoo_bombs.py`.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from image_files import OBLIQUE, SPACING, Case, Refused, nifti, nrrd, put, quaternion

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
        lambda folder, count=count: write(folder / "a.nii.gz", gzip.compress(nifti())[: count // 3]),
        *(NO_HEADER, *DAMAGED),
    )


def write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


add("NIfTI not packed, called .gz", "(gzip)", lambda folder: write(folder / "a.nii.gz", nifti()), *DAMAGED)
add("NIfTI packed, called .nii", "(gzip)", lambda folder: write(folder / "a.nii", gzip.compress(nifti())), NO_HEADER)
add(
    "NIfTI rubbish after gzip",
    "(gzip)",
    lambda folder: write(folder / "a.nii.gz", gzip.compress(nifti()), b"x" * 99),
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
add("NRRD no blank line", UNKNOWN, lambda folder: write(folder / "a.nrrd", nrrd().split(b"\n\n")[0]), NO_HEADER)
for magic in (b"NRRD0006", b"NRRD9999", b"NRRD", b"nrrd0005", b"NRRD-005", b"\x89PNG"):
    add(
        f"NRRD magic {magic!r}",
        "magic",
        lambda folder, magic=magic: write(folder / "a.nrrd", magic + nrrd()[8:]),
        NO_HEADER,
    )
for encoding, share in itertools.product(("gzip", "bzip2", "raw"), (0.6, 0.9)):
    add(
        f"NRRD {encoding} cut at {share}",
        "encoding, endian",
        lambda folder, encoding=encoding, share=share: cut(
            folder / "a.nrrd", nrrd(encoding=encoding, values=noise()), share
        ),
        *DAMAGED,
    )


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (3, 20, 30)).astype(np.int16)


def cut(path: Path, content: bytes, share: float) -> Path:
    return write(path, content[: int(len(content) * share)])
