"""Every layout that users have: who the patients are, how they are read, and which part they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series
from layouts import UHRCT_MM, UID, luna16, rplhr, save, thick_and_thin, uhrct_npz, volume

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.training.data.datasets import Listing, list_scans, read_scan, series_of
from uhrct.training.data.luna16 import findings_of, read_luna16_annotations
from uhrct.training.data.pairs import Pair


def names(listing: Listing) -> list[str]:
    return [s.name for s in listing.scans]


# --- npz


def test_uhrct_volumes_and_slices(tmp_path: Path) -> None:
    expected = uhrct_npz(tmp_path / "d1")
    listing = list_scans(tmp_path / "d1")
    assert listing.layout == "npz"
    assert sorted(names(listing)) == sorted(expected)
    for scan in listing.scans:
        read = read_scan(scan, spacing_mm=UHRCT_MM)
        assert isinstance(read, Volume)
        assert np.array_equal(read.hu, expected[scan.name])  # slices in the order of their numbers
        assert read.spacing_mm == UHRCT_MM
        with pytest.raises(UhrctError, match="`spacing_mm=Z,Y,X`"):
            read_scan(scan)


def test_a_stored_spacing_is_kept(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "a.npz")
    [scan] = list_scans(tmp_path).scans
    read = read_scan(scan, spacing_mm=UHRCT_MM)
    assert isinstance(read, Volume)
    assert read.spacing_mm == (1.25, 0.7, 0.8)


def test_slices_of_other_patients_stay_apart(tmp_path: Path) -> None:
    for name in ("p1_1", "p1_2", "p2_1", "p2_2", "lone"):
        np.savez(tmp_path / f"{name}.npz", np.zeros((8, 8), np.int16))
    np.savez(tmp_path / "p1_3.npz", np.zeros((9, 8), np.int16))  # another size, so another scan
    found = {s.name: len(s.paths) for s in list_scans(tmp_path).scans}
    assert found == {"p1": 2, "p2": 2, "p1_3": 1, "lone": 1}


# --- LUNA16


def test_luna16_subsets_are_splits(tmp_path: Path) -> None:
    scans = luna16(tmp_path / "LUNA16")
    listing = list_scans(tmp_path / "LUNA16")
    assert listing.layout == "luna16"
    assert [(s.name, s.split) for s in listing.scans] == [
        (UID.format(0), "train"),
        (UID.format(1), "train"),
        (UID.format(2), "validation"),
        (UID.format(3), "test"),
    ]
    assert len(listing.left_out) == 1  # the lung masks are no patients
    for scan in listing.scans:
        read = read_scan(scan)
        assert isinstance(read, Volume)
        assert np.array_equal(read.hu, scans[scan.name].hu)
    [alone] = list_scans(tmp_path / "LUNA16" / "subset9").scans
    assert alone.split == "test"


def test_annotations_fall_on_their_voxels(tmp_path: Path) -> None:
    scans = luna16(tmp_path)
    grid = scans[UID.format(0)].grid
    nodules = read_luna16_annotations(tmp_path / "annotations.csv")
    [nodule] = findings_of(nodules[UID.format(0)], grid)
    assert nodule.voxel == pytest.approx((2.5 / 1.25, 7 / 0.7, 8 / 0.8))
    assert (nodule.diameter_mm, nodule.is_nodule) == (6.5, True)
    candidates = findings_of(read_luna16_annotations(tmp_path / "candidates.csv")[UID.format(0)], grid)
    assert [(c.is_nodule, c.diameter_mm) for c in candidates] == [(True, None), (False, None)]
    assert candidates[1].voxel == pytest.approx((0, 0, 0))


def test_annotations_follow_the_scans_directions(tmp_path: Path) -> None:
    """Any voxel's centre in the patient, told as LPS, comes back as that voxel: also where x and y run backwards."""
    luna16(tmp_path)
    row = read_luna16_annotations(tmp_path / "annotations.csv")[UID.format(0)][0]
    backwards = np.eye(3)[::-1] * np.array([1.0, -1.0, -1.0])
    for direction in (np.eye(3)[::-1], backwards):
        voxel = np.array([3.0, 11.0, 20.0])
        spacing = np.array([2.0, 0.6, 0.7])
        origin = np.asarray(row.centre_mm) - direction @ (spacing * voxel)
        hu = np.zeros((9, 30, 30), np.int16)
        scan = Volume(hu, (2.0, 0.6, 0.7), (origin[0], origin[1], origin[2]), direction)
        assert findings_of([row], scan)[0].voxel == pytest.approx(tuple(voxel))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("uid,x,y,z\n1,2,3,4\n", "no column"),
        ("seriesuid,coordX,coordY,coordZ\n1,2,here,4\n", "line 2"),
        ("seriesuid,coordX,coordY,coordZ\n1,2\n", "line 2"),
        ("", "no column"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "annotations.csv").write_text(text)
    with pytest.raises(UhrctError, match=words):
        read_luna16_annotations(tmp_path / "annotations.csv")
    with pytest.raises(UhrctError, match="cannot be read"):
        read_luna16_annotations(tmp_path / "none.csv")


# --- RPLHR-CT


def test_pairs_share_the_patient(tmp_path: Path) -> None:
    pairs = rplhr(tmp_path / "RPLHR")
    listing = list_scans(tmp_path / "RPLHR")
    assert listing.layout == "rplhr"
    assert {s.name: s.split for s in listing.scans} == {
        "CT00000000": "train",
        "CT00000001": "validation",
        "CT00000002": "test",
    }
    for scan in listing.scans:
        read = read_scan(scan)
        assert isinstance(read, Pair)
        thick, thin = pairs[scan.name]
        assert np.array_equal(read.hr.hu, thin.hu[3:28])
        assert np.array_equal(read.lr.hu, thick.hu[1:6])
        assert (read.lr.slice_thickness_mm, read.hr.slice_thickness_mm) == (5.0, 1.0)
    assert [s.split for s in list_scans(tmp_path / "RPLHR" / "val").scans] == ["validation"]


def test_pairs_by_suffix(tmp_path: Path) -> None:
    for k in range(2):
        for side, name in zip(thick_and_thin(k), ("5mm", "1mm"), strict=True):
            save(side, tmp_path / f"CT{k}_{name}.nii.gz")
    save(volume(9), tmp_path / "CT9_5mm.nii.gz")
    save(volume(9), tmp_path / "other.nii.gz")
    listing = list_scans(tmp_path)
    assert (listing.layout, names(listing)) == ("rplhr", ["CT0", "CT1"])
    assert ["CT9_5mm" in line or "other" in line for line in listing.left_out] == [True, True]


def test_exchanged_patients_are_refused(tmp_path: Path) -> None:
    pairs = rplhr(tmp_path / "RPLHR")
    wrong = tmp_path / "RPLHR" / "train" / "5mm" / "CT00000000.nii.gz"
    wrong.unlink()
    io.write(pairs["CT00000001"][0], wrong)
    scan = next(s for s in list_scans(tmp_path / "RPLHR").scans if s.name == "CT00000000")
    with pytest.raises(UhrctError, match=r"5mm.CT00000000\.nii\.gz: correlates .* not the same patient"):
        read_scan(scan)


# --- voxels that are no HU


def test_unit_voxels_are_refused_until_someone_says_what_they_are(tmp_path: Path) -> None:
    """The published small RPLHR-CT holds voxels in [0, 1]."""
    hu = volume(0).hu.clip(-1024, 3071)
    mapped = ((hu.astype(np.float64) + 1024) / 4095).astype(np.float32)
    save(Volume(mapped, (1, 1, 1)), tmp_path / "a.nii.gz")
    [scan] = list_scans(tmp_path).scans
    with pytest.raises(UhrctError, match=r"a\.nii\.gz: voxels lie in \[0, 1\].*give unit_hu"):
        read_scan(scan)
    read = read_scan(scan, unit_hu=(-1024, 3071))
    assert isinstance(read, Volume)
    assert np.array_equal(read.hu, hu)


# --- trees


def test_a_mixed_tree(tmp_path: Path) -> None:
    make_series(tmp_path / "validation" / "s1" / "deep", name="{}")
    save(volume(0), tmp_path / "train" / "a.nii.gz")
    save(volume(1), tmp_path / "b.mha")
    (tmp_path / "train" / ".hidden.npz").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("DICM " * 40)
    listing = list_scans(tmp_path)
    assert listing.layout == "tree"
    assert {s.name: s.split for s in listing.scans} == {"deep": "validation", "b": None, "a": "train"}


def test_a_study_folder_is_taken_apart(tmp_path: Path) -> None:
    make_series(tmp_path / "study" / "one", name="{}", number=1, seed=1)
    make_series(tmp_path / "study" / "one" / "below", name="{}", number=2, seed=2)
    [scan] = list_scans(tmp_path).scans  # inspection looks below by itself
    series, left_out, problems = series_of(scan)
    assert [s.series for s in series] == ["1", "2"]
    assert len({s.uid for s in series}) == 2
    assert left_out == problems == []


@pytest.mark.parametrize("layout", ["npz", "luna16", "rplhr", "tree"])
def test_a_layout_that_is_not_there_is_said(tmp_path: Path, layout: str) -> None:
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(UhrctError, match="holds no"):
        list_scans(tmp_path, layout)
