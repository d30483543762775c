"""Header fields of NIfTI, NRRD and MetaImage: right voxels and places, or one line, as docs/formats.md says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import zoo_bombs  # noqa: F401  adds its cases to zoo_images_refused.CASES, as zoo_metaimage_refused does
import zoo_images
import zoo_images_refused
import zoo_metaimage_refused  # noqa: F401
from image_files import Refused, Right, metaimage, nifti, put
from image_files import nrrd as nrrd_file

from uhrct import io
from uhrct.core.volume import Volume

Judged = tuple[np.ndarray, np.ndarray, np.ndarray]
UNITS_MM = {"mm": 1.0, "um": 1e-3, "microns": 1e-3, "cm": 10.0, "m": 1000.0, "": 1.0}


def by_nibabel(path: Path) -> Judged:
    """(voxels (z, y, x), steps along x, y, z as columns in mm LPS, centre of the first voxel)."""
    image = nibabel.load(path)
    unit_mm = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([-unit_mm, -unit_mm, unit_mm]) @ image.affine[:3]
    return np.squeeze(np.asanyarray(image.dataobj)).T, affine[:, :3], affine[:, 3]


def by_simpleitk(path: Path) -> Judged:
    image = sitk.ReadImage(str(path))
    steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return sitk.GetArrayFromImage(image), steps, np.array(image.GetOrigin())


def by_pynrrd(path: Path) -> Judged:
    voxels, header = nrrd.read(str(path), index_order="C")
    signs = {"r": (-1, -1, 1), "l": (1, 1, 1)}[header["space"][0].lower()]
    if header["space"].lower() in ("las", "left-anterior-superior"):
        signs = (1, -1, 1)
    unit_mm = UNITS_MM[header.get("space units", ["mm"])[0]]
    to_lps = np.diag(signs) * unit_mm
    return voxels, to_lps @ header["space directions"].T, to_lps @ header.get("space origin", np.zeros(3))


JUDGES = {"nibabel": by_nibabel, "SimpleITK": by_simpleitk, "pynrrd": by_pynrrd}


@pytest.fixture(autouse=True)
def _quiet_itk() -> None:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


def assert_right(volume: Volume, expected: Right) -> None:
    np.testing.assert_array_equal(volume.hu, expected.hu)
    np.testing.assert_allclose(volume.spacing_mm[::-1], expected.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(volume.origin_mm, expected.origin_mm, rtol=1e-6)
    np.testing.assert_allclose(volume.direction[:, ::-1], expected.direction, atol=1e-6)
    assert volume.slice_thickness_mm == pytest.approx(expected.slice_thickness_mm)


@pytest.mark.parametrize("name", zoo_images.CASES)
def test_image_is_read_right(tmp_path: Path, name: str) -> None:
    case = zoo_images.CASES[name]
    expected = case.build(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = io.read(expected.path)
        [info] = io.inspect(expected.path)
    assert_right(volume, expected)
    assert (info.shape, info.spacing_mm, info.problem) == (volume.shape, volume.spacing_mm, "")
    for judge in case.judges:
        if judge == "by hand":
            continue  # no other reader honours this field
        voxels, steps, origin = JUDGES[judge](expected.path)
        np.testing.assert_array_equal(voxels.reshape(volume.shape), volume.hu)
        np.testing.assert_allclose(steps, volume.direction[:, ::-1] * volume.spacing_mm[::-1], atol=1e-6)
        np.testing.assert_allclose(origin, volume.origin_mm, atol=1e-5)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Refused, str]]:
    """What one process with at most 1 GB of memory and 20 s per file answered to each file that must be refused."""
    top = tmp_path_factory.mktemp("refused")
    expected = {}
    for number, (name, case) in enumerate(zoo_images_refused.CASES.items()):
        folder = top / f"{number}"
        folder.mkdir()
        expected[name] = case.build(folder)
    plain = [put(top / "a.nii.gz", nifti()), put(top / "a.nrrd", nrrd_file()), put(top / "a.mha", metaimage())]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("read_limited.py"), *plain],
        input="".join(json.dumps([str(refused.path), {}]) + "\n" for refused in expected.values()),
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(expected) + 1, done.stderr[-2000:]
    assert done.stderr == ""
    return {name: (refused, line[0]) for (name, refused), line in zip(expected.items(), lines[:-1], strict=True)}


@pytest.mark.parametrize("name", zoo_images_refused.CASES)
def test_image_is_refused_in_one_line(answers: dict[str, tuple[Refused, str]], name: str) -> None:
    expected, answer = answers[name]
    assert answer.startswith(f"refused: {expected.path}: "), answer
    assert answer.isprintable()
    assert len(answer) < len(str(expected.path)) + 300
    assert any(word in answer for word in expected.words), answer
    assert "not enough memory" not in answer or "sparse" in name


@pytest.mark.parametrize("name", [name for name in zoo_images_refused.CASES if "bomb" not in name])
def test_inspect_lists_the_problem(answers: dict[str, tuple[Refused, str]], name: str) -> None:
    """`inspect` never raises; what it does not see from the header is only damage of the voxels."""
    expected, answer = answers[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [info] = io.inspect(expected.path)
    assert info.problem.isprintable()
    if info.problem:
        assert info.problem in answer
    else:
        assert any(word in answer for word in ("truncated", "damaged", "not enough memory")), answer


def rows_of(format_name: str) -> set[str]:
    """The first column of the table of a format in docs/formats.md."""
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    section = text.split(f"#### {format_name}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return {line.split(" | ")[0].removeprefix("| ").replace("`", "") for line in lines}


@pytest.mark.parametrize("format_name", ["NIfTI", "NRRD", "MetaImage"])
def test_every_row_of_the_documentation_has_tests(format_name: str) -> None:
    cases = zoo_images.CASES | zoo_images_refused.CASES
    assert {case.row for name, case in cases.items() if name.startswith(format_name)} == rows_of(format_name)


def test_the_zoo_is_complete() -> None:
    refused = zoo_images_refused.CASES
    for kind, least in (("NIfTI", 250), ("NRRD", 150), ("MetaImage", 150), ("bomb", 14)):
        assert sum(name.startswith(kind) for name in refused) >= least, kind
    assert len(zoo_images.CASES) + len(refused) >= 1300
