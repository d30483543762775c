"""Packing: the same voxels whatever the layout, nothing half-written, nothing twice, no persons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ct_files import PATIENT, make_series
from layouts import UHRCT_MM, UID, luna16, rplhr, save, thick_and_thin, uhrct_npz, volume

from uhrct.cli import main as cli
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.training.data import packing as packing_module
from uhrct.training.data.packing import Report, pack, split_by_hash, summary
from uhrct.training.data.store import Store


def packed(*sources: Path, out: Path, **options: object) -> tuple[Report, Store]:
    report = pack(list(sources), out, quiet=True, **options)  # type: ignore[arg-type]
    return report, Store(out)


def voxels(store: Store, name: str) -> np.ndarray:
    return store.voxels(store.entries[name].hr).numpy()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# --- layouts


def test_uhrct_npz(tmp_path: Path) -> None:
    expected = uhrct_npz(tmp_path / "d1")
    report, store = packed(tmp_path / "d1", out=tmp_path / "store", spacing_mm=UHRCT_MM)
    assert sorted(report.packed) == sorted(store.entries) == sorted(expected)
    for name, hu in expected.items():
        assert np.array_equal(voxels(store, name), hu.clip(-1024, None))
        assert store.entries[name].hr.spacing_mm == UHRCT_MM
    notes = {name: e.notes for name, e in store.entries.items()}
    assert notes == {
        "whole": (),
        "clipped": ("clipped to [-1000, 600] HU",),
        "p7": ("12 files of one slice each",),
    }
    assert "note: clipped to [-1000, 600] HU: clipped" in summary(report, tmp_path / "store")


def test_luna16(tmp_path: Path) -> None:
    scans = luna16(tmp_path / "LUNA16")
    report, store = packed(tmp_path / "LUNA16", out=tmp_path / "store")
    assert len(report.packed) == 4
    assert [len(store.patients(part)) for part in ("train", "validation", "test")] == [2, 1, 1]
    for name, scan in scans.items():
        assert np.array_equal(voxels(store, name), scan.hu.clip(-1024, None))
    findings = {name: e.findings for name, e in store.entries.items()}
    assert findings.pop(UID.format(0)) == [{"voxel": pytest.approx([2.0, 10.0, 10.0]), "diameter_mm": 6.5}]
    assert not any(findings.values())
    assert packed(tmp_path / "LUNA16" / "subset0", out=tmp_path / "one")[1].entries[UID.format(0)].findings
    report, whole = packed(tmp_path / "LUNA16", out=tmp_path / "one")  # the rest of it later
    assert (report.kept, len(report.packed)) == ([UID.format(0)], 3)
    assert whole.split == store.split


def test_rplhr(tmp_path: Path) -> None:
    pairs = rplhr(tmp_path / "RPLHR")
    _, store = packed(tmp_path / "RPLHR", out=tmp_path / "store")
    assert [[e.name for e in store.patients(part)] for part in ("train", "validation", "test")] == [
        ["CT00000000"],
        ["CT00000001"],
        ["CT00000002"],
    ]
    for name, (thick, thin) in pairs.items():
        entry = store.entries[name]
        assert np.array_equal(voxels(store, name), thin.hu[3:28].clip(-1024, None))
        assert entry.lr is not None
        assert np.array_equal(store.voxels(entry.lr).numpy(), thick.hu[1:6].clip(-1024, None))
        assert (entry.lr.slice_thickness_mm, entry.hr.slice_thickness_mm) == (5.0, 1.0)


def test_dicom_without_the_person(tmp_path: Path) -> None:
    hu = make_series(tmp_path / "in" / PATIENT / "IMAGES", name="{}", seed=1)
    other = make_series(tmp_path / "in" / PATIENT / "IMAGES", name="x{}", number=9, seed=2)
    (tmp_path / "in" / "z").mkdir()
    _, store = packed(tmp_path / "in", out=tmp_path / "store")
    for name, expected in zip(store.entries, (hu, other), strict=True):
        assert np.array_equal(voxels(store, name), expected)
        assert store.entries[name].hr.slice_thickness_mm == 3.0
    everything = b"".join(content for name, content in contents(tmp_path / "store").items() if name.endswith("json"))
    for word in (PATIENT, "DOE", "4711", "IMAGES", "CHEST"):
        assert word.encode() not in everything
        assert not any(word in name for name in contents(tmp_path / "store"))


def test_a_person_lies_in_one_part(tmp_path: Path) -> None:
    """Twelve persons, three series each: by series they would not stay together."""
    for person in range(12):
        for k in range(3):
            make_series(
                tmp_path / "in" / f"{person}-{k}",
                shape=(3, 8, 8),
                seed=10 * person + k,
                edit=lambda _, ds, person=person: setattr(ds, "PatientID", f"id{person}"),
            )
    _, store = packed(tmp_path / "in", out=tmp_path / "store")
    names = list(store.entries)  # in order of folders: 0-0, 0-1, 0-2, 1-0, 10-0, ...
    parts = [next(p for p, held in store.split.items() if n in held) for n in names]
    assert all(len(set(parts[k : k + 3])) == 1 for k in range(0, 36, 3))
    assert len({split_by_hash(n) for n in names}) > 1
    assert len(set(parts)) > 1


def test_masks_and_doubles_are_no_patients(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "in" / "imagesTr" / "a.nii.gz")
    save(Volume((volume(0).hu > 0).astype(np.int16), (1, 1, 1)), tmp_path / "in" / "labelsTr" / "a.nii.gz")
    make_series(tmp_path / "in" / "x", seed=3)
    make_series(tmp_path / "in" / "y", seed=3)
    report, store = packed(tmp_path / "in", out=tmp_path / "store")
    assert len(store.entries) == 2
    assert "mask" in report.left_out[0]
    assert "same series" in report.problems[0]


# --- nothing half-written, nothing twice


class Cut(Exception):
    """The power goes off."""


@pytest.mark.parametrize("moment", ["reading", "writing", "index"])
def test_a_killed_pack_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    for k in range(4):
        save(volume(k), tmp_path / "in" / f"p{k}.nii.gz")
    packed(tmp_path / "in", out=tmp_path / "whole")
    calls = 0

    def cut(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Cut

    with monkeypatch.context() as patch:
        if moment == "reading":
            whole = packing_module.read_scan
            patch.setattr(packing_module, "read_scan", lambda *a, **k: (cut(), whole(*a, **k))[1])
        elif moment == "writing":  # the file lies there, the patient must not count
            box = packing_module.body_box
            patch.setattr(packing_module, "body_box", lambda hu: (cut(), box(hu))[1])
        else:
            add = Store.add
            patch.setattr(Store, "add", lambda *a: (cut(), add(*a))[1])
        with pytest.raises(Cut):
            packed(tmp_path / "in", out=tmp_path / "store")
    assert list(Store(tmp_path / "store").entries) == ["p0", "p1"]
    report, _ = packed(tmp_path / "in", out=tmp_path / "store")
    assert (report.kept, report.packed) == (["p0", "p1"], ["p2", "p3"])
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_what_is_packed_is_not_read_again_unless_it_changed(tmp_path: Path) -> None:
    uhrct_npz(tmp_path / "in")
    _, store = packed(tmp_path / "in", out=tmp_path / "store", spacing_mm=UHRCT_MM)
    assert packed(tmp_path / "in", out=tmp_path / "store", spacing_mm=UHRCT_MM)[0].packed == []
    np.savez(tmp_path / "in" / "whole.npz", volume(7, (5, 40, 44)).hu)
    report, store = packed(tmp_path / "in", out=tmp_path / "store", spacing_mm=UHRCT_MM)
    assert report.packed == ["whole"]
    assert np.array_equal(voxels(store, "whole"), volume(7, (5, 40, 44)).hu.clip(-1024, None))
    report, store = packed(tmp_path / "in", out=tmp_path / "store", spacing_mm=(2.0, 0.5, 0.5))
    assert len(report.packed) == 3
    assert store.entries["whole"].hr.spacing_mm == (2.0, 0.5, 0.5)


def test_a_header_of_equal_length_hides_no_other_scan(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "in" / "a.mhd")
    packed(tmp_path / "in", out=tmp_path / "store")
    before = (tmp_path / "in" / "a.mhd").stat().st_size
    for suffix in ("mhd", "raw"):
        (tmp_path / "in" / f"a.{suffix}").unlink()
    save(volume(1, (5, 40, 44)), tmp_path / "in" / "a.mhd")
    assert (tmp_path / "in" / "a.mhd").stat().st_size == before
    assert packed(tmp_path / "in", out=tmp_path / "store")[0].packed == ["a"]


def test_a_series_that_grew_is_packed_again(tmp_path: Path) -> None:
    make_series(tmp_path / "in", edit=lambda k, ds: k < 4)  # the last slice is still on its way
    _, store = packed(tmp_path / "in", out=tmp_path / "store")
    [name] = store.entries
    hu = make_series(tmp_path / "in")
    report, store = packed(tmp_path / "in", out=tmp_path / "store")
    assert report.packed == [name]
    assert np.array_equal(voxels(store, name), hu)


def test_damage_to_the_store_is_repaired(tmp_path: Path) -> None:
    for k in range(3):
        save(volume(k), tmp_path / "in" / f"p{k}.nii.gz")
    packed(tmp_path / "in", out=tmp_path / "store")
    before = contents(tmp_path / "store")
    short, wrong = tmp_path / "store" / "p0.raw", tmp_path / "store" / "p1.raw"
    short.write_bytes(before["p0.raw"][:-2])
    wrong.write_bytes(b"\0\0" + before["p1.raw"][2:])
    assert packed(tmp_path / "in", out=tmp_path / "store")[0].packed == ["p0"]
    assert packed(tmp_path / "in", out=tmp_path / "store", verify=True)[0].packed == ["p1"]
    for entry in Store(tmp_path / "store").patients():
        assert Store(tmp_path / "store").check(entry.hr)
    assert contents(tmp_path / "store") == before  # also the order of patients: batches depend on it


def test_a_patient_whose_files_are_being_replaced_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        save(volume(k), tmp_path / "in" / f"p{k}.nii.gz")
    packed(tmp_path / "in", out=tmp_path / "store")
    (tmp_path / "in" / "p0.nii.gz").unlink()
    save(volume(5, (4, 40, 45)), tmp_path / "in" / "p0.nii.gz")
    with monkeypatch.context() as patch:
        patch.setattr(packing_module, "body_box", lambda hu: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            packed(tmp_path / "in", out=tmp_path / "store")
    assert [e.name for e in Store(tmp_path / "store").patients()] == ["p1"]
    _, store = packed(tmp_path / "in", out=tmp_path / "store")
    assert [e.name for e in store.patients()] == ["p0", "p1"]
    assert voxels(store, "p0").shape == (4, 40, 45)


def test_damaged_sources_are_lines_and_the_rest_is_packed(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "in" / "good.nii.gz")
    save(volume(1), tmp_path / "in" / "cut.nii.gz")
    cut = tmp_path / "in" / "cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:300])
    (tmp_path / "in" / "junk.npz").write_bytes(b"no zip")
    make_series(tmp_path / "in" / "gap", edit=lambda k, ds: k != 2)
    make_series(tmp_path / "in" / "fine", seed=5)
    report, store = packed(tmp_path / "in", out=tmp_path / "store")
    assert len(store.entries) == 2
    assert sorted(Path(line.split(":")[0]).name for line in report.problems) == ["cut.nii.gz", "gap", "junk.npz"]
    assert not any("\n" in line for line in report.problems)
    assert len(packed(tmp_path / "in", out=tmp_path / "store")[0].problems) == 3  # tried again


# --- splits


def test_the_split_is_the_names_own(tmp_path: Path) -> None:
    for k in range(5):
        save(volume(k, (2, 8, 8)), tmp_path / "in" / f"p{k}.nii.gz")
    _, store = packed(tmp_path / "in", out=tmp_path / "all")
    for k in range(5):  # whoever is packed beside it
        _, alone = packed(tmp_path / "in" / f"p{k}.nii.gz", out=tmp_path / f"alone{k}")
        part = next(part for part, names in alone.split.items() if names)
        assert f"p{k}" in store.split[part]
    parts = [split_by_hash(str(k)) for k in range(1000)]
    assert 60 < parts.count("test") < 140
    assert 60 < parts.count("validation") < 140


def test_a_given_split_rules(tmp_path: Path) -> None:
    for k in range(3):
        save(volume(k, (2, 8, 8)), tmp_path / "in" / "train" / f"p{k}.nii.gz")
    (tmp_path / "split.json").write_text(json.dumps({"train": ["p1"], "test": ["p0"]}))
    report, store = packed(tmp_path / "in", out=tmp_path / "store", split=tmp_path / "split.json")
    assert store.split == {"train": ["p1"], "validation": [], "test": ["p0"]}
    assert "p2: packed, but in no part" in report.left_out[0]
    (tmp_path / "store" / "split.json").write_text(json.dumps({"validation": ["p1"], "test": ["p0", "p2"]}))
    _, store = packed(tmp_path / "in", out=tmp_path / "store")  # an edited split stays
    assert store.split == {"train": [], "validation": ["p1"], "test": ["p0", "p2"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"train": ["a"], "test": ["a"]}', "a stands in it twice"),
        ('{"training": ["a"]}', "a split file is"),
        ('{"train": "a"}', "a split file is"),
        ("[]", "no JSON object"),
        ("{", "not JSON"),
    ],
)
def test_bad_split_files_are_said_before_any_work(tmp_path: Path, text: str, words: str) -> None:
    save(volume(0), tmp_path / "a.nii.gz")
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UhrctError, match=words):
        packed(tmp_path, out=tmp_path / "store", split=tmp_path / "split.json")
    assert not (tmp_path / "store").exists()


def test_no_folder_is_taken_for_a_store(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "a.nii.gz")
    with pytest.raises(UhrctError, match="exists and is not a store"):
        packed(tmp_path / "a.nii.gz", out=tmp_path)


# --- the verb


def uhrct(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["uhrct", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    uhrct_npz(tmp_path / "d1")
    store = tmp_path / "store"
    code, out, err = uhrct(capsys, monkeypatch, "pack", tmp_path / "d1", "--out", store)
    assert code == 3
    assert err.count("not packed") == 3
    assert "--input-spacing" in err
    told = ("--input-spacing", "1,0.34,0.34")
    code, out, err = uhrct(capsys, monkeypatch, "pack", tmp_path / "d1", "--out", store, *told)
    assert code == 0
    assert "3 series" in out
    assert "clipped to [-1000, 600] HU: clipped" in out
    assert "packing" in err
    assert "(3 train, 0 validation, 0 test)" in out
    assert "note: no series is in the validation part" in out
    split = json.loads((store / "split.json").read_text())
    split["validation"] = [split["train"].pop()]
    (store / "split.json").write_text(json.dumps(split))
    again = uhrct(capsys, monkeypatch, "pack", tmp_path / "d1", "--out", store, *told)[1]
    assert "(2 train, 1 validation, 0 test)" in again
    assert "validation part" not in again
    quiet = uhrct(capsys, monkeypatch, "pack", tmp_path / "d1", "--out", store, *told, "-q")[1]
    assert quiet == again.split("\n", 1)[1]  # the notes stay
    code, out, err = uhrct(capsys, monkeypatch, "pack", tmp_path / "d1", "--out", store, "--unit-hu", "5", "-q")
    assert (code, out) == (2, "")
    assert "LOW,HIGH" in err


def test_the_verb_takes_voxels_that_are_no_hu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides of a pair mapped to [0, 1], as the authors' code of RPLHR-CT has them."""
    for thickness, scan in zip(("5mm", "1mm"), thick_and_thin(0), strict=True):
        mapped = ((scan.hu.clip(-1024, 3071) + 1024.0) / 4095).astype(np.float32)
        save(Volume(mapped, scan.spacing_mm, scan.origin_mm), tmp_path / "in" / "val" / thickness / "CT7.nii.gz")
    command = ("pack", tmp_path / "in", "--out", tmp_path / "store", "-q")
    code, out, err = uhrct(capsys, monkeypatch, *command)
    assert (code, out) == (3, "")
    assert "lie in [0, 1]" in err
    code, out, err = uhrct(capsys, monkeypatch, *command, "--unit-hu", "-1024,3071")
    assert (code, out, err) == (0, "note: cut to LR slices 1 to 5 of 7, HR slices 3 to 27 of 31: CT7\n", "")
    store = Store(tmp_path / "store")
    assert store.split["validation"] == ["CT7"]
    assert np.array_equal(voxels(store, "CT7"), thick_and_thin(0)[1].hu[3:28].clip(-1024, 3071))
