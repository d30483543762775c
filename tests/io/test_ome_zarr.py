"""OME-Zarr: what is written comes back, other writers' metadata is understood, and volumes may stay on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uhrct
from uhrct import io
from uhrct.cli.upscale import upscale
from uhrct.core.errors import UhrctError
from uhrct.core.slices import Slices
from uhrct.core.volume import Volume

zarr = pytest.importorskip("zarr")


def scan(slice_hu: np.ndarray, dtype: Any = np.int16) -> Volume:
    hu = np.stack([np.roll(slice_hu, k, 1) for k in range(11)]).astype(dtype)
    direction = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    return Volume(hu, (2.5, 0.9, 0.8), (-12.5, 30.0, 100.0), direction, slice_thickness_mm=3.0)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_what_is_written_comes_back(tmp_path: Path, slice_hu: np.ndarray, dtype: Any) -> None:
    volume = scan(slice_hu, dtype)
    if dtype is np.float32:
        volume = volume.on_grid(volume.grid, volume.hu + np.float32(0.25))
    path = tmp_path / "ct.ome.zarr"
    with io.open_writer(path, volume.grid, dtype=volume.hu.dtype) as writer:
        for first, last in ((0, 1), (1, 6), (6, 8), (8, 11)):
            writer.write(volume.hu[first:last])
    for on_disk in (False, True):
        back = io.read(path, on_disk=on_disk)
        assert isinstance(back.hu, Slices) is on_disk
        assert back.hu.dtype == volume.hu.dtype
        np.testing.assert_array_equal(back.hu[2:5], volume.hu[2:5])
        np.testing.assert_array_equal(back.hu[np.array([10, 0, 0, 3])], volume.hu[[10, 0, 0, 3]])
        assert back.grid == volume.grid or (back.spacing_mm, back.origin_mm) == (volume.spacing_mm, volume.origin_mm)
        np.testing.assert_array_equal(back.direction, volume.direction)
        assert back.slice_thickness_mm == 3.0
    [info] = io.inspect(path)
    assert (info.kind, info.shape, info.problem) == ("OME-Zarr", volume.shape, "")
    with pytest.raises(UhrctError, match="is a folder"):
        io.write(volume, path, overwrite=True)


def foreign(path: Path, hu: np.ndarray, unit: str | None = "micrometer", zarr_format: Any = 2) -> None:
    """As other programs write it: NGFF 0.4, axes t and c, micrometres."""
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    array = group.create_array("s0", shape=(1, 1, *hu.shape), dtype=hu.dtype)
    array[:] = hu[None, None]
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in "zyx"]
    place = [
        {"type": "scale", "scale": [1, 1, 500, 200, 200]},
        {"type": "translation", "translation": [0, 0, 1000, 2000, 3000]},
    ]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": place}]}]


def test_images_of_other_programs(tmp_path: Path, slice_hu: np.ndarray) -> None:
    hu = np.stack([slice_hu] * 3).astype(np.int32)
    foreign(tmp_path / "a.zarr", hu)
    volume = io.read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.hu.dtype == np.int16
    assert volume.spacing_mm == pytest.approx((0.5, 0.2, 0.2))
    assert volume.origin_mm == pytest.approx((3.0, 2.0, 1.0))
    np.testing.assert_array_equal(io.read(tmp_path / "a.zarr", on_disk=True).hu[1:2], hu[1:2])


def test_what_is_refused(tmp_path: Path, slice_hu: np.ndarray) -> None:
    hu = np.stack([slice_hu] * 3)
    foreign(tmp_path / "no_unit.zarr", hu, unit=None)
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w")
    (tmp_path / "folder.zarr").mkdir()
    for name, words in (("no_unit", "no unit of length"), ("empty", "not an OME-Zarr image"), ("folder", "not an OME")):
        with pytest.raises(UhrctError, match=words) as caught:
            io.read(tmp_path / f"{name}.zarr")
        assert "\n" not in str(caught.value)
        assert io.inspect(tmp_path / f"{name}.zarr")[0].problem
    assert not (tmp_path / "ct.zarr").exists()


def test_a_volume_on_disk_gives_the_same_result(
    tmp_path: Path, slice_hu: np.ndarray, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = scan(slice_hu)
    tiny_model.save_pretrained(tmp_path / "tiny")
    io.write(volume, tmp_path / "ct.zarr")
    monkeypatch.setattr(Slices, "__array__", None, raising=False)  # nothing may read all of it
    upscale(tmp_path / "ct.zarr", tmp_path / "x2.zarr", weights=str(tmp_path / "tiny"), quiet=True)
    expected = uhrct.upscale(volume, weights=tmp_path / "tiny")
    found = io.read(tmp_path / "x2.zarr")
    np.testing.assert_array_equal(found.hu, expected.hu)
    assert found.spacing_mm == expected.spacing_mm
