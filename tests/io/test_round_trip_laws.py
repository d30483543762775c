"""Law, on whatever hypothesis makes up: DICOM, NIfTI, NRRD, MetaImage and npz keep HU exactly and places to 1e-4 mm."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_round_trip import assert_same

from uhrct import io
from uhrct.core.volume import Volume

FILES = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.npz", "series")


@st.composite
def directions(draw: st.DrawFn) -> np.ndarray:
    """Right-handed (normal, down, right): any rotation, with the awkward ones near the axes and half turns."""
    angles = st.one_of(st.sampled_from([0.0, np.pi / 2, np.pi, 1e-4, np.pi - 1e-4]), st.floats(-np.pi, np.pi))
    result = np.eye(3)[::-1]
    for axis in range(3):
        angle = draw(angles)
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)))
    spacing = draw(st.tuples(*[st.floats(0.05, 12.0)] * 3))
    origin = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    low = draw(st.sampled_from([-3024, -1024, 0]))
    hu = np.random.default_rng(draw(st.integers(0, 2**16))).integers(low, 30000, shape).astype(np.int16)
    return Volume(hu, spacing, origin, draw(directions()))


@settings(max_examples=25, deadline=None)
@given(volume=volumes())
def test_from_format_to_format(volume: Volume) -> None:
    """Each format reads what the one before it wrote: after the whole chain the volume is still the same."""
    with tempfile.TemporaryDirectory(prefix="uhrct-") as folder:
        got = volume
        for name in FILES:
            io.write(got, Path(folder) / name)
            got = io.read(Path(folder) / name)
            assert_same(got, volume)


@settings(max_examples=15, deadline=None)
@given(volume=volumes(), untilt=st.booleans())
def test_slices_of_a_zip_in_any_order(volume: Volume, untilt: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="uhrct-") as folder:
        io.write(volume, Path(folder) / "series")
        files = sorted((Path(folder) / "series").iterdir(), key=lambda file: file.name[::-1])
        with zipfile.ZipFile(Path(folder) / "scan.zip", "w") as archive:
            for k, file in enumerate(files):
                archive.write(file, f"{k % 2}/{k}")
        assert_same(io.read(Path(folder) / "scan.zip", untilt=untilt), volume)
