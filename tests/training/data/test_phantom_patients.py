"""Phantoms as patients: what is true of them arrives beside their voxels, cut and turned alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.physics.acquisition import Acquisition
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batch import exact_map
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.packing import pack
from uhrct.training.data.patients import Patient, corpus_hash, load_patients

CPU = torch.device("cpu")
Tiny = Callable[..., TrainingConfig]


def phantom(folder: Path, seed: int = 0, image: str = "ct.nii.gz") -> Path:
    """What `uhrct phantom` leaves, in small: a lung with a vessel, a nodule in it, tissue around."""
    folder.mkdir(parents=True)
    _, y, x = np.mgrid[:3, :80, :84]
    lung = np.hypot(y - 40, x - 42) < 34
    vessel = (np.abs(x - 30 - y // 4) < 2) & lung
    nodule = np.hypot(y - 55, x - 50) < 5
    rng = np.random.default_rng(seed)
    hu = np.where(vessel | nodule, 20, np.where(lung, -860, 40)) + rng.normal(0, 3, lung.shape)
    volumes = {"lungs": lung, "lobes": lung, "vessels": vessel, "airways": lung & False, "nodules": nodule}
    for name, label in volumes.items():
        io.write(Volume(label.astype(np.int16), (1.25, 0.7, 0.8)), folder / f"{name}.nii.gz")
    io.write(Volume(np.rint(hu).astype(np.int16), (1.25, 0.7, 0.8)), folder / image)
    np.savez(folder / "truth.npz", artery_parent=np.array([-1, 0]))
    (folder / "truth.json").write_text("{}")
    return folder


def load(path: Path) -> list[Patient]:
    return load_patients((str(path),), {}, CPU)


def test_the_map_knows_the_lungs_and_nothing_else(tmp_path: Path) -> None:
    [p] = load(phantom(tmp_path / "in" / "chest3").parent)
    assert p.name == "chest3"
    assert p.structure is not None
    assert p.structure.shape == p.hu.shape
    exact = exact_map(p.structure.float())
    hu = p.hu.float()
    assert (exact[hu < -700] == 0).all()
    assert (hu[exact == 1] > -100).all()
    assert exact[0, 0, 0].isnan()  # tissue
    assert exact[0, 55, 50].isnan()  # the nodule
    assert exact[0, 40, 40] == 1  # a vessel


@pytest.mark.parametrize("image", ["ct.nii.gz", "chest.mha"])
def test_packed_it_is_the_same(tmp_path: Path, image: str) -> None:
    phantom(tmp_path / "in" / "a", 1, image)
    phantom(tmp_path / "in" / "b", 2, image)
    report = pack([tmp_path / "in"], tmp_path / "store", quiet=True)
    assert (report.packed, report.problems) == (["a", "b"], [])
    source, packed = load(tmp_path / "in"), load(tmp_path / "store")
    for a, b in zip(source, packed, strict=True):
        assert a.structure is not None
        assert b.structure is not None
        assert torch.equal(a.structure, b.structure)
        assert torch.equal(a.hu, b.hu)
    assert corpus_hash(source) == corpus_hash(packed)
    bare = [replace(p, structure=None) for p in packed]
    assert corpus_hash(bare) != corpus_hash(packed)  # a training without the truth saw something else
    again = pack([tmp_path / "in"], tmp_path / "store", quiet=True)
    assert again.kept == ["a", "b"]


def test_a_lost_map_is_packed_again(tmp_path: Path) -> None:
    pack([phantom(tmp_path / "in" / "a").parent], tmp_path / "store", quiet=True)
    (tmp_path / "store" / "a.structure.raw").unlink()
    with pytest.raises(UhrctError, match="missing or damaged"):
        load(tmp_path / "store")
    assert pack([tmp_path / "in"], tmp_path / "store", quiet=True).packed == ["a"]
    assert load(tmp_path / "store")[0].structure is not None


def test_other_folders_beside_phantoms_are_named(tmp_path: Path) -> None:
    phantom(tmp_path / "in" / "a")
    (tmp_path / "in" / "scan").mkdir()
    io.write(Volume(np.full((2, 8, 8), -1000, np.int16), (1.0, 1.0, 1.0)), tmp_path / "in" / "scan" / "s.nii.gz")
    report = pack([tmp_path / "in"], tmp_path / "store", quiet=True)
    assert report.packed == ["a"]
    assert "in/scan: not a folder of uhrct phantom" in report.left_out[0]


def test_missing_labels_are_a_line(tmp_path: Path) -> None:
    folder = phantom(tmp_path / "in" / "a")
    (folder / "vessels.nii.gz").unlink()
    with pytest.raises(UhrctError, match=r"vessels\.nii\.gz: missing"):
        load(tmp_path / "in")


@pytest.mark.parametrize("scale", [(1, 2, 2), (3, 2, 2)])
def test_maps_are_cut_turned_and_coarsened_with_their_voxels(tiny: Tiny, scale: tuple[int, int, int]) -> None:
    """A patient whose map says its own HU: wherever a crop comes from, both must still agree."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 30, 10, 10, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, (30, 96, 96), mode="trilinear")[0, 0]
    per_mille = (1000 * smooth).short()
    p = Patient("p", per_mille, (0.7, 0.8), (0, 96, 0, 96), 1.0, 1.0, structure=per_mille)
    other = replace(p, name="other", structure=None)
    settings = tiny(data={"augmented": 0.5, "crop": 16, "batch": 8}).data
    make = BatchMaker([p, other], settings, Acquisition(scale), context=2 if scale[0] > 1 else 0)
    seen = set()
    for step in range(3):
        batch = make(step)
        assert batch.structure is not None
        assert batch.structure.shape == batch.hr_hu.shape
        for exact, hr in zip(batch.structure, batch.hr_hu, strict=True):
            seen.add(bool(exact.isnan().all()))
            if exact.isnan().all():
                continue
            # the truth of augmented items has another kernel and noise, and a coarser map takes the maximum
            assert torch.corrcoef(torch.stack([exact.flatten(), hr.flatten()]))[0, 1] > 0.95
    assert seen == {True, False}


def test_unknown_voxels_stay_unknown(tiny: Tiny) -> None:
    hu = torch.zeros(6, 96, 96, dtype=torch.int16)
    structure = hu.clone()
    structure[:, :, 40:] = -1
    p = Patient("p", hu, (0.7, 0.7), (0, 96, 0, 96), 1.0, 1.0, structure=structure)
    batch = BatchMaker([p], tiny(data={"augmented": 1.0, "batch": 16}).data, Acquisition((1, 2, 2)))(0)
    assert batch.structure is not None
    known = batch.structure[~batch.structure.isnan()]
    assert len(known) > 0
    assert (known == 0).all()
    assert batch.structure.isnan().any()


def test_a_training_uses_the_exact_map(tiny: Tiny, tmp_path: Path) -> None:
    """The same voxels with and without their map give different batches, and only one of them has a map."""
    pack([phantom(tmp_path / "in" / "a").parent], tmp_path / "store", quiet=True)
    with_map = load(tmp_path / "store")
    made = [
        BatchMaker(patients, tiny().data, Acquisition((1, 2, 2)))(0)
        for patients in (with_map, [replace(p, structure=None) for p in with_map])
    ]
    assert torch.equal(made[0].hr_hu, made[1].hr_hu)
    assert made[0].structure is not None
    assert made[1].structure is None
