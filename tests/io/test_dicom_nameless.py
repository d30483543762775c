"""Sources whose images have no SOPInstanceUID: read all the same, so what is made of them must be written too."""

from __future__ import annotations

from pathlib import Path

import pytest
from ct_files import make_series
from ct_syntaxes import make_enhanced
from pydicom import DataElement, Dataset, dcmread
from test_conformance import derive, everything

from uhrct import io
from uhrct.core.volume import Volume


def nameless(folder: Path, *, enhanced: bool = False, seed: int = 0, missing: tuple[str, ...] = ()) -> Volume:
    def forget(ds: Dataset) -> None:
        for name in missing or ("SOPInstanceUID",):
            delattr(ds, name)

    if enhanced:
        folder.mkdir()
        make_enhanced(folder / "a.dcm", shape=(3, 6, 7), whole=forget)
    else:
        make_series(folder, shape=(3, 6, 7), seed=seed, edit=lambda k, ds: forget(ds))
    return io.read(folder)


def references(ds: Dataset) -> list[str]:
    found: list[str] = []

    def look(_: Dataset, element: DataElement) -> None:
        if element.keyword == "ReferencedSOPInstanceUID":
            found.append(element.value)

    ds.walk(look)
    return found


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "Enhanced"])
def test_nothing_refers_to_what_has_no_name(tmp_path: Path, enhanced: bool) -> None:
    pytest.importorskip("highdicom")
    source = nameless(tmp_path / "in", enhanced=enhanced)
    for file in everything(source, tmp_path):
        assert references(dcmread(file)) == []


def test_an_image_without_a_class_is_referred_to_as_ct(tmp_path: Path) -> None:
    source = nameless(tmp_path / "in", missing=("SOPClassUID",))
    for file in derive(source, tmp_path / "out"):
        [item] = dcmread(file).SourceImageSequence
        assert item.ReferencedSOPClassUID.name == "CT Image Storage"


def test_other_voxels_other_names(tmp_path: Path) -> None:
    """Without names of the source the voxels decide: two patients must never share a series, a re-run must."""
    names = []
    for seed, folder in ((0, "a"), (1, "b"), (0, "c")):
        source = nameless(tmp_path / folder, seed=seed)
        names.append(dcmread(derive(source, tmp_path / f"out-{folder}")[0]).SeriesInstanceUID)
    assert names[0] == names[2] != names[1]
