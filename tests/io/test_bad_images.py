"""Every kind of bad image file: one line that names the file, what is wrong and what to do."""

from __future__ import annotations

import gzip
import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import SHAPE, make_series, refusal
from pydicom.uid import generate_uid

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume


def image(values: np.ndarray | None = None) -> sitk.Image:
    values = np.zeros((3, 4, 5), np.int16) if values is None else values
    return sitk.GetImageFromArray(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.npz"])
def test_nan_and_inf(tmp_path: Path, name: str, bad: float) -> None:
    values = np.zeros((3, 4, 5), np.float32)
    values[1, 2, 3] = bad
    if name == "a.npz":
        np.savez(tmp_path / name, values, spacing_mm=(1, 1, 1))
    else:
        sitk.WriteImage(image(values), str(tmp_path / name))
    assert "1 voxels of slice 1 are NaN or infinite" in refusal(tmp_path / name)


def test_nifti_with_four_dimensions(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.JoinSeries([image(), image()]), str(tmp_path / "a.nii.gz"))
    assert "4 dimensions (5 x 4 x 3 x 2), need 3" in refusal(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii"])
def test_colour_and_vector_images(tmp_path: Path, name: str) -> None:
    rgb = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(rgb, str(tmp_path / name))
    assert "colour or vector" in refusal(tmp_path / name)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("bad", [0.0, -1.5, np.nan])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_spacing_not_positive(tmp_path: Path, name: str, bad: float, axis: int) -> None:
    sitk.WriteImage(image(), str(tmp_path / "good.nii"))
    content = bytearray((tmp_path / "good.nii").read_bytes())
    content[76 + 4 * axis : 80 + 4 * axis] = struct.pack("<f", bad)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert "is not positive" in refusal(tmp_path / name)
    assert "is not positive" in io.inspect(tmp_path / name)[0].problem


@pytest.mark.parametrize("bad", ["0", "-2", "nan"])
def test_metaimage_spacing_not_positive(tmp_path: Path, bad: str) -> None:
    sitk.WriteImage(image(), str(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content.replace(b"Spacing = 1 1 1", b"Spacing = 1 1 " + bad.encode()))
    assert "is not positive" in refusal(tmp_path / "a.mha")


def test_nrrd_spacing_zero(tmp_path: Path) -> None:
    sitk.WriteImage(image(), str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(content.replace(b"(0,0,1)", b"(0,0,0)"))
    assert "is not positive" in refusal(tmp_path / "a.nrrd")


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, np.nan)])
def test_npz_spacing_not_positive(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((2, 3, 4)), spacing_mm=spacing)
    assert "three positive numbers" in refusal(tmp_path / "a.npz")


def test_sheared_nifti(tmp_path: Path) -> None:
    sitk.WriteImage(image(), str(tmp_path / "a.nii"))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[252:254] = struct.pack("<h", 0)  # no qform to fall back on
    content[284:288] = struct.pack("<f", 0.3)
    (tmp_path / "a.nii").write_bytes(content)
    assert "not orthonormal" in refusal(tmp_path / "a.nii")


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.npz"])
def test_truncated_image(tmp_path: Path, name: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (6, 30, 40)).astype(np.int16)
    io.write(Volume(noise, (1, 1, 1)), tmp_path / name)
    file = tmp_path / ("a.raw" if name == "a.mhd" else name)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * fraction)])
    message = refusal(tmp_path / name)
    assert any(word in message for word in ("truncated", "damaged", "no valid header"))


def test_flipped_bits_in_gzip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (6, 30, 40)).astype(np.int16)
    io.write(Volume(noise, (1, 1, 1)), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "a.nii.gz")


def test_wrong_checksum_in_gzip(tmp_path: Path) -> None:
    io.write(Volume(np.zeros((2, 3, 4), np.int16), (1, 1, 1)), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-8] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("damage", [(40, "<h", 9), (42, "<h", -5), (108, "<f", 1e30), (108, "<f", np.nan)])
def test_damaged_nifti_header(tmp_path: Path, damage: tuple[int, str, float]) -> None:
    io.write(Volume(np.zeros((2, 3, 4), np.int16), (1, 1, 1)), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into(damage[1], content, damage[0], damage[2])
    (tmp_path / "a.nii").write_bytes(content)
    assert "no valid header" in refusal(tmp_path / "a.nii")


def test_voxel_file_of_mhd_missing(tmp_path: Path) -> None:
    io.write(Volume(np.zeros((2, 3, 4), np.int16), (1, 1, 1)), tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    assert "voxel file a.raw is missing" in refusal(tmp_path / "a.mhd")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"text, not an image\n" * 100])
def test_text_named_as_image(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)
    try:
        assert io.inspect(tmp_path / name)[0].problem
    except UhrctError as error:
        pytest.fail(f"inspect lists problems, it does not raise: {error}")


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.foo").write_text("hello")
    message = refusal(tmp_path / "a.foo")
    assert "suffix .foo is unknown" in message
    assert ".nii.gz" in message


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
def test_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    def late(*_: object) -> None:
        raise TimeoutError("waits for the pipe")

    os.mkfifo(tmp_path / name)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        assert "is a pipe or a device" in refusal(tmp_path / name)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- npz


def test_npz_without_the_key_lists_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((2, 3, 4)), label=np.zeros(3))
    assert "keys here: image, label" in refusal(tmp_path / "a.npz")


def test_npz_without_spacing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((3, 4)))
    assert "`spacing_mm=Z,Y,X`" in refusal(tmp_path / "a.npz")
    assert io.read(tmp_path / "a.npz", spacing_mm=(2, 1, 1)).shape == (1, 3, 4)
    [info] = io.inspect(tmp_path / "a.npz")
    assert info.shape == (1, 3, 4)
    assert "`spacing_mm=" in info.problem


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2, 2), (0, 3, 3)])
def test_npz_of_wrong_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", np.zeros(shape), spacing_mm=(1, 1, 1))
    refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("values", [np.array([["a", "b"]]), np.array([[1j]]), np.array([[True]])])
def test_npz_of_no_numbers(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", values, spacing_mm=(1, 1, 1))
    assert "not numbers" in refusal(tmp_path / "a.npz")


def test_npz_with_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.array([[{"a": 1}]], dtype=object), spacing_mm=(1, 1, 1))
    assert "damaged" in refusal(tmp_path / "a.npz")


def test_damaged_npz_stream(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", np.random.default_rng(0).normal(size=(9, 9, 9)), spacing_mm=(1, 1, 1))
    content = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for start in (0, 20, 50, 300, len(content) - 60):
        noise = rng.bytes(40)
        (tmp_path / "a.npz").write_bytes(content[:start] + noise + content[start + 40 :])
        assert "damaged" in refusal(tmp_path / "a.npz") or start == 0


# --- options where they mean nothing


def test_options_for_other_formats(tmp_path: Path) -> None:
    io.write(Volume(np.zeros((2, 3, 4), np.int16), (1, 1, 1)), tmp_path / "a.nii")
    assert "`spacing_mm` is for .npz" in refusal(tmp_path / "a.nii", spacing_mm=(1, 1, 1))
    assert "`series` is for DICOM" in refusal(tmp_path / "a.nii", series="1")


def test_uid_of_another_study(tmp_path: Path) -> None:
    make_series(tmp_path)
    assert "choose one of 1: CHEST 3" in refusal(tmp_path, series=generate_uid())
    assert io.read(tmp_path, series="1").shape == SHAPE
