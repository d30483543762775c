"""A store gives training what its source would have given, without holding it in memory."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_files import make_series
from layouts import luna16, rplhr, save, volume

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.physics.acquisition import Acquisition
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.packing import pack
from uhrct.training.data.patients import Patient, corpus_hash, load_patients
from uhrct.training.data.store import Store

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.*all series")
Tiny = Callable[..., TrainingConfig]


def load(path: Path, **weights: float) -> list[Patient]:
    return load_patients((str(path),), weights, CPU)


def stored(source: Path, out: Path) -> Path:
    report = pack([source], out, quiet=True)
    assert report.problems == []
    return out


def same(a: Patient, b: Patient) -> bool:
    def facts(p: Patient) -> tuple[object, ...]:
        return p.name, p.spacing_mm, p.body, p.weight, p.spacing_z_mm, p.slice_thickness_mm, p.notes

    lr = (a.lr_hu is None and b.lr_hu is None) or (
        a.lr_hu is not None and b.lr_hu is not None and torch.equal(a.lr_hu, b.lr_hu)
    )
    return facts(a) == facts(b) and torch.equal(a.hu, b.hu) and lr


def mixed(root: Path) -> None:
    """Files of several kinds, one with padding, two with one name, one clipped."""
    padded = volume(0).hu
    padded[:, :4] = -3024
    save(Volume(padded, (1.25, 0.7, 0.8)), root / "p1" / "scan.nii.gz")
    save(volume(1), root / "p2" / "scan.nii.gz")
    save(Volume(volume(2).hu.clip(-1000, 600), (2.0, 0.7, 0.8), slice_thickness_mm=3.0), root / "c.npz")
    save(Volume(volume(3).hu + np.float32(0.4), (2.0, 0.7, 0.8)), root / "d.mha")


@pytest.mark.parametrize("make", [mixed, luna16, rplhr], ids=["mixed", "luna16", "rplhr"])
@pytest.mark.filterwarnings("ignore:left out")
def test_a_store_equals_its_source(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "in")
    source, packed = load(tmp_path / "in"), load(stored(tmp_path / "in", tmp_path / "store"))
    assert len(source) == len(packed) > 2
    assert all(same(a, b) for a, b in zip(source, packed, strict=True))
    assert corpus_hash(packed) == corpus_hash(source)


def test_dicom_gives_the_same_voxels_under_a_name_without_a_person(tmp_path: Path) -> None:
    make_series(tmp_path / "in" / "doe")
    [source], [packed] = load(tmp_path / "in"), load(stored(tmp_path / "in", tmp_path / "store"))
    assert torch.equal(source.hu, packed.hu)
    assert (source.spacing_z_mm, source.slice_thickness_mm) == (packed.spacing_z_mm, packed.slice_thickness_mm)
    assert source.name == "doe"  # shares of a folder corpus go by folders
    assert len(packed.name) == 12
    assert packed.name.isalnum()


def test_pairs_carry_their_measured_scan(tmp_path: Path) -> None:
    pairs = rplhr(tmp_path / "in")
    for p in load(stored(tmp_path / "in", tmp_path / "store")):
        assert p.lr_hu is not None
        assert p.hu.shape[0] == 5 * p.lr_hu.shape[0]
        assert np.array_equal(p.lr_hu.numpy(), pairs[p.name][0].hu[1:6].clip(-1024, None))
    mixed(tmp_path / "other")
    assert all(p.lr_hu is None for p in load(stored(tmp_path / "other", tmp_path / "store2")))


def test_voxels_are_mapped_and_the_file_is_safe(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "in" / "a.nii.gz")
    store = stored(tmp_path / "in", tmp_path / "store")
    before = (store / "a.raw").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that it must not write to
        [p] = load(store)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str((store / "a.raw").resolve()) in maps.read_text()
    p.hu[0, 0, 0] += 7
    assert (store / "a.raw").read_bytes() == before
    assert len(before) == 2 * p.hu.numel()


def test_bytes_are_little_endian_rows(tmp_path: Path) -> None:
    """The layout that other programs read: int16, little-endian, x fastest."""
    save(Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5, (1, 1, 1)), tmp_path / "a.nrrd")
    store = stored(tmp_path / "a.nrrd", tmp_path / "store")
    assert (store / "a.raw").read_bytes()[:4] == b"\xfb\xff\xfc\xff"


def test_parts_of_the_split(tmp_path: Path) -> None:
    luna16(tmp_path / "in")
    store = stored(tmp_path / "in", tmp_path / "store")
    names = {part: {p.name for p in load(store / part)} for part in ("train", "validation", "test")}
    assert [len(n) for n in names.values()] == [2, 1, 1]
    assert set.union(*names.values()) == {p.name for p in load(store)}
    (store / "split.json").write_text(json.dumps({"train": sorted(names["train"])}))
    with pytest.raises(UhrctError, match="no series in part test"):
        load(store / "test")
    first = sorted(names["train"])[0]
    assert {p.name: p.weight for p in load_patients((str(store / "train"),), {first: 0.25}, CPU)}[first] == 0.25


def test_reading_all_parts_of_a_store_is_said(tmp_path: Path) -> None:
    luna16(tmp_path / "in")
    store = stored(tmp_path / "in", tmp_path / "store")
    with pytest.warns(UserWarning, match="also those for validation and test"):
        load(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(store / "train")


def test_on_another_device_voxels_are_copied_there(tmp_path: Path) -> None:
    rplhr(tmp_path / "in")
    store = stored(tmp_path / "in", tmp_path / "store")
    for p in load_patients((str(store / "train"),), {}, torch.device("meta")):
        assert p.lr_hu is not None
        assert {p.hu.device.type, p.lr_hu.device.type} == {"meta"}


@pytest.mark.parametrize("damage", ["missing", "short", "index", "format", "key"])
def test_a_damaged_store_is_said(tmp_path: Path, damage: str) -> None:
    save(volume(0), tmp_path / "in" / "a.nii.gz")
    store = stored(tmp_path / "in", tmp_path / "store")
    if damage == "missing":
        (store / "a.raw").unlink()
    elif damage == "short":
        (store / "a.raw").write_bytes((store / "a.raw").read_bytes()[:-2])
    else:
        text = (store / "store.json").read_text()
        edits = {"format": ("store-1", "store-9"), "key": ('"body"', '"b"')}
        wrong = text[:-20] if damage == "index" else text.replace(*edits[damage])
        (store / "store.json").write_text(wrong)
    with pytest.raises(UhrctError, match=r"a\.raw: missing or damaged" if damage in ("missing", "short") else "store"):
        load(store)


def test_check_sees_one_wrong_bit(tmp_path: Path) -> None:
    save(volume(0), tmp_path / "in" / "a.nii.gz")
    folder = stored(tmp_path / "in", tmp_path / "store")
    store = Store(folder)
    [entry] = store.patients()
    assert store.check(entry.hr)
    content = bytearray((folder / "a.raw").read_bytes())
    content[100] ^= 1
    (folder / "a.raw").write_bytes(content)
    assert not store.check(entry.hr)


def test_batches_from_a_store_are_those_from_its_source(tmp_path: Path, tiny: Tiny) -> None:
    [source] = tiny().data.corpus
    store = stored(Path(source), tmp_path / "store")
    (store / "split.json").write_text(json.dumps({"train": ["a", "b"]}))
    first, second = (
        BatchMaker(load(place), tiny().data, Acquisition((1, 2, 2)))(3) for place in (Path(source), store / "train")
    )
    assert torch.equal(first.lr_hu, second.lr_hu)
    assert torch.equal(first.hr_hu, second.hr_hu)
    assert first.spacing_mm == second.spacing_mm
