"""The plugin of napari, as far as it goes without napari: manifest, opening, layers."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.viewer.napari_plugin import layer, reader, upscaled

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "src" / "uhrct" / "viewer" / "napari.yaml"
#: turned about the long axis of the patient
TURN = np.array([[0.0, 0.6, 0.8], [0.0, 0.8, -0.6], [1.0, 0.0, 0.0]])


@pytest.fixture
def scan(slice_hu: np.ndarray) -> Volume:
    return Volume(np.stack([slice_hu[20:60, 10:58]] * 3), (2.5, 0.7, 0.9), (10.0, -20.0, 300.0), TURN)


def test_the_manifest_is_valid_and_installed_with_the_package() -> None:
    npe2 = pytest.importorskip("npe2", reason="the manifest is checked with npe2")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["napari.manifest"] == {"uhrct": "uhrct.viewer:napari.yaml"}
    assert "viewer/napari.yaml" in project["tool"]["setuptools"]["package-data"]["uhrct"]
    assert manifest.name == project["project"]["name"]


def test_npe2_opens_a_file_through_it(scan: Volume, tmp_path: Path) -> None:
    npe2 = pytest.importorskip("npe2", reason="napari opens files with npe2")
    io.write(scan, tmp_path / "ct.nii.gz")
    manager = npe2.PluginManager.instance()
    manager.register(npe2.PluginManifest.from_file(MANIFEST))
    try:
        [(data, how, kind)] = npe2.read([str(tmp_path / "ct.nii.gz")], stack=False, plugin_name="uhrct")
    finally:
        manager.unregister("uhrct")
    assert kind == "image"
    assert np.array_equal(data, scan.hu)
    assert how["affine"].shape == (4, 4)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha", "ct"])
def test_voxels_lie_where_they_are_in_the_patient(scan: Volume, tmp_path: Path, name: str) -> None:
    io.write(scan, tmp_path / name)
    read = reader(str(tmp_path / name))
    assert read is not None
    [(data, how, _)] = read(None)
    assert np.array_equal(data, scan.hu)
    place = how["affine"] @ (1, 20, 30, 1)  # (S, P, L)
    expected = scan.origin_mm + scan.direction @ (np.array(scan.spacing_mm) * (1, 20, 30))
    assert np.allclose(place[:3][::-1], expected, atol=1e-3)


def test_what_it_cannot_read_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "notes.nii").write_text("no image")
    assert reader(str(tmp_path / "notes.nii")) is None
    assert reader(str(tmp_path / "missing.nrrd")) is None
    assert reader(["a.nrrd", "b.nrrd"]) is None
    make_series(tmp_path / "study" / "one")
    make_series(tmp_path / "study" / "two", seed=1)
    assert reader(str(tmp_path / "study" / "one")) is not None
    assert reader(str(tmp_path / "study")) is None


def test_a_result_lies_over_its_scan(scan: Volume) -> None:
    data, how, _ = layer(scan, "CT")
    fine, placed, kind = upscaled(data, how["metadata"], how["name"], scale=2, quality="fast")
    assert kind == "image"
    assert fine.shape == (3, 80, 96)
    assert placed["name"] == "CT upscaled"
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert np.allclose(placed["affine"] @ corner, how["affine"] @ corner, atol=1e-4)
    with pytest.raises(UhrctError, match="open the scan with uhrct"):
        upscaled(data, {}, "other")
