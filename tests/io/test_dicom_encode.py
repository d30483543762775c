"""Compressed frames: the same bytes by either encoder, also for voxels that no encoder can make smaller."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset, Sequence

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.io import DicomOptions
from uhrct.io.derivation import TRANSFER_SYNTAXES
from uhrct.io.dicom.encode import compressed, element_bytes, sequence_element, short_element

JPEGLS = TRANSFER_SYNTAXES["jpegls"]


def frames(shape: tuple[int, int]) -> list[np.ndarray]:
    """Pure noise over all 16 bits, nothing at all, and something smooth."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-32768, 32768, shape).astype(np.int16)
    return [noise, np.zeros(shape, np.int16), np.cumsum(rng.integers(-3, 4, shape), 1).astype(np.int16)]


def by_pyjpegls(frame: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imagecodecs", None)
        return compressed(frame, JPEGLS)


@pytest.mark.parametrize("shape", [(8, 9), (300, 17), (256, 256)])
def test_both_jpegls_encoders_give_the_same_bytes(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation with more extras must not write other files."""
    pytest.importorskip("imagecodecs")
    for frame in frames(shape):
        assert compressed(frame, JPEGLS) == by_pyjpegls(frame, monkeypatch)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (64, 64)])
@pytest.mark.parametrize("syntax", ["jpegls", "htj2k"])
def test_voxels_that_grow_come_back(tmp_path: Path, shape: tuple[int, int], syntax: str) -> None:
    pytest.importorskip("imagecodecs")
    hu = np.stack(frames(shape))
    io.write(Volume(hu, (1.0, 1.0, 1.0)), tmp_path / "out", dicom=DicomOptions(syntax))
    np.testing.assert_array_equal(io.read(tmp_path / "out").hu, hu)


def test_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyjpegls keeps as much room as the frame itself takes: too little for a single voxel and its header."""
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UhrctError, match=r"out: .*pip install 'uhrct\[dicom\]'.*explicit") as raised:
        io.write(Volume(np.zeros((1, 1, 1), np.int16), (1.0, 1.0, 1.0)), tmp_path / "out", dicom=DicomOptions("jpegls"))
    assert str(raised.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("vr", "value"), [("UI", "1.2.3"), ("UI", "1.2.30"), ("DS", "-1.5"), ("DS", "1\\2\\3.25"), ("IS", "7")]
)
def test_short_elements_are_as_pydicom_writes_them(vr: str, value: str) -> None:
    assert short_element(0x00200032, vr, value.encode()) == element_bytes(DataElement(0x00200032, vr, value))


def test_sequences_are_as_pydicom_writes_them() -> None:
    items = [Dataset(), Dataset(), Dataset()]
    items[0].ReferencedSOPInstanceUID = "1.2.3"
    items[2].CodeMeaning = "odd"
    inside = [b"".join(element_bytes(element) for element in item) for item in items]
    whole = element_bytes(DataElement(0x00082112, "SQ", Sequence(items)))
    assert sequence_element(0x00082112, inside) == whole
