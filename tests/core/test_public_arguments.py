"""Wrong arguments of public functions: a `UhrctError`, `TypeError` or `ValueError` in one line, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import uhrct
from uhrct.models.diffusion import Diffusion
from uhrct.models.model import Model, ModelConfig
from uhrct.phantom.make import make_view, phantom_folder
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.degrade import degrade
from uhrct.physics.kernels import Kernel
from uhrct.physics.scan_noise import measure_noise
from uhrct.physics.scan_properties import ScanProperties
from uhrct.structure import StructureOperator
from uhrct.upscaling.upscaler import Upscaler

VOLUME = uhrct.Volume(np.full((2, 16, 16), -1000, np.int16), (1.0, 1.0, 1.0))
HOSTILE = [None, object(), "x", "", b"\x00", -1, 1e400, float("nan"), 2.5, True, 1j, [], {}, (1, 2), np.zeros((2, 2))]


def tiny() -> Model:
    return Model(ModelConfig(mean={"image_width": 8, "image_blocks": 0})).eval()


def upscaled(model: Model = None, volume: Any = VOLUME, **settings: Any) -> Any:  # type: ignore[assignment]
    return Upscaler(model or tiny(), **settings)(volume)


CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (uhrct.read, {"path": "nowhere", "series": None, "spacing_mm": None, "untilt": False}),
    (uhrct.write, {"volume": VOLUME, "path": "out.npz"}),
    (
        upscaled,
        {
            "volume": VOLUME,
            "scale": 2,
            "spacing_mm": None,
            "steps": 1,
            "samples": 1,
            "seed": 0,
            "noise_hu": 1.0,
            "psf_fwhm_mm": 1.0,
            "slice_thickness_mm": 1.0,
            "consistency": "auto",
            "quality": "standard",
            "denoise": None,
            "tile": 512,
            "batch": 1,
        },
    ),
    (degrade, {"volume": VOLUME, "scale": 2, "psf_fwhm_mm": 1.0, "noise_hu": 1.0, "seed": 0, "kind": "scanner"}),
    (make_view, {"shape": (8, 8, 8), "spacing_mm": None, "psf_fwhm_mm": 1.0, "centre_mm": (0, 0, 0)}),
    (phantom_folder, {"out": "new", "seed": 0, "family": "train", "dose": 1.0, "imaging": "model", "kernel": "x"}),
    (uhrct.Volume, {"hu": VOLUME.hu, "spacing_mm": (1, 1, 1), "origin_mm": (0, 0, 0), "direction": np.eye(3)}),
    (Acquisition, {"scale": (1, 2, 2), "kind": "scanner", "psf_fwhm": 0.6, "slice_thickness": 1.0, "sharpening": 0.0}),
    (Kernel, {"mtf50_lp_cm": 3.5, "mtf10_lp_cm": 5.9, "overshoot": 0.0}),
    (ScanProperties, {"psf_fwhm": 0.6, "noise_hu": 0.0, "slice_thickness": 1.0, "denoise": 0.0}),
    (StructureOperator, {"kind": "vc", "sigma_mm": (1.0,), "contrast_hu": 100.0, "polarity": "bright", "ndim": 2}),
    (Diffusion, {"prediction": "v", "levels": "cosine", "sampling_steps": 4, "beta_sample": (1e-4, 0.1)}),
    (measure_noise, {"hu": np.zeros((32, 32)), "spacing_mm": (1.0, 1.0)}),
]


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [pytest.param(c, a, n, id=f"{c.__name__}-{n}") for c, a in CALLS for n in a],
)
def test_hostile_arguments(
    call: Callable[..., Any], arguments: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refusals: list[Exception] = []
    for value in HOSTILE:
        try:
            call(**arguments | {name: value})
        except (uhrct.UhrctError, TypeError, ValueError) as error:
            refusals.append(error)
    assert refusals
    assert all(str(e).isprintable() for e in refusals if isinstance(e, uhrct.UhrctError))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uhrct.read(3), "`path` is 3; give a path"),  # type: ignore[arg-type]
        (lambda: uhrct.write(VOLUME, None), "`path` is None; give a path"),  # type: ignore[arg-type]
        (lambda: Upscaler(weights=3), "`weights` is 3; give a name"),
        (lambda: Upscaler(precision="float32"), "`precision` is 'float32'; give one of torch.float32"),
        (lambda: Upscaler(precision=torch.float64), "`precision` is torch.float64; give one of"),
        (lambda: Upscaler(precision=np.zeros(2)), "`precision` is"),
        (lambda: Upscaler(overrides=[1]), r"`overrides` is \[1\]; give a dict"),
        (lambda: Upscaler(overrides={"noise": 1}), "`overrides` names 'noise', which is no scan property; known: psf"),
        (lambda: Upscaler(overrides={"noise_hu": "a"}), "`overrides.*is 'a'; give a number"),
        (lambda: Upscaler("x2"), "`model` is 'x2'; give a Model"),  # type: ignore[arg-type]
        (lambda: Upscaler(object), "`model` is .*; give a Model"),  # type: ignore[arg-type]
        (lambda: uhrct.Volume.from_nibabel(VOLUME.hu), "`image` is a ndarray; give an image of nibabel"),
        (lambda: uhrct.Volume.from_sitk(VOLUME.to_nibabel()), "`image` is a Nifti1Image; give an image of SimpleITK"),
    ],
)
def test_a_wrong_type_is_said_when_it_is_given(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(uhrct.UhrctError, match=message) as caught:
        call()
    assert str(caught.value).isprintable()
