"""A zoo of odd CT series, each made the same way every time: those that must be read right.

Those that lie in odd places live in `zoo_places.py`, the malformed ones, which must be refused in one line, in
`zoo_refused.py` and `zoo_lying.py`; `test_zoo.py` visits all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ct_files import make_series, oblique
from ct_syntaxes import SYNTAXES, Edit, in_syntax, make_enhanced
from pydicom import Dataset, Sequence

SHAPE = (4, 6, 7)
ORIGIN, SPACING = (-100.0, -50.0, 20.0), (2.5, 0.8, 0.7)
AXIAL = np.eye(3)[::-1]
CORONAL = np.stack([[0, 1, 0], [0, 0, -1], [1, 0, 0]], axis=1).astype(float)


@dataclass
class Right:
    """What `read` must return."""

    hu: np.ndarray
    spacing_mm: tuple[float, float, float] = SPACING
    origin_mm: tuple[float, float, float] = ORIGIN
    direction: np.ndarray = field(default_factory=AXIAL.copy)
    path: Path | None = None
    """What to read; by default the folder in which all was made."""
    options: dict[str, Any] = field(default_factory=dict)


Case = Callable[[Path], Right]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def keep(build: Case) -> Case:
        assert name not in CASES
        CASES[name] = build
        return build

    return keep


def edited(name: str, edit: Edit, hu: Callable[[np.ndarray], np.ndarray] = lambda hu: hu, **right: Any) -> None:
    """A case that differs from the plain series by an edit of each slice."""
    CASES[name] = lambda folder: Right(hu(make_series(folder, shape=SHAPE, edit=edit)), **right)


# --- kinds crossed with transfer syntaxes


def bits(stored: int, *, signed: bool = False) -> Edit:
    def edit(k: int, ds: Dataset) -> None:
        values = np.frombuffer(ds.PixelData, "<i2").astype(np.int32) % (1 << (stored - signed))
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = stored, stored - 1, int(signed)
        ds.PixelData = values.astype("<u2").tobytes()

    return edit


def per_slice(k: int, ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = ("2", "-1000") if k % 2 else ("0.5", "-24")


def rescaled(hu: np.ndarray) -> np.ndarray:
    stored = hu.astype(float) + 1024
    return np.stack([p * 2 - 1000 if k % 2 else p * 0.5 - 24 for k, p in enumerate(stored)])


def crossed(syntax: str) -> None:
    shape = (3, 16, 18)  # some coders want more than a few pixels
    name = f"in {syntax}"

    def classic(folder: Path) -> Right:
        return Right(make_series(folder, shape=shape, edit=in_syntax(syntax)))

    def enhanced(folder: Path) -> Right:
        file = folder / "all frames.dcm"
        return Right(make_enhanced(file, shape=shape, syntax=syntax, direction=CORONAL), direction=CORONAL)

    def unsigned(folder: Path) -> Right:
        hu = make_series(folder, shape=shape, edit=in_syntax(syntax, bits(12)))
        return Right((hu.astype(int) + 1024) % 4096 - 1024)

    def slopes(folder: Path) -> Right:
        hu = make_series(folder, shape=shape, direction=oblique(3), edit=in_syntax(syntax, per_slice))
        return Right(rescaled(hu), direction=oblique(3))

    CASES.update({f"classic {name}": classic, f"Enhanced coronal {name}": enhanced})
    CASES.update({f"12 bits unsigned {name}": unsigned, f"slope per slice, oblique {name}": slopes})


for each in SYNTAXES:
    crossed(each)

# --- pixels and their meaning


for count in (13, 14, 15, 16):
    top = (1 << count) - 1
    edited(f"{count} bits unsigned", bits(count), lambda hu, top=top: ((hu.astype(int) + 1024) & top) - 1024)


def one_byte(k: int, ds: Dataset) -> None:
    values = np.frombuffer(ds.PixelData, "<i2") % 256
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = values.astype(np.uint8).tobytes()


def four_bytes(k: int, ds: Dataset) -> None:
    values = np.frombuffer(ds.PixelData, "<i2").astype("<i4") * 100
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, 32, 31
    ds.PixelData = values.tobytes()


def overlay_in_high_bits(k: int, ds: Dataset) -> None:
    bits(12)(k, ds)
    values = np.frombuffer(ds.PixelData, "<u2") | np.uint16(0x8000)
    ds.PixelData = values.tobytes()


def padding(stored: int, vr: str, value: int, limit: int | None = None, signed: int = 1) -> Edit:
    def edit(k: int, ds: Dataset) -> None:
        values = np.frombuffer(ds.PixelData, "<u2").copy()
        values[:3] = stored & 0xFFFF
        ds.PixelRepresentation, ds.PixelData = signed, values.tobytes()
        ds.add_new("PixelPaddingValue", vr, value)
        if limit is not None:
            ds.add_new("PixelPaddingRangeLimit", vr, limit)

    return edit


def padded(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def fill(hu: np.ndarray) -> np.ndarray:
        hu = hu.copy()
        hu[:, 0, :3] = value
        return hu

    return fill


edited("8 bits", one_byte, lambda hu: (hu.astype(int) + 1024) % 256 - 1024)
edited("32 bits", four_bytes, lambda hu: (hu.astype(int) + 1024) * 100 - 1024)
edited("overlay in the high bits", overlay_in_high_bits, lambda hu: (hu.astype(int) + 1024) % 4096 - 1024)
edited("padding", padding(-2000, "SS", -2000), padded(-3024))
edited("padding with the wrong VR", padding(-2000, "US", 63536), padded(-3024))
edited("padding range", padding(-1999, "SS", -2000, -1990), padded(-3023))
edited("padding stored in unsigned pixels", padding(63536, "US", 63536, signed=0), padded(-3024))
edited("padding range in unsigned pixels", padding(63540, "US", 63536, 63545, signed=0), padded(-3020))
edited("HU below -1024 and metal", lambda k, ds: setattr(ds, "RescaleIntercept", "-8192"), lambda hu: hu - 7168)


def fields(**values: Any) -> Edit:
    def edit(k: int, ds: Dataset) -> None:
        for key, value in values.items():
            if value is None:
                delattr(ds, key)
            else:
                setattr(ds, key, value)

    return edit


edited("HU by RescaleType", fields(RescaleType="HU"))
edited("no names, numbers, times", fields(PatientName=None, SeriesNumber=None, InstanceNumber=None, ImageType=None))
edited("no SeriesDescription, empty SeriesNumber", fields(SeriesDescription=None, SeriesNumber=""))
edited("no SOPInstanceUID", fields(SOPInstanceUID=None))
edited("no HighBit", fields(HighBit=None))
edited("empty HighBit", lambda k, ds: setattr(ds, "HighBit", None))
edited("no SliceThickness", fields(SliceThickness=None))
edited("a regular scan of two acquisitions", lambda k, ds: setattr(ds, "AcquisitionNumber", 1 + k // 2))
edited("a regular scan of alternating kernels", lambda k, ds: setattr(ds, "ConvolutionKernel", "ab"[k % 2]))
edited("overlapping slices", fields(SliceThickness="5.0"))
edited("Japanese", fields(SpecificCharacterSet=["", "ISO 2022 IR 87"], SeriesDescription="胸部 造影"))
edited("line breaks in a description", fields(SeriesDescription="CHEST\r\nB30\x1b[31m"))
edited("trailing padding", lambda k, ds: ds.add_new(0xFFFCFFFC, "OB", b"\0" * 126))
edited("four bytes too many", lambda k, ds: setattr(ds, "PixelData", ds.PixelData + b"\1\2\3\4"))
edited("group lengths", lambda k, ds: ds.add_new(0x00080000, "UL", 1))


@case("sequences thirty deep")
def _(folder: Path) -> Right:
    def edit(k: int, ds: Dataset) -> None:
        inner = Dataset()
        inner.PatientComments = "deep"
        for _ in range(30):
            outer = Dataset()
            outer.ReferencedStudySequence = Sequence([inner])
            inner = outer
        ds.ReferencedStudySequence = Sequence([inner])

    return Right(make_series(folder, shape=SHAPE, edit=edit))


@case("private elements of a megabyte")
def _(folder: Path) -> Right:
    def edit(k: int, ds: Dataset) -> None:
        ds.private_block(0x0029, "ACME", create=True).add_new(1, "OB", bytes(1 << 20))

    return Right(make_series(folder, shape=SHAPE, edit=edit))
