"""Files that nibabel, pynrrd, SimpleITK and dcm2niix write are read right; damaged ones are read or refused."""

from __future__ import annotations

import gzip
import subprocess
import warnings
from pathlib import Path

import dcm2niix
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import make_series, oblique
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import DIRECTIONS, NRRD_PACK, metaimage, nifti
from image_files import nrrd as nrrd_file
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.core.errors import UhrctError

HU = np.random.default_rng(1).integers(-1024, 3000, (4, 5, 6)).astype(np.int16)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine(direction: np.ndarray) -> np.ndarray:
    """Index (x, y, z) to patient coordinates (LPS, mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = direction * [0.7, 0.8, 2.5]
    matrix[:3, 3] = [-100.5, 40.25, -7.125]
    return matrix


def assert_read(path: Path, hu: np.ndarray, to_lps: np.ndarray, tolerance: float = 1e-5) -> None:
    volume = io.read(path)
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.direction[:, ::-1] * volume.spacing_mm[::-1], to_lps[:3, :3], atol=tolerance)
    np.testing.assert_allclose(volume.origin_mm, to_lps[:3, 3], atol=1e-3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("where", DIRECTIONS)
def test_nibabel(tmp_path: Path, where: str, kind: type, suffix: str) -> None:
    to_lps = affine(DIRECTIONS[where])
    image = kind(HU.T, LPS_TO_RAS @ to_lps)
    nibabel.save(image, tmp_path / f"a{suffix}")
    assert_read(tmp_path / f"a{suffix}", HU, to_lps)
    image.set_qform(LPS_TO_RAS @ to_lps, 1)
    nibabel.save(image, tmp_path / f"b{suffix}")
    assert_read(tmp_path / f"b{suffix}", HU, to_lps)


def test_nibabel_that_stores_fractions_in_int16(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(HU.T * 0.37, LPS_TO_RAS)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii")
    assert stored.dataobj.slope != 1
    assert_read(tmp_path / "a.nii", np.asarray(stored.dataobj).T.astype(np.float32), np.eye(4))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("where", DIRECTIONS)
def test_pynrrd(tmp_path: Path, where: str, encoding: str) -> None:
    to_lps = affine(DIRECTIONS[where])
    header = {"space": "left-posterior-superior", "space directions": to_lps[:3, :3].T, "space origin": to_lps[:3, 3]}
    nrrd.write(str(tmp_path / "a.nrrd"), HU.T, header | {"encoding": encoding})
    assert_read(tmp_path / "a.nrrd", HU, to_lps)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("where", DIRECTIONS)
def test_simpleitk(tmp_path: Path, where: str, name: str, compressed: bool) -> None:
    to_lps = affine(DIRECTIONS[where])
    image = sitk.GetImageFromArray(HU)
    image.SetDirection(DIRECTIONS[where].ravel().tolist())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin(to_lps[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / name), compressed)
    assert_read(tmp_path / name, HU, to_lps)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_simpleitk_with_the_notes_of_a_dicom_file(tmp_path: Path, name: str) -> None:
    """SimpleITK copies DICOM elements into other headers."""
    image = sitk.ReadImage(get_testdata_file("CT_small.dcm", download=False))
    sitk.WriteImage(image, str(tmp_path / name))
    np.testing.assert_array_equal(io.read(tmp_path / name).hu, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize(
    ("options", "name"), [(("-z", "n"), "a.nii"), (("-z", "y"), "a.nii.gz"), (("-e", "y"), "a.nrrd")]
)
@pytest.mark.parametrize("seed", range(3))
def test_dcm2niix(tmp_path: Path, seed: int, options: tuple[str, ...], name: str) -> None:
    """What it makes of a DICOM series is where our DICOM reader puts it; it turns the order of rows for NIfTI."""
    make_series(tmp_path / "in", shape=(5, 6, 7), direction=oblique(seed))
    (tmp_path / "out").mkdir()
    command = [dcm2niix.bin, *options, "-b", "n", "-f", "a", "-o", tmp_path / "out", tmp_path / "in"]
    subprocess.run(command, check=True, capture_output=True)
    ours, theirs = io.read(tmp_path / "in"), io.read(tmp_path / "out" / name)
    between = np.round(ours.direction.T @ theirs.direction, 3)
    assert set(np.abs(between).ravel()) == {0, 1}
    flips = tuple(slice(None, None, int(between[axis, axis])) for axis in range(3))
    np.testing.assert_array_equal(theirs.hu[flips], ours.hu)
    far = np.where(np.diag(between) < 0, np.array(theirs.shape) - 1, 0)
    first = theirs.origin_mm + theirs.direction @ (far * theirs.spacing_mm)
    np.testing.assert_allclose(first, ours.origin_mm, atol=1e-3)
    np.testing.assert_allclose(theirs.spacing_mm, ours.spacing_mm, atol=1e-5)
    if name == "a.nrrd":
        assert theirs.slice_thickness_mm == ours.slice_thickness_mm == 3.0


# --- random damage

SEEDS: list[tuple[str, bytes]] = [
    *((".nii", nifti(version=version, order=order)) for version in (1, 2) for order in "<>"),
    *((".nii.gz", gzip.compress(nifti(version=version))) for version in (1, 2)),
    *((".nrrd", nrrd_file(encoding=encoding, thicknesses="nan nan 2", byte_skip="0")) for encoding in NRRD_PACK),
    *(
        (".mha", b"".join(metaimage(packed=packed, ElementSize="1 1 1", DistanceUnits="mm")))
        for packed in (True, False)
    ),
]
WORDS = (
    b"nan",
    b"-1",
    b"99999999999",
    b"1e999",
    b" ",
    b"\n",
    b"=",
    b":",
    b'"',
    b"(",
    b"none",
    b"\xff",
    b"\0",
    b"_",
    b"\x1b",
)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(
        st.tuples(st.integers(0, 560), st.integers(0, 8), st.one_of(st.binary(max_size=4), st.sampled_from(WORDS)))
    ),
)
def test_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: tuple[str, bytes], edits: list[tuple[int, int, bytes]]
) -> None:
    """Whatever happens to a header: a volume, or one short line; `inspect` never raises and numpy does not warn."""
    suffix, content = seed
    for at, removed, added in edits:
        content = content[:at] + added + content[at + removed :]
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [info] = io.inspect(path)
        try:
            io.read(path)
            message = ""
        except UhrctError as error:
            message = str(error)
    assert message.isprintable()
    assert len(message) < len(str(path)) + 300
    assert message or not info.problem
