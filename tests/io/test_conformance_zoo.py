"""No error in what we write that was not in the source: every odd series that can be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import zoo
import zoo_places
from conformance import errors
from pydicom import Dataset, dcmwrite
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from test_conformance import derive

from uhrct import io
from uhrct.core.volume import Volume


def first_source(volume: Volume, file: Path) -> Path:
    """The first header that a volume was read from, as a plain file: checkers read no zips, nor all syntaxes."""
    header = volume.meta["dicom_frames"][0][0] if "dicom_frames" in volume.meta else volume.meta["dicom"][0]
    plain = Dataset()
    plain.update({tag: header[tag] for tag in [*header.keys()] if tag.group > 0x0002})
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.file_meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID") or "1.2"
    dcmwrite(file, plain, enforce_file_format=True)
    return file


@pytest.mark.parametrize("name", zoo.CASES)
def test_odd_series(tmp_path: Path, name: str) -> None:
    assert zoo_places.CASES is zoo.CASES
    (tmp_path / "scan").mkdir()
    expected = zoo.CASES[name](tmp_path / "scan")
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        volume = io.read(expected.path or tmp_path / "scan", **expected.options)
        source = first_source(volume, tmp_path / "source.dcm")
        first, *_ = derive(volume, tmp_path / "out")
    assert errors([first]) <= errors([source])
