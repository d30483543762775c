"""`uhrct upscale --uncertainty` and `uhrct calibrate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_files import make_series
from pydicom import dcmread
from run_cli import Uhrct, done, refused

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.models.model import Model, ModelConfig
from uhrct.upscaling.scan_warnings import scan_warnings


@pytest.fixture
def interval_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    size = {"image_width": 8, "image_blocks": 1, "structure_width": 0}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    Model(ModelConfig(mean=size, interval={"width": 8, "blocks": 1})).save_pretrained(folder)
    return folder


def test_bounds_lie_beside_each_other(uhrct: Uhrct, interval_weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.npz")
    options = ("--weights", interval_weights, "--uncertainty", tmp_path / "ct.nii.gz", "--json", tmp_path / "r.json")
    result = done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.nii.gz", *options))
    lower, hu, upper = (io.read(tmp_path / name) for name in ("ct-lower.nii.gz", "out.nii.gz", "ct-upper.nii.gz"))
    assert lower.shape == hu.shape == upper.shape
    assert lower.spacing_mm == pytest.approx(hu.spacing_mm)
    assert (lower.hu <= hu.hu).all()
    assert (hu.hu <= upper.hu).all()
    report = json.loads((tmp_path / "r.json").read_text())
    assert [file["content"] for file in report["files"]] == ["image", "lower", "upper"]
    assert report["interval"]["not_calibrated_because"] == ["the weights hold no calibration"]
    assert "not calibrated for this scan: the weights hold no calibration" in result.err


def test_bounds_of_a_dicom_scan_are_parametric_maps(uhrct: Uhrct, interval_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    make_series(tmp_path / "in", shape=(2, 12, 14))
    options = ("--weights", interval_weights, "--uncertainty", tmp_path / "sure")
    done(uhrct("upscale", tmp_path / "in", tmp_path / "out", *options))
    maps = [dcmread(tmp_path / f"sure-{side}" / "00001.dcm") for side in ("lower", "upper")]
    assert [ds.SOPClassUID.name for ds in maps] == ["Parametric Map Storage"] * 2
    assert len({ds.SeriesInstanceUID for ds in maps}) == 2
    for ds in maps:
        assert "the interval is not calibrated" in ds.ContributingEquipmentSequence[-1].ContributionDescription
    image = dcmread(tmp_path / "out" / "00001.dcm")
    assert "the interval is not calibrated" in image.DerivationDescription
    lower, upper = (np.frombuffer(ds.FloatPixelData, "<f4") for ds in maps)
    assert (lower <= upper).all()
    [mapping] = maps[0].SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeMeaning == "Hounsfield unit"


def test_existing_bounds_are_kept(uhrct: Uhrct, interval_weights: Path, scan: Volume, tmp_path: Path) -> None:
    io.write(scan, tmp_path / "in.npz")
    (tmp_path / "ct-upper.nii").write_bytes(b"mine")
    options = ("--weights", interval_weights, "--uncertainty", tmp_path / "ct.nii")
    refused(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.nii", *options), "ct-upper.nii")
    assert (tmp_path / "ct-upper.nii").read_bytes() == b"mine"
    assert not (tmp_path / "out.nii").exists()


def test_calibration_needs_an_interval_network(uhrct: Uhrct, weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in", shape=(2, 64, 64))
    refused(uhrct("calibrate", weights, "--scans", tmp_path / "in"), "no interval network")


def test_one_patient_is_no_calibration(uhrct: Uhrct, interval_weights: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in", shape=(2, 64, 64))
    refused(uhrct("calibrate", interval_weights, "--scans", tmp_path / "in", "--quiet"), "nine or more")
    assert not (interval_weights / "calibration.json").exists()


def test_an_unusual_scan_is_said_once_and_reported(
    uhrct: Uhrct, weights: Path, scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uhrct.upscaling.plan.scan_warnings", scan_warnings)
    io.write(scan, tmp_path / "in.npz")
    options = ("--weights", weights, "--json", tmp_path / "r.json", "--quiet")
    result = done(uhrct("upscale", tmp_path / "in.npz", tmp_path / "out.nii.gz", *options))
    [line] = [w for w in json.loads((tmp_path / "r.json").read_text())["warnings"] if "cm2 of body" in w]
    assert line.endswith("at least 233 cm2 (a head or limb, or a small field of view)")
    assert result.err.count(line) == 1
