"""`uhrct.upscale` takes what people have, and gives the same kind back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import uhrct
from uhrct.core.errors import UhrctError
from uhrct.models.model import Model
from uhrct.upscaling.upscaler import Upscaler

MM = (2.0, 0.8, 0.7)


@pytest.fixture
def hu() -> np.ndarray:
    y, x = np.mgrid[:20, :24]
    return np.stack([-900 + 40 * ((y + k) % 7) + 10 * x for k in range(3)]).astype(np.int16)


@pytest.fixture
def volume(hu: np.ndarray) -> uhrct.Volume:
    return uhrct.Volume(hu, MM, (1.0, 2.0, 3.0))


def upscaled(image: Any, model: Model, **place: Any) -> Any:
    return uhrct.upscale(image, model=model, **place)


def test_every_kind_gives_the_same_voxels_at_the_same_place(
    volume: uhrct.Volume, tiny_model: Model, tmp_path: Path
) -> None:
    expected = upscaled(volume, tiny_model)
    assert isinstance(expected, uhrct.Volume)
    array = upscaled(volume.hu, tiny_model, spacing_mm=MM)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.int16
    assert np.array_equal(array, expected.hu)
    assert np.array_equal(upscaled(volume.hu, tiny_model, affine=volume.affine), expected.hu)
    image = upscaled(volume.to_nibabel(), tiny_model)
    assert isinstance(image, nib.Nifti1Image)
    assert np.array_equal(np.asarray(image.dataobj).T, expected.hu)
    assert np.allclose(image.affine, expected.affine)
    other = upscaled(volume.to_sitk(), tiny_model)
    assert isinstance(other, sitk.Image)
    assert np.array_equal(sitk.GetArrayFromImage(other), expected.hu)
    assert np.allclose(other.GetOrigin(), expected.origin_mm)
    uhrct.write(volume, tmp_path / "in.nii.gz")
    for path in (tmp_path / "in.nii.gz", str(tmp_path / "in.nii.gz")):
        read = upscaled(path, tiny_model)
        assert np.array_equal(read.hu, expected.hu)
        assert np.allclose(read.affine, expected.affine)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floating_point_stays_floating_point(hu: np.ndarray, tiny_model: Model, dtype: type) -> None:
    result = upscaled(hu.astype(dtype), tiny_model, spacing_mm=MM)
    assert result.dtype == np.float32
    whole = upscaled(hu, tiny_model, spacing_mm=MM)
    assert np.abs(result - whole).max() <= 0.51
    image = nib.Nifti1Image(hu.T.astype(np.float32), np.diag([0.7, 0.8, 2.0, 1.0]))
    assert upscaled(image, tiny_model).get_data_dtype() == np.float32


def test_integers_that_do_not_fit_become_larger(tiny_model: Model) -> None:
    """HU of a result overshoot: 0 to 255 is not enough."""
    stripes = np.tile(np.repeat(np.array([0, 255], np.uint8), 4), (1, 16, 4))
    sharp = upscaled(stripes, tiny_model, spacing_mm=MM, psf_fwhm_mm=1.0, consistency="hard")
    assert sharp.min() < 0
    assert sharp.dtype == np.int16


@pytest.mark.parametrize(
    ("image", "place", "message"),
    [
        (np.zeros((2, 8, 8), np.int16), {}, "without a place"),
        (
            np.zeros((2, 8, 8), np.int16),
            {"spacing_mm": MM, "affine": np.eye(4)},
            "`spacing_mm` and `affine` exclude each other",
        ),
        (np.zeros((8, 8), np.int16), {"spacing_mm": MM}, "2 dimensions"),
        (np.zeros((2, 8, 8), complex), {"spacing_mm": MM}, "`image`: holds values of type complex"),
        (np.zeros((2, 8, 8), np.int16), {"affine": np.eye(3)}, "`affine`"),
        (uhrct.Volume(np.zeros((2, 8, 8), np.int16), MM), {"spacing_mm": MM}, "states its own spacing"),
        ("scan.npz", {"spacing_mm": MM}, r"uhrct.read\(path, spacing_mm="),
        ([[[0]]], {"spacing_mm": MM}, r"`image` is a list; give an array .*numpy.asarray\(image\)"),
        (torch.zeros(1, 8, 8), {"spacing_mm": MM}, r"`image` is a Tensor of torch; give an array .*numpy\(\)"),
        (nib.Nifti1Image(np.zeros((8, 8, 2), np.int16), None), {}, "`image` has no affine"),
        (None, {}, "`image` is a NoneType"),
        ({"hu": 1}, {"spacing_mm": MM}, "`image` is a dict; give a Volume, a path"),
        ("nowhere.nii", {}, "no such file"),
    ],
)
def test_what_cannot_be_used_is_said(image: Any, place: dict[str, Any], message: str, tiny_model: Model) -> None:
    with pytest.raises(uhrct.UhrctError, match=message):
        upscaled(image, tiny_model, **place)


def test_a_setting_that_does_not_exist_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UhrctError, match="there is no setting `sclae`; did you mean `scale`"):
        Upscaler(sclae=2)
    with pytest.raises(UhrctError, match="there is no setting `xyzzy`; known: scale"):
        uhrct.upscale(np.zeros((1, 8, 8), np.int16), spacing_mm=(1, 1, 1), xyzzy=2)


def sheared() -> np.ndarray:
    return np.eye(4) + 0.5 * np.eye(4, k=1) * np.array([[1, 1, 0, 0]]).T


def nifti(array: np.ndarray, affine: Any = None) -> nib.Nifti1Image:
    return nib.Nifti1Image(array, np.eye(4) if affine is None else affine)


COLOUR = np.zeros((8, 8, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
NAN = np.full((2, 8, 8), np.nan, np.float32)


@pytest.mark.parametrize(
    ("image", "place"),
    [
        (NAN, {"spacing_mm": MM}),
        (uhrct.Volume(NAN, MM), {}),
        (nifti(NAN), {}),
        (sitk.GetImageFromArray(NAN), {}),
        (np.zeros((8, 8)), {"spacing_mm": MM}),
        (nifti(np.zeros((8, 8), np.int16)), {}),
        (sitk.Image([8, 8], sitk.sitkInt16), {}),
        (np.zeros((2, 8, 8, 3), np.uint8), {"spacing_mm": MM}),
        (nifti(np.zeros((8, 8, 2, 2), np.int16)), {}),
        (nifti(COLOUR), {}),
        (sitk.Image([8, 8, 2], sitk.sitkVectorUInt8, 3), {}),
        (np.zeros((2, 8, 8), np.int16), {"affine": sheared()}),
        (nifti(np.zeros((8, 8, 2), np.int16), sheared()), {}),
        (np.zeros((2, 8, 8), bool), {"spacing_mm": MM}),
    ],
)
def test_an_input_in_memory_is_refused_as_a_file_is(image: Any, place: dict[str, Any], tiny_model: Model) -> None:
    with pytest.raises(uhrct.InputRefused):
        upscaled(image, tiny_model, **place)


@pytest.mark.parametrize("make", [uhrct.Volume, lambda hu, _: uhrct.Volume.from_nibabel(nifti(hu))])
@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8, 2)])
def test_a_volume_of_other_dimensions_is_refused_as_a_file_is(make: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(uhrct.InputRefused, match="dimensions"):
        make(np.zeros(shape, np.int16), MM)


def test_the_classes_of_errors_are_public() -> None:
    assert {"InputRefused", "NothingToDo", "UhrctError"} <= set(dir(uhrct))
    assert issubclass(uhrct.NothingToDo, uhrct.UhrctError)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("kind", ["array", "nibabel", "SimpleITK"])
def test_integers_give_integers_of_the_same_type(tiny_model: Model, kind: str, dtype: type) -> None:
    """Also beyond 16 bits, where the computation is in float32."""
    high = 40000 if np.iinfo(dtype).max >= 40000 else 100
    hu = np.full((2, 12, 12), high, dtype)
    images = {
        "array": hu,
        "nibabel": nib.Nifti1Image(hu.T, np.eye(4), dtype=dtype),
        "SimpleITK": sitk.GetImageFromArray(hu),
    }
    result = upscaled(images[kind], tiny_model, consistency="off", **({"spacing_mm": MM} if kind == "array" else {}))
    if kind != "array":
        result = np.asarray(result.dataobj).T if kind == "nibabel" else sitk.GetArrayFromImage(result)
    assert result.dtype in (dtype, np.int16, np.int32)
    assert result.dtype == dtype or not np.iinfo(dtype).min <= result.min() <= result.max() <= np.iinfo(dtype).max


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_of_floating_point_stay_floating_point(hu: np.ndarray, tiny_model: Model, dtype: type) -> None:
    image = sitk.GetImageFromArray(hu.astype(dtype))
    assert sitk.GetArrayFromImage(upscaled(image, tiny_model)).dtype == np.float32
    assert uhrct.Volume.from_sitk(image).hu.dtype == np.float32
    assert uhrct.Volume.from_nibabel(nifti(hu.astype(dtype))).hu.dtype == np.float32
