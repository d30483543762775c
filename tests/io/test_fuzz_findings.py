"""What `fuzz_reader.py` and lying image files found, rebuilt: each once raised, hung, took gigabytes or read wrong."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import make_series, refusal
from ct_syntaxes import make_enhanced
from pydicom import DataElement, Dataset

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume


def write(file: Path) -> bytes:
    io.write(Volume(np.zeros((3, 4, 5), np.int16), (1, 1, 1)), file)
    return file.read_bytes()


def test_zip_member_without_a_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"content")
    content = (tmp_path / "a.zip").read_bytes()
    for marker, offset in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
        at = content.index(marker) + offset
        content = content[:at] + b"\0\0" + content[at + 2 :]
    (tmp_path / "a.zip").write_bytes(content)
    refusal(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x00U2"),  # a VR in the file meta information that does not exist
        (b"\x28\x00\x11\x00US\x02\x00\x07\x00", b"\x28\x00\x11\x00LO\x02\x00  "),  # Columns blank
        (b"\x28\x00\x11\x00US\x02\x00", b"\x28\x00\x11\x00LO\x00\x00"),  # Columns without a value
        (b"\x28\x00\x02\x01US\x02\x00\x0f\x00", b"\x28\x00\x02\x01LO\x02\x00\\ "),  # HighBit of two blanks
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1\n.1\0\0"),  # a line break in the transfer syntax
    ],
)
def test_header_bytes(tmp_path: Path, old: bytes, new: bytes) -> None:
    make_series(tmp_path / "in", shape=(1, 6, 7))
    [file] = (tmp_path / "in").iterdir()
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))
    refusal(file)
    refusal(file.parent)
    try:
        assert io.inspect(file)[0].problem.isprintable()
    except UhrctError as error:
        assert str(error).isprintable()  # noqa: PT017


def test_enhanced_that_contradicts_itself(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", whole=lambda ds: ds.PerFrameFunctionalGroupsSequence.pop())
    assert "states 4 frames but describes 3" in refusal(tmp_path)


def test_number_where_functional_groups_are_expected(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.PerFrameFunctionalGroupsSequence = None
        ds["PerFrameFunctionalGroupsSequence"] = DataElement("PerFrameFunctionalGroupsSequence", "DS", "4")

    make_enhanced(tmp_path / "a.dcm", whole=edit)
    assert "damaged DICOM header" in refusal(tmp_path)


def test_sequence_where_a_word_is_expected(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.ImageType = None
        ds["ImageType"] = DataElement("ImageType", "SQ", [Dataset()])

    make_enhanced(tmp_path / "a.dcm", whole=edit)
    assert "damaged DICOM header" in refusal(tmp_path)


def test_png_called_nifti(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5), np.uint8)), str(tmp_path / "a.png"))
    for name in ("a.nii", "a.nrrd", "a.mha"):
        (tmp_path / "a.png").rename(tmp_path / name)
        refusal(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "a.png")


@pytest.mark.parametrize(("kind", "bits"), [(4, 784), (4, 8), (4, -1), (512, 32), (1, 1), (4096, 16)])
def test_nifti_type_and_bits(tmp_path: Path, kind: int, bits: int) -> None:
    content = bytearray(write(tmp_path / "a.nii"))
    struct.pack_into("<2h", content, 70, kind, bits)
    (tmp_path / "a.nii").write_bytes(content)
    assert "is unknown or damaged" in refusal(tmp_path / "a.nii")


def test_metaimage_with_four_byte_long(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mha")
    head = content[: content.index(b"ElementDataFile")].replace(b"MET_SHORT", b"MET_LONG")
    (tmp_path / "a.mha").write_bytes(head + b"ElementDataFile = LOCAL\n" + np.arange(60, dtype="<i4").tobytes())
    np.testing.assert_array_equal(io.read(tmp_path / "a.mha").hu.ravel(), np.arange(60))


def compressed(file: Path) -> bytes:
    values = np.random.default_rng(0).integers(-1000, 1000, (3, 40, 50)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(file), True)
    np.testing.assert_array_equal(io.read(file).hu, values)
    return file.read_bytes()


@pytest.mark.parametrize("size", [b"50 40 4", b"50 40 2", b"5000 4000 300"])
def test_compressed_metaimage_of_another_size(tmp_path: Path, size: bytes) -> None:
    content = compressed(tmp_path / "a.mha")
    (tmp_path / "a.mha").write_bytes(content.replace(b"DimSize = 50 40 3", b"DimSize = " + size))
    words = ("do not fill its size", "cannot hold a CT of this size", "smaller than the file's voxels")
    assert any(word in refusal(tmp_path / "a.mha") for word in words)


def test_compressed_metaimage_damaged_or_cut(tmp_path: Path) -> None:
    content = compressed(tmp_path / "a.mha")
    (tmp_path / "a.mha").write_bytes(content[:-30])
    assert "truncated" in refusal(tmp_path / "a.mha")
    half = len(content) // 2
    (tmp_path / "a.mha").write_bytes(content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :])
    assert "damaged" in refusal(tmp_path / "a.mha")


def test_metaimage_in_text(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mha").replace(b"BinaryData = True", b"BinaryData = False")
    (tmp_path / "a.mha").write_bytes(content)
    assert "its voxels are stored as text" in refusal(tmp_path / "a.mha")


def test_nrrd_in_two_files(tmp_path: Path) -> None:
    content = write(tmp_path / "a.nrrd")
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"\n\n", b"\ndata file: /etc/hostname\n\n", 1))
    assert "are in another file" in refusal(tmp_path / "a.nrrd")


def nifti(dims: tuple[int, int, int]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        content = bytearray(write(folder / "a.nii"))
        struct.pack_into("<4h", content, 40, 3, *dims)
        (folder / "b.nii").write_bytes(content)
        return folder / "b.nii"

    return build


def zipped_nifti(folder: Path) -> Path:
    file = nifti((30000, 30000, 3000))(folder)
    (folder / "c.nii.gz").write_bytes(gzip.compress(file.read_bytes()))
    return folder / "c.nii.gz"


def nrrd(encoding: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        content = write(folder / "a.nrrd").replace(b"sizes: 5 4 3", b"sizes: 1000 1000 1500")
        (folder / "a.nrrd").write_bytes(content.replace(b"encoding: raw", b"encoding: " + encoding))
        return folder / "a.nrrd"

    return build


def npz(folder: Path) -> Path:
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (1000, 1000, 1500), }".ljust(117) + b"\n"
    np.savez(folder / "a.npz", spacing_mm=(1.0, 1.0, 1.0))
    with zipfile.ZipFile(folder / "a.npz", "a") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(120))
    return folder / "a.npz"


def metaimage(folder: Path) -> Path:
    content = compressed(folder / "a.mha")
    (folder / "a.mha").write_bytes(content.replace(b"DimSize = 50 40 3", b"DimSize = 1000 1000 1500"))
    return folder / "a.mha"


LIARS: dict[str, Callable[[Path], Path]] = {
    "nifti": nifti((32767, 32767, 32767)),
    "nifti, gzip": zipped_nifti,
    "nrrd": nrrd(b"raw"),
    "nrrd, gzip": nrrd(b"gzip"),
    "nrrd, bzip2": nrrd(b"bzip2"),
    "npz": npz,
    "metaimage, zlib": metaimage,
}


def test_images_that_lie_about_their_size_cost_no_memory(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = []
    for suffix in (".nii.gz", ".nrrd", ".mha", ".npz"):
        write(tmp_path / "plain" / f"a{suffix}")
        plain.append(tmp_path / "plain" / f"a{suffix}")
    asked = {}
    for number, (name, build) in enumerate(LIARS.items()):
        (tmp_path / str(number)).mkdir()
        asked[name] = build(tmp_path / str(number))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("read_limited.py"), *plain],
        input="".join(json.dumps([str(path), {}]) + "\n" for path in asked.values()),
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    answers = [json.loads(line)[0] for line in done.stdout.splitlines()[:-1]]
    assert len(answers) == len(asked), done.stderr[-2000:]
    for name, answer in zip(asked, answers, strict=True):
        assert answer.startswith("refused: "), (name, answer)
        assert any(word in answer for word in ("truncated", "damaged")), (name, answer)
        assert "memory" not in answer.lower(), (name, answer)
