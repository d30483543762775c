"""Which series a cohort holds, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from ct_files import make_series

from uhrct.batch.series import find_series
from uhrct.core.errors import NothingToDo, UhrctError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_series(tmp_path / "in" / "study" / "one")
    for name in ("flat.nii.gz", "study/x.NRRD", "notes.txt", "study/.nii"):
        (tmp_path / "in" / name).write_text("")
    return tmp_path / "in"


def test_a_folder_gives_dicom_series_and_volume_files(folder: Path) -> None:
    found = {s.name: s for s in find_series(str(folder))}
    assert set(found) == {"flat", "study/x", "study/one"}
    assert found["study/one"].path == folder / "study" / "one"
    assert found["study/one"].uid == ""
    out = Path("out")
    assert [s.output(out) for s in found.values()] == [out / "flat.nii.gz", out / "study/x.nrrd", out / "study/one"]
    assert found["study/one"].output(out, ".nii") == out / "study/one.nii"


def test_two_series_of_one_folder_are_told_apart_by_their_uid(folder: Path) -> None:
    make_series(folder / "study" / "one", seed=1, name="second-{:03d}.dcm")
    found = [s for s in find_series(str(folder)) if s.name.startswith("study/one")]
    assert len({s.uid for s in found}) == 2
    assert {s.name for s in found} == {f"study/one/{s.uid}" for s in found}


def test_a_pattern_names_results_by_the_path_after_its_fixed_part(folder: Path) -> None:
    assert [s.name for s in find_series(str(folder / "*" / "x.*"))] == ["study/x"]
    assert [s.name for s in find_series(str(folder / "stud?"))] == ["study/x", "study/one"]


def test_a_manifest_gives_paths_relative_to_itself_and_names(folder: Path) -> None:
    (folder / "list.csv").write_text("name,path,series\npatient-7/ct,study/one,1.2.3\n,flat.nii.gz,\n")
    first, second = find_series(str(folder / "list.csv"))
    assert (first.name, first.path, first.uid) == ("patient-7/ct", folder / "study" / "one", "1.2.3")
    assert second.name == "flat"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file\nct.nii\n", "row 1 has no path"),
        ("path,name\nct.nii,../../etc/x\n", "leads out of the output folder"),
        ("path,name\nct.nii,/etc/x\n", "leads out of the output folder"),
        ("path,name\na.nii,same\nb.nii,same\n", "two series would both be written to same"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UhrctError, match=words):
        find_series(str(tmp_path / "list.csv"))


def test_nothing_to_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no series"):
        find_series(str(tmp_path))
    with pytest.raises(UhrctError, match="no such file or folder"):
        find_series(str(tmp_path / "nowhere"))
