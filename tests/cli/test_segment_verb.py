"""`uhrct segment`: files, report, DICOM SEG, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_files import PATIENT, make_series
from pydicom import dcmread
from run_cli import REFUSED, Uhrct, done, refused

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.tasks.mask_network import MaskNetwork, MaskNetworkConfig


def body(slices: int = 3) -> Volume:
    """Two lungs, a vessel along each."""
    y, x = np.mgrid[:64, :96]
    hu = np.where(np.hypot((y - 32) / 30, (x - 48) / 46) < 1, 40, -1000)
    for at in (27, 69):
        hu[np.hypot((y - 32) / 22, (x - at) / 15) < 1] = -850
        hu[np.hypot(y - 32, x - at) < 2] = 40
    return Volume(np.repeat(hu[None], slices, 0).astype(np.int16), (2.5, 2.0, 2.0), (-40.0, 10.0, 7.0))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_labels_report_and_surface(uhrct: Uhrct, tmp_path: Path, suffix: str) -> None:
    scan, out, report, mesh = (tmp_path / name for name in ("ct.nii.gz", f"out{suffix}", "run.json", "lungs.stl"))
    io.write(body(), scan)
    result = done(uhrct("segment", scan, out, "--task", "lungs", "--json", report, "--mesh", mesh))
    assert "right lung" in result.err
    labels = io.read(out)
    assert np.allclose(labels.grid.corner_mm, body().grid.corner_mm, atol=1e-4)
    assert set(np.unique(labels.hu)) == {0, 1, 2}
    data = json.loads(report.read_text())
    assert data["schema"] == "uhrct-segment-1"
    assert data["input"]["path"] == str(scan)
    assert [entry["name"] for entry in data["labels"]] == ["right lung", "left lung"]
    voxel_ml = np.prod(labels.spacing_mm) / 1000
    assert data["labels"][0]["volume_ml"] == pytest.approx((labels.hu == 1).sum() * voxel_ml, rel=1e-3)
    assert data["warnings"] == ["the lungs reach the first and the last slice: the volume is that of a part"]
    assert mesh.stat().st_size > 1000


def test_vessels_have_a_centre_line(uhrct: Uhrct, tmp_path: Path) -> None:
    scan, out = tmp_path / "ct.nii.gz", tmp_path / "out.nii.gz"
    io.write(body(12), scan)
    result = done(uhrct("segment", scan, out, "--task", "vessels", "--json", "-", "-q"))
    [label] = json.loads(result.out)["labels"]
    assert 40 < label["skeleton_mm"] < 70  # two vessels through 12 slices of 2.5 mm
    assert label["branches"] == 2


def test_dicom_in_dicom_seg_out(uhrct: Uhrct, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    hu = body(4).hu

    def edit(k, ds):
        ds.PixelData = (hu[k].astype(np.int32) + 1024).astype("<i2").tobytes()

    make_series(tmp_path / "in", shape=hu.shape, edit=edit)
    done(uhrct("segment", tmp_path / "in", tmp_path / "seg.dcm", "--task", "lungs", "--anonymize"))
    seg = dcmread(tmp_path / "seg.dcm")
    assert seg.SOPClassUID.name == "Segmentation Storage"
    kinds = [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in seg.SegmentSequence]
    assert kinds == ["3341006", "44029006"]
    assert PATIENT.encode() not in (tmp_path / "seg.dcm").read_bytes()


def test_a_trained_network_is_used_and_named(uhrct: Uhrct, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    MaskNetwork(MaskNetworkConfig(task="vessels", width=1)).save_pretrained(tmp_path / "mine")
    scan, out = tmp_path / "ct.nii.gz", tmp_path / "out.nii.gz"
    io.write(body(12), scan)
    command = ["segment", scan, out, "--task", "vessels", "-q"]
    data = json.loads(done(uhrct(*command, "--weights", tmp_path / "mine", "--json", "-")).out)
    assert data["weights"] == "mine"
    assert data["weights_sha256"] == MaskNetwork.from_pretrained(tmp_path / "mine").weights_sha256
    with_network = io.read(out).hu
    done(uhrct(*command, "--overwrite"))
    assert not np.array_equal(io.read(out).hu, with_network)
    refused(uhrct(*command, "--weights", "x2", "--overwrite"), "x2", "no mask network")
    refused(uhrct("segment", scan, tmp_path / "a.nii.gz", "--task", "lungs", "--weights", "x2"), "--weights", "lungs")
    refused(uhrct("segment", scan, tmp_path / "a.nii.gz", "--task", "airways", "--weights", tmp_path / "mine"), "mine")


def test_refusals_are_one_line_and_leave_nothing(uhrct: Uhrct, tmp_path: Path) -> None:
    scan, out = tmp_path / "ct.nii.gz", tmp_path / "out.nii.gz"
    io.write(body(), scan)
    refused(uhrct("segment", scan, out, "--task", "airways", "-q"), "3 slices", code=REFUSED)
    refused(uhrct("segment", scan, out, "--task", "lungs", "--mesh", tmp_path / "a.vtk"), "a.vtk", ".stl")
    empty = tmp_path / "mr.nii.gz"
    io.write(Volume(np.maximum(body().hu, 0), (2.5, 2.0, 2.0)), empty)
    refused(uhrct("segment", empty, out, "--task", "vessels", "-q"), "mr.nii.gz", "HU", code=REFUSED)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ct.nii.gz", "mr.nii.gz"]
    out.write_text("mine")
    refused(uhrct("segment", scan, out, "--task", "lungs", "-q"), "--overwrite")
    assert out.read_text() == "mine"
    done(uhrct("segment", scan, out, "--task", "lungs", "-q", "--overwrite"))
