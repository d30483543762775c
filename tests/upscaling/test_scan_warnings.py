"""Each warning fires for a scan that it is made for, and real scans of validation have few."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.models.model import Model
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training.data import scanners
from uhrct.upscaling import scan_warnings as module
from uhrct.upscaling.files import derivation
from uhrct.upscaling.scan_facts import scan_facts
from uhrct.upscaling.scan_warnings import geometry_warnings, limits, scan_warnings
from uhrct.upscaling.upscaler import Upscaler

X2 = (1, 2, 2)


@pytest.fixture
def chest() -> Volume:
    """A body of 340 x 250 mm in air, with lungs and a spine, and noise of 12 HU; nothing unusual."""
    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:256, :256] - 128) * 1.4
    hu = np.where(np.hypot(y / 125, x / 170) < 1, 40.0, -1000.0)
    for side in (-70, 70):
        hu[np.hypot(y / 75, (x - side) / 45) < 1] = -850
    hu[np.hypot(y - 85, x) < 15] = 400
    hu = hu + rng.normal(0, 12, (3, 256, 256))
    return Volume(np.rint(hu).astype(np.int16), (2.5, 1.4, 1.4), slice_thickness_mm=2.5)


def warned(volume: Volume, scale: tuple[int, int, int] = X2, **scan: float) -> list[str]:
    return scan_warnings(scan_facts(volume), ScanProperties(**scan), scale)  # type: ignore[arg-type]


def with_hu(volume: Volume, hu: np.ndarray) -> Volume:
    return volume.on_grid(volume.grid, np.rint(hu).astype(np.int16))


def test_an_ordinary_chest_has_no_warning(chest: Volume) -> None:
    assert warned(chest) == []


def test_noise(chest: Volume) -> None:
    noisy = with_hu(chest, chest.hu + np.random.default_rng(1).normal(0, 120, chest.shape))
    [line] = [w for w in warned(noisy) if w.startswith("noise 1")]
    assert line.endswith("HU; the weights were trained on at most 83 HU")


@pytest.mark.parametrize(
    ("pixel_mm", "words"), [(0.2, "0.2 mm; the weights were trained on 0.541 to 3.91 mm"), (5, "5 mm")]
)
def test_pixel_spacing(chest: Volume, pixel_mm: float, words: str) -> None:
    fine = replace(chest, spacing_mm=(2.5, pixel_mm, pixel_mm))
    assert any(w.startswith(f"pixel spacing {words}") for w in warned(fine))


def test_slice_spacing_and_thickness(chest: Volume) -> None:
    assert any("apart" in w for w in warned(replace(chest, spacing_mm=(20.0, 1.4, 1.4))))
    assert any("1 mm apart" in w for w in warned(replace(chest, spacing_mm=(1.0, 1.4, 1.4)), (5, 1, 1)))
    assert any("4 times as thick" in w for w in warned(chest, (5, 1, 1), slice_thickness=4.0))


def test_one_slice_has_no_neighbours(chest: Volume) -> None:
    """Thin slices are made from a thick one and its neighbours."""
    told = {"increment_mm": 0.0}
    assert any(w.startswith("one slice has no neighbours") for w in warned(chest, (5, 2, 2), **told))
    assert warned(chest, X2, **told) == []
    assert warned(chest, (5, 2, 2)) == []


def test_kernel_and_psf(chest: Volume) -> None:
    edge = replace(chest, meta={"dicom": [{"Manufacturer": "GE MEDICAL SYSTEMS", "ConvolutionKernel": "EDGE"}]})
    assert "the kernel has 50 % contrast at 10.5 lp/cm; the weights were trained on 2.8 to 8.5 lp/cm" in warned(edge)
    assert any("PSF 2.2 pixels" in w for w in warned(chest, psf_fwhm=2.2))


def test_smooth_noise(chest: Volume) -> None:
    facts = scan_facts(chest) | {"noise_correlation": 0.95}
    assert any("correlates by 0.95" in w for w in scan_warnings(facts, ScanProperties(), X2))


def test_metal(chest: Volume) -> None:
    hu = chest.hu.copy()
    hu[:, 150:160, 100:110] = 3071
    assert any("3000 HU" in w and "metal" in w for w in warned(with_hu(chest, hu)))


def test_contrast_medium(chest: Volume) -> None:
    assert any(
        "brighter than 300 HU" in w for w in warned(with_hu(chest, np.where(chest.hu > 30, chest.hu + 350, chest.hu)))
    )


def test_a_limb_or_a_small_field_of_view(chest: Volume) -> None:
    small = Volume(chest.hu[:, 100:140, 100:140].copy(), chest.spacing_mm)
    assert any("cm2 of body" in w for w in warned(small))


@pytest.mark.parametrize("what", ["stored values", "fractions", "MR"])
def test_no_hounsfield_units(chest: Volume, what: str) -> None:
    values = {
        "stored values": chest.hu + 1024.0,
        "fractions": (chest.hu + 1024.0) / 4096,
        "MR": np.where(chest.hu < -500, 5, 400 + chest.hu),
    }[what]
    lines = warned(with_hu(chest, values))
    assert any("the darkest voxels" in w and "not a CT" in w for w in lines)


def test_validation_scans_have_few_warnings(shared_ct: Path) -> None:
    """Of each warning, at most one of the four patients: 1/17 is stated, and one of four is the least above none."""
    fired: dict[str, set[str]] = {}
    for folder in sorted((shared_ct / "validation").iterdir()):
        volume = io.read(folder)
        facts = scan_facts(volume)
        patient = str(volume.meta["dicom"][0]["PatientID"])
        for name, limit in limits(X2).items():
            if name in facts and limit.warning(facts[name]):
                fired.setdefault(name, set()).add(patient)
    assert set(fired) <= {"noise_hu"}  # the shoulders of lungfcp0006 have noise of 127 HU
    assert all(len(patients) == 1 for patients in fired.values())


def test_log_report_and_dicom_say_the_same_line(
    tiny_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = io.read(Path(get_testdata_file("CT_small.dcm")))
    upscaler = Upscaler(tiny_model)
    report = upscaler(volume).report
    lines = [w for w in report["warnings"] if "cm2 of body; the weights were trained on at least 233 cm2" in w]
    assert len(lines) == 1
    assert lines[0] in [record.getMessage() for record in caplog.records]
    assert lines[0] in derivation(upscaler.plan(volume)).description
    # a warning says nothing about the voxels: it does not change UIDs
    assert lines[0] not in derivation(upscaler.plan(volume)).key


def test_limits_are_those_of_the_training() -> None:
    assert (scanners.NARROW[0], scanners.WIDE[1]) == module.TRAINING_PSF_PX
    assert module.TRAINING_THICKNESS == scanners.SLICE_THICKNESS
    assert module.LIMITS["noise_hu"].high >= scanners.SCAN_NOISE_HU[1]


def test_a_file_that_is_turned_as_the_docs_say_has_no_warning(chest: Volume, tmp_path: Path) -> None:
    import nibabel

    io.write(chest, tmp_path / "axial.nii.gz")
    image = nibabel.load(tmp_path / "axial.nii.gz")
    nibabel.save(image.as_reoriented([[2, 1], [1, 1], [0, 1]]), tmp_path / "sagittal.nii.gz")
    sagittal = io.read(tmp_path / "sagittal.nii.gz")
    assert sagittal.shape == (256, 256, 3)
    assert [line[:23] for line in geometry_warnings(sagittal)[:1]] == ["the slices are sagittal"]
    nibabel.save(nibabel.as_closest_canonical(nibabel.load(tmp_path / "sagittal.nii.gz")), tmp_path / "turned.nii.gz")
    turned = io.read(tmp_path / "turned.nii.gz")
    assert turned.shape == chest.shape
    assert geometry_warnings(turned) == []
