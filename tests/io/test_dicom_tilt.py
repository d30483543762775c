"""Gantry tilt: recognised, refused by name, and undone by shifting slices within their own planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_files import SPACING, make_series, refusal
from pydicom import Dataset

from uhrct import io
from uhrct.core.volume import Volume


def tilted(degrees: float) -> np.ndarray:
    """Directions of a gantry turned about the patient's left-right axis."""
    angle = np.radians(degrees)
    down = np.array([0, np.cos(angle), np.sin(angle)])
    return np.stack([np.cross([1, 0, 0], down), down, [1, 0, 0]], axis=1)


def smooth(points_mm: np.ndarray) -> np.ndarray:
    """HU of a smooth body at points (..., 3) in patient coordinates: known everywhere."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    return 300 * np.sin(x / 9) * np.cos(y / 8) + 200 * np.sin(z / 10 + y / 15)


def places(shape: tuple[int, int, int], volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return volume.origin_mm + (index * volume.spacing_mm) @ volume.direction.T


def make_tilted(folder: Path, degrees: float, shape=(6, 30, 24), table=(0.0, 0.0, 1.0), edge: bool = False) -> None:
    """The table moves along the patient while the planes are tilted, as on a scanner."""
    direction = tilted(degrees)

    def edit(k: int, ds: Dataset) -> None:
        origin = np.array([-8.0, -12.0, 5.0]) + np.array(table) * k * SPACING[0]
        rows, columns = np.meshgrid(np.arange(shape[1]) * SPACING[1], np.arange(shape[2]) * SPACING[2], indexing="ij")
        points = origin + rows[..., None] * direction[:, 1] + columns[..., None] * direction[:, 2]
        hu = np.rint(smooth(points))
        if edge:
            hu[:4] = hu[:, :4] = -3024
        ds.RescaleIntercept = "0"
        ds.ImagePositionPatient = [f"{v:.8f}" for v in origin]
        ds.PixelData = hu.astype("<i2").tobytes()

    make_series(folder, shape=shape, direction=direction, edit=edit)


@pytest.mark.parametrize("degrees", [-25, -7, 3, 18])
def test_values_come_to_lie_where_they_were_measured(tmp_path: Path, degrees: float) -> None:
    make_tilted(tmp_path, degrees)
    message = refusal(tmp_path)
    assert f"gantry tilt of {abs(degrees):.1f} degrees" in message
    assert "`untilt=True`" in message
    with pytest.warns(UserWarning, match="shifted onto an upright grid"):
        volume = io.read(tmp_path, untilt=True)
    assert volume.hu.dtype == np.int16
    np.testing.assert_allclose(volume.direction, tilted(degrees), atol=1e-6)
    assert volume.spacing_mm[0] == pytest.approx(SPACING[0] * np.cos(np.radians(degrees)), abs=1e-6)
    truth = smooth(places(volume.shape, volume))
    inside = volume.hu > -1000
    # all rows of all slices are still there, up to the border row that lies half outside
    assert inside.sum() >= 6 * 29 * 24
    error = np.abs(volume.hu - truth)[inside]
    assert np.percentile(error, 95) < 1.0  # rounding alone is 0.5
    assert error.max() < 16  # at the border the neighbour is up to half a pixel away, at 30 HU a pixel
    assert (volume.hu[~inside] == -1024).all()


def test_padding_keeps_its_value(tmp_path: Path) -> None:
    make_tilted(tmp_path, 10, edge=True)
    volume = io.read(tmp_path, untilt=True)
    assert set(np.unique(volume.hu[volume.hu < -600])) == {-3024}


def test_sideways_along_both_axes(tmp_path: Path) -> None:
    make_tilted(tmp_path, 12, table=(0.2, 0.1, 0.9))
    volume = io.read(tmp_path, untilt=True)
    inside = volume.hu > -1000
    error = np.abs(volume.hu - smooth(places(volume.shape, volume)))[inside]
    assert np.percentile(error, 90) < 1.0


def test_info_says_how(tmp_path: Path) -> None:
    make_tilted(tmp_path, 18)
    [info] = io.inspect(tmp_path)
    assert info.problem == ""
    assert info.processable.startswith("with `untilt=True` (gantry tilt of 18.0 degrees")
