"""What a user of the library sees: printed objects, warnings, and what a result holds."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import uhrct
from uhrct.models.model import Model
from uhrct.upscaling.upscaler import Upscaler


@pytest.fixture
def volume() -> uhrct.Volume:
    y, x = np.mgrid[:20, :24]
    hu = np.stack([-900 + 40 * ((y + k) % 7) + 10 * x for k in range(3)]).astype(np.int16)
    return uhrct.Volume(hu, (2.0, 0.8, 0.7))


def test_a_result_and_its_plan_print_one_line_without_headers_and_layers(
    tiny_model: Model, volume: uhrct.Volume
) -> None:
    scan = replace(volume, meta={"format": "DICOM", "dicom": [{"PatientName": "Doe^Jane"}]})
    result = Upscaler(tiny_model, structure=True)(scan)
    for text in (repr(result), repr(result.plan)):
        assert text.isprintable()
        assert len(text) < 200
        assert "Doe" not in text
    assert "structure" in repr(result)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("npz", "NPZ"), ("nii", "NIfTI"), ("nrrd", "NRRD"), ("mha", "MetaImage"), ("dcm", "DICOM")]
)
def test_a_volume_that_was_read_names_its_format(volume: uhrct.Volume, tmp_path: Path, suffix: str, kind: str) -> None:
    file = tmp_path / f"scan.{suffix}"
    uhrct.write(volume.on_grid(replace(volume.grid, shape=(1, 20, 24)), volume.hu[:1]), file)
    assert repr(uhrct.read(file)).endswith(f"int16, from {kind})")


@pytest.mark.parametrize("shape", [(24, 20, 3), (20, 20, 24)])
def test_an_array_in_the_axis_order_of_nibabel_is_warned_about(tiny_model: Model, shape: tuple[int, ...]) -> None:
    with pytest.warns(UserWarning, match=r"looks like \(x, y, z\)"):
        uhrct.upscale(np.full(shape, -1000, np.int16), affine=np.eye(4), model=tiny_model)


@pytest.mark.parametrize("shape", [(3, 20, 24), (3, 20, 20), (20, 20, 20), (1, 8, 8)])
def test_an_array_of_slices_is_not_warned_about(tiny_model: Model, shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        uhrct.upscale(np.full(shape, -1000, np.int16), affine=np.eye(4), model=tiny_model)
    assert not [w for w in caught if "(x, y, z)" in str(w.message)]


def test_warnings_about_the_scan_are_python_warnings_once_each(tiny_model: Model, volume: uhrct.Volume) -> None:
    reported = Upscaler(tiny_model)(volume).report["warnings"]
    assert reported  # so small a slice is no chest
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        uhrct.upscale(volume, model=tiny_model)
    assert [str(w.message) for w in caught if w.filename == __file__] == reported


@pytest.mark.parametrize("name", ["structure", "interval"])
def test_outputs_that_would_be_lost_are_refused(tiny_model: Model, volume: uhrct.Volume, name: str) -> None:
    with pytest.raises(uhrct.UhrctError, match=rf"`{name}` .*uhrct.Upscaler\({name}=True\)"):
        uhrct.upscale(volume, model=tiny_model, **{name: True})


def test_uncertainty_is_the_interval_or_the_spread_or_none(tiny_model: Model, volume: uhrct.Volume) -> None:
    plain = Upscaler(tiny_model)(volume)
    assert plain.uncertainty is None
    sampled = Upscaler(tiny_model, steps=2, samples=2)(volume)
    assert sampled.spread is not None
    assert sampled.uncertainty is sampled.spread
    bounds = replace(plain, lower=plain.volume, upper=plain.volume)
    assert bounds.uncertainty == (bounds.lower, bounds.upper)
