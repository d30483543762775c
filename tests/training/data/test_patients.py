"""Patients as they come from disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_files import PATIENT, make_series
from pydicom import Dataset

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.training.config import TrainingConfig
from uhrct.training.data.packing import pack
from uhrct.training.data.patients import balanced, corpus_hash, find_series, load_patients, remarks

CPU = torch.device("cpu")
Tiny = Callable[..., TrainingConfig]


def test_every_layout_is_found(tmp_path: Path) -> None:
    make_series(tmp_path / "p1" / "1.2.3")
    make_series(tmp_path / "p2", name="{}.DCM")
    volume = Volume(np.zeros((2, 3, 4), np.int16), (1, 1, 1))
    for name in ("a.nii.gz", "deep/b.nrrd", "c.npz", "d.mhd", "p2/lungs.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        io.write(volume, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no scan")
    found = {s.paths[0].relative_to(tmp_path).as_posix() for s in find_series(tmp_path)}
    # p2/lungs.nii.gz lies beside slices: somebody's annotation of them; d.raw belongs to d.mhd
    assert found == {"p1/1.2.3", "p2", "a.nii.gz", "deep/b.nrrd", "c.npz", "d.mhd"}
    assert [s.paths for s in find_series(tmp_path / "c.npz")] == [(tmp_path / "c.npz",)]


def test_no_corpus_is_said(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match="no such file or folder"):
        find_series(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(UhrctError, match=r"holds no DICOM slices and no file with \.nii"):
        find_series(tmp_path)


def test_padding_becomes_air_and_metal_stays(tmp_path: Path) -> None:
    hu = np.array([[[-3024.0, -1024.4], [12000.0, 40000.0]]], np.float32)
    io.write(Volume(hu, (1, 0.5, 0.6)), tmp_path / "a.npz")
    [p] = load_patients((str(tmp_path),), {"a": 0.5}, CPU)
    assert p.hu.dtype == torch.int16
    assert p.hu.tolist() == [[[-1024, -1024], [12000, 32767]]]
    assert (p.name, p.spacing_mm, p.weight) == ("a", (0.5, 0.6), 0.5)


def test_the_third_axis_is_kept(tmp_path: Path) -> None:
    make_series(tmp_path / "scan")
    volume = io.read(tmp_path / "scan")
    [p] = load_patients((str(tmp_path),), {}, CPU)
    assert (p.spacing_z_mm, p.slice_thickness_mm) == (volume.spacing_mm[0], volume.slice_thickness_mm)
    assert p.slice_thickness_mm is not None


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 3, 4), np.int16), (1, 1, 1))
    for name in ("p1/scan.nii.gz", "p2/scan.nii.gz"):
        (tmp_path / name).parent.mkdir()
        io.write(volume, tmp_path / name)
    make_series(tmp_path / "1.2.840.1", seed=1)
    make_series(tmp_path / "1.2.840.2", seed=2)
    names = [p.name for p in load_patients((str(tmp_path),), {}, CPU)]
    assert names == ["1.2.840.1", "1.2.840.2", "scan", "p2/scan"]


def test_dicom_needs_no_suffix_and_a_folder_may_hold_several_series(tmp_path: Path) -> None:
    first = make_series(tmp_path / "study", name="IM{:04d}", number=2, seed=1)
    second = make_series(tmp_path / "study", name="XX{:04d}", number=5, seed=2)

    def scout(k: int, ds: Dataset) -> object:
        ds.ImageType, ds.Modality = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "CT"
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        return k == 0

    make_series(tmp_path / "study", name="scout{}", number=1, seed=3, edit=scout)
    make_series(tmp_path / "study", name="pet{}", number=7, seed=4, edit=lambda k, ds: setattr(ds, "Modality", "PT"))
    third = make_series(tmp_path / "deep" / "er", name="{}", seed=5)
    with pytest.warns(UserWarning, match="left out") as said:
        patients = load_patients((str(tmp_path),), {"study:3": 0.5}, CPU)
    assert len(said) == 2  # the scout and the other modality
    assert PATIENT not in str([w.message for w in said])
    assert [(p.name, p.weight) for p in patients] == [("er", 1.0), ("study:2", 1.0), ("study:3", 0.5)]
    for p, hu in zip(patients, (third, first, second), strict=True):
        assert np.array_equal(p.hu.numpy(), hu)


def test_a_series_that_cannot_be_read_is_no_smaller_corpus(tmp_path: Path) -> None:
    make_series(tmp_path / "good")
    make_series(tmp_path / "bad", seed=1, edit=lambda k, ds: k != 2)  # a slice is missing
    with pytest.raises(UhrctError, match=r"bad: series 1.*uhrct pack leaves out"):
        load_patients((str(tmp_path),), {}, CPU)


def test_clipped_patients_are_named(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).normal(-200, 700, (4, 40, 40)).astype(np.int16)
    io.write(Volume(hu.clip(-1000, 600), (1, 1, 1)), tmp_path / "cut.npz")
    io.write(Volume(hu, (1, 1, 1)), tmp_path / "whole.npz")
    patients = load_patients((str(tmp_path),), {}, CPU)
    assert remarks(patients) == ["clipped to [-1000, 600] HU: 1 of 2 series (cut)"]


def test_hash_sees_every_voxel_and_not_the_order(tiny: Tiny) -> None:
    patients = load_patients(tiny().data.corpus, {}, CPU)
    before = corpus_hash(patients)
    assert corpus_hash(patients[::-1]) == before
    patients[1].hu[2, 3, 4] += 1
    assert corpus_hash(patients) != before
    patients[1].hu[2, 3, 4] -= 1
    assert corpus_hash([patients[0], replace(patients[1], spacing_mm=(0.7, 0.81))]) != before
    assert corpus_hash(patients) == before


def test_patients_and_kernels_count_not_slices(tmp_path: Path) -> None:
    def series(name: str, person: str, kernel: str, slices: int) -> None:
        def edit(_: int, header: Dataset) -> None:
            header.PatientID, header.ConvolutionKernel = person, kernel
            header.SeriesInstanceUID = f"1.2.3.{sum(name.encode())}"

        make_series(tmp_path / "ct" / name, shape=(slices, 8, 9), edit=edit)

    series("a", "PERSON-1", "B30f", 12)
    series("b", "PERSON-1", "B30f", 4)
    series("c", "PERSON-1", "B70f", 4)
    series("d", "PERSON-2", "B30f", 4)
    loaded = load_patients((str(tmp_path / "ct"),), {"d": 0.5}, CPU)
    weights = {p.name: p.weight for p in balanced(loaded)}
    # 16 slices of one group count 2, and 4 slices 1.5
    assert weights == pytest.approx({"a": 1.5, "b": 0.5, "c": 1.5, "d": 0.75})
    pack([tmp_path / "ct"], tmp_path / "store", quiet=True)
    with pytest.warns(UserWarning, match="all series"):
        packed = load_patients((str(tmp_path / "store"),), {}, CPU)
    assert sorted(p.weight for p in balanced(packed)) == pytest.approx([0.5, 1.5, 1.5, 1.5])
    assert "PERSON" not in (tmp_path / "store" / "store.json").read_text()
