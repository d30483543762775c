"""Files of the zoo that hold less than they claim: cut ones, and headers, streams and archives that lie.

The liars are read under a limit of memory.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from ct_files import make_series
from ct_syntaxes import in_syntax, make_enhanced
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from zoo import SHAPE, fields
from zoo_refused import DAMAGED, LARGE, Case, Refused, case, edited

LYING: dict[str, Case] = {}

# --- truncated


def truncated(syntax: str, fraction: float) -> None:
    @case(f"{syntax} cut at {fraction:g}")
    def _(folder: Path) -> Refused:
        make_series(folder, shape=LARGE, edit=in_syntax(syntax))
        file = folder / "002.dcm"
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * fraction)])
        return Refused((*DAMAGED, "is empty", "not a DICOM file"))


for each in ("implicit", "big-endian", "deflated", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k"):
    for part in (0.05, 0.4, 0.8):
        truncated(each, part)


@case("one byte short")
def _(folder: Path) -> Refused:
    make_series(folder, shape=LARGE)
    file = folder / "002.dcm"
    file.write_bytes(file.read_bytes()[:-1])
    return Refused(DAMAGED)


@case("0 bytes")
def _(folder: Path) -> Refused:
    make_series(folder, shape=SHAPE)
    (folder / "002.dcm").write_bytes(b"")
    return Refused(("002.dcm is empty",))


@case("Enhanced cut in the last frame")
def _(folder: Path) -> Refused:
    make_enhanced(folder / "a.dcm", shape=LARGE)
    file = folder / "a.dcm"
    file.write_bytes(file.read_bytes()[:-100])
    return Refused(DAMAGED)


# --- sizes that lie


edited("Rows doubled", fields(Rows=12), "truncated or damaged", cases=LYING)
edited("Rows and Columns 65535", fields(Rows=65535, Columns=65535), "truncated or damaged", cases=LYING)
edited("Rows 0", fields(Rows=0), "no pixels", "no images", cases=LYING)
edited("32 bits allocated, 16 there", fields(BitsAllocated=32), "truncated or damaged", cases=LYING)
edited("two billion frames", fields(NumberOfFrames=2**31 - 1), "several frames", cases=LYING)


def lying(name: str, syntax: str, edit: Callable[[Dataset], object], *words: str) -> None:
    @case(f"{name} in {syntax}", LYING)
    def _(folder: Path) -> Refused:
        def both(k: int, ds: Dataset) -> None:
            in_syntax(syntax)(k, ds)
            edit(ds)

        make_series(folder, shape=LARGE, edit=both)
        return Refused(words or DAMAGED)


def large(side: int) -> Callable[[Dataset], object]:
    return lambda ds: ds.update({"Rows": side, "Columns": side})


def large_stream(ds: Dataset) -> None:
    """Both the header and the codestream claim 65535 x 65535."""
    large(65535)(ds)
    content = ds.PixelData
    for marker, offset, kind in (
        (b"\xff\x4f\xff\x51", 8, ">2I"),
        (b"\xff\xc3\x00", 5, ">2H"),
        (b"\xff\xf7\x00", 5, ">2H"),
    ):
        at = content.find(marker)
        if at >= 0:
            patch = struct.pack(kind, 65535, 65535)
            content = content[: at + offset] + patch + content[at + offset + len(patch) :]
    ds.PixelData = content


for each in ("rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k", "deflated"):
    lying("Rows and Columns 4000", each, large(4000))
    lying("header and stream of 65535", each, large_stream)


for each in ("jpeg-lossless", "jpeg-ls", "jpeg-2000", "htj2k"):
    # as many pixels as there are, in lines of another length
    lying(
        "Rows and Columns swapped", each, lambda ds: ds.update({"Rows": 18, "Columns": 16}), "its header says 18 x 16"
    )


@case("Enhanced with two billion frames", LYING)
def _(folder: Path) -> Refused:
    make_enhanced(folder / "a.dcm", whole=lambda ds: setattr(ds, "NumberOfFrames", 2**31 - 1))
    return Refused(("states 2147483647 frames but describes 4",))


def declared(name: str, element: bytes, *words: str) -> None:
    """An element with a huge length put in front of the pixels of the middle slice."""

    @case(f"{name} of 4 GB", LYING)
    def _(folder: Path) -> Refused:
        make_series(folder, shape=SHAPE)
        file = folder / "002.dcm"
        content = file.read_bytes()
        at = content.index(b"\xe0\x7f\x10\x00OW")
        file.write_bytes(content[:at] + element + content[at:])
        return Refused(words)


declared("private bytes", b"\x29\x00\x01\x10OB\0\0\xf0\xff\xff\xff", *DAMAGED)
declared("private text", b"\x29\x00\x01\x10UT\0\0\xf0\xff\xff\xff", *DAMAGED)
declared("sequence", b"\x40\x00\x75\x02SQ\0\0\xf0\xff\xff\xff", *DAMAGED)
declared("pixels", b"\xe0\x7f\x10\x00OW\0\0\xf0\xff\xff\xff", *DAMAGED)
declared("endless bytes", b"\x29\x00\x01\x10OB\0\0\xff\xff\xff\xff", *DAMAGED)


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@case("deflate bomb in pixels", LYING)
def _(folder: Path) -> Refused:
    make_series(folder, shape=SHAPE, edit=in_syntax("deflated"))
    file = folder / "002.dcm"
    ds = dcmread(file)
    content = file.read_bytes()
    meta = content[: content.index(b"1.2.840.10008.1.2.1.99") + 22]
    del ds.PixelData
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(folder / "plain")
    body = (folder / "plain").read_bytes().split(b"1.2.840.10008.1.2.1\0", 1)[1]
    (folder / "plain").unlink()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(body + b"\xe0\x7f\x10\x00OW\0\0\0\0\0\xf0") + packer.flush(zlib.Z_FULL_FLUSH)
    rest = meta[132:]
    file.write_bytes(content[:132] + rest + content[len(meta) : len(meta)] + packed + bomb(1200 << 20))
    return Refused(("inflates to over",))


@case("zip bomb", LYING)
def _(folder: Path) -> Refused:
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.dcm", "w") as out:
        out.write(bytes(128) + b"DICM")
        for _ in range(1200):
            out.write(bytes(1 << 20))
    return Refused(("more than CT can compress",), path=folder / "bomb.zip")


@case("five thousand nested sequences", LYING)
def _(folder: Path) -> Refused:
    make_series(folder, shape=SHAPE)
    file = folder / "002.dcm"
    content = file.read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00OW")
    nest = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    file.write_bytes(content[:at] + nest + content[at:])
    return Refused(DAMAGED)
