"""`uhrct phantom`: the folder, its truth, and what is refused."""

import json
from functools import lru_cache, partial
from pathlib import Path

import gudhi
import numpy as np
import pytest
from run_cli import Uhrct, done, everything, refused

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.phantom import make
from uhrct.phantom.scene import Scene

fresh = partial(make.make_scene, density=0.03)


@lru_cache
def kept(family: str, seed: int, density: float) -> Scene:
    return fresh(family, seed)


SMALL = ("--shape", "20,48,48", "--quiet")


@pytest.fixture(autouse=True)
def few_vessels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "make_scene", kept)


def test_same_seed_same_bytes_other_seed_other_chest(uhrct: Uhrct, tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 0)):
        if name != "c":
            kept.cache_clear()  # grown anew
        done(uhrct("phantom", tmp_path / name, "--seed", seed, *SMALL))
    a, b, c = (everything(tmp_path / name) for name in "abc")
    assert set(a) == {"ct.nii.gz", "truth.json", "truth.npz"} | {
        f"{m}.nii.gz" for m in ("lungs", "lobes", "vessels", "airways", "nodules")
    }
    assert a == b
    assert all(a[name] != c[name] for name in ("ct.nii.gz", "truth.npz", "lobes.nii.gz"))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # nothing temporary is left


def test_truth_agrees_with_masks_and_image(uhrct: Uhrct, tmp_path: Path) -> None:
    out = tmp_path / "p"
    done(uhrct("phantom", out, "--family", "test", "--dose", 0, "--image", "scan.nrrd", *SMALL))
    truth, trees = json.loads((out / "truth.json").read_text()), np.load(out / "truth.npz")
    scan = io.read(out / "scan.nrrd")
    masks = {k: io.read(out / f"{k}.nii.gz") for k in ("lungs", "lobes", "vessels", "airways", "nodules")}
    for mask in masks.values():
        assert mask.shape == scan.shape == tuple(truth["shape"])
        assert np.allclose(mask.origin_mm, scan.origin_mm, atol=1e-4)
        assert mask.spacing_mm == pytest.approx(scan.spacing_mm, abs=1e-5)
    assert ((masks["lungs"].hu > 0) == (masks["lobes"].hu > 0)).all()
    assert set(np.unique(masks["lobes"].hu)) == set(range(6))
    for mask, written in (
        (masks["airways"].hu > 0, truth["trees"]["airway"]["mask"]),
        (masks["vessels"].hu > 0, truth["vessels_mask"]),
        (masks["vessels"].hu == 1, truth["trees"]["artery"]["mask"]),
    ):
        cells = gudhi.CubicalComplex(top_dimensional_cells=np.where(np.pad(mask, 1), 0.0, 1.0))
        cells.compute_persistence()
        assert [written[f"b{k}"] for k in range(3)] == cells.persistent_betti_numbers(0.5, 0.5)[:3]
    # centre-lines lie in their mask, at the place that the file's header says
    position = trees["artery_position_mm"]
    origin = np.array(scan.origin_mm)[::-1]  # z y x
    voxel = np.rint((position - origin) / scan.spacing_mm).astype(int)
    inside = ((voxel >= 0) & (voxel < scan.shape)).all(1)
    assert (masks["vessels"].hu[tuple(voxel[inside].T)] == 1).all()
    assert scan.hu[masks["lungs"].hu > 0].mean() < -650
    assert len(truth["nodules"]) >= 8


def test_projections_see_the_same_chest(uhrct: Uhrct, tmp_path: Path) -> None:
    for name, how in (("m", ("--dose", 0)), ("p", ("--imaging", "projections", "--dose", 20))):
        done(uhrct("phantom", tmp_path / name, "--shape", "8,64,64", "--quiet", *how))
    model, seen = (io.read(tmp_path / name / "ct.nii.gz").hu.astype(float) for name in "mp")
    assert np.corrcoef(model.ravel(), seen.ravel())[0, 1] > 0.95
    assert abs((model - seen).mean()) < 5
    assert everything(tmp_path / "m")["lobes.nii.gz"] == everything(tmp_path / "p")["lobes.nii.gz"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shape", "4,4"), "--shape"),
        (("--shape", "2,64,64"), "--shape"),
        (("--spacing", "1,1"), "--spacing"),
        (("--spacing", "1,0,1"), "--spacing"),
        (("--spacing", "nan,1,1"), "--spacing"),
        (("--shape", "a,b,c"), "--shape"),
        (("--dose", "-1"), "--dose"),
        (("--dose", "nan"), "--dose"),
        (("--seed", "-3"), "--seed"),
        (("--centre", "0,0,900"), "--centre"),
        (("--psf-fwhm-mm", "-1"), "--psf-fwhm-mm"),
        (("--image", "ct.foo"), "suffix"),
        (("--image", "lungs.nii.gz"), "--image"),
        (("--image", "nodules.nrrd"), "--image"),
        (("--image", "../ct.nii.gz"), "--image"),
        (("--kernel", "foo"), "not in the table"),
        (("--kernel", "B30f", "--imaging", "projections"), "--kernel"),
        (("--beam", "parallel"), "--imaging projections"),
        (("--shape", "8,16,16", "--spacing", "1,1,1", "--centre", "0,150,200"), "nothing of the body"),
        (("--imaging", "projections", "--dose", "0"), "--dose"),
        (("--imaging", "projections", "--shape", "8,64,64", "--spacing", "1,1,1"), "whole body"),
        (("--imaging", "projections", "--shape", "8,64,80"), "square pixels"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    uhrct: Uhrct, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    refused(uhrct("phantom", tmp_path / "out", *options), words)
    assert not list(tmp_path.iterdir())


def test_a_wrong_place_is_named(uhrct: Uhrct, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(uhrct("phantom", tmp_path / "file", *SMALL), "is a file")
    refused(uhrct("phantom", tmp_path / "no" / "out", *SMALL), f"folder {tmp_path / 'no'} does not exist")


def test_only_a_phantom_is_replaced(uhrct: Uhrct, tmp_path: Path) -> None:
    out = tmp_path / "p"
    done(uhrct("phantom", out, *SMALL))
    first = everything(tmp_path)
    refused(uhrct("phantom", out, "--seed", 1, *SMALL), "folder is not empty", "--overwrite")
    assert everything(tmp_path) == first
    done(uhrct("phantom", out, "--seed", 1, "--overwrite", *SMALL))
    second = everything(tmp_path)
    assert second.keys() == first.keys()
    assert second["p/ct.nii.gz"] != first["p/ct.nii.gz"]
    (out / "notes.txt").write_text("someone's")
    refused(uhrct("phantom", out, "--overwrite", *SMALL), "notes.txt")
    assert everything(tmp_path) == {**second, "p/notes.txt": b"someone's"}


def test_beams_see_the_same_chest(tmp_path: Path) -> None:
    image = partial(make.phantom_folder, shape=(8, 64, 64), imaging="projections", dose=20.0, quiet=True)
    for beam in ("fan", "parallel"):
        image(tmp_path / beam, beam=beam)
        assert json.loads((tmp_path / beam / "truth.json").read_text())["imaging"]["beam"] == beam
    fan, parallel = (io.read(tmp_path / beam / "ct.nii.gz").hu.astype(float) for beam in ("fan", "parallel"))
    assert 0 < (fan - parallel).std() < 25
    assert abs((fan - parallel).mean()) < 2
    with pytest.raises(UhrctError, match="`beam` 'cone': choose from fan, parallel"):
        image(tmp_path / "c", beam="cone")


def test_a_full_folder_is_not_touched(uhrct: Uhrct, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    refused(uhrct("phantom", tmp_path, *SMALL), "not empty")
    assert everything(tmp_path) == {"mine.txt": b"x"}
