"""What the shipped weights promise: a test that fails when weights, networks and operators fall out of step."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.benchmark.methods import restorer
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import means, score_slices
from uhrct.models.model import Model
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.degrade import degrade
from uhrct.physics.resampling import upsample, upsample_stack
from uhrct.physics.scan_properties import ScanProperties
from uhrct.upscaling.upscaler import Upscaler

KNOWN = {"psf_fwhm": 0.6, "sharpening": 0.0}


@pytest.fixture(scope="module")
def model():
    return Model.from_pretrained("x2")


@lru_cache(maxsize=2)
def real_scan(folder: Path) -> Volume:
    """Reading a whole series takes seconds: once for all tests of a process."""
    return io.read(folder)


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_mean_beats_bicubic_on_slices_that_anyone_has(model, name):
    """Told the blur: the very smooth skull base looks like a scan with a wide PSF."""
    truth = io.read(str(get_testdata_file(name)))
    told = restorer(Upscaler(model, overrides=KNOWN))
    methods = {"bicubic": lambda lr, _: upsample_stack(lr, (1, 2, 2)), "ours": told}
    score = means(score_slices(truth, methods, Acquisition((1, 2, 2))))
    assert score["ours"]["psnr_wide"] > score["bicubic"]["psnr_wide"] + 2
    assert score["ours"]["smse_frangi"] < score["bicubic"]["smse_frangi"] / 8


@pytest.mark.parametrize(("case", "least_db"), [("validation/rider0117", 5.2), ("test/lidc0314", 5.0)])
def test_promised_gain_on_real_patients(model, shared_ct, case, least_db):
    """With the noise of the scan removed (default) and kept. Blur and noise are read from the voxels, unless told."""
    volume = real_scan(shared_ct / case)
    methods = {
        "bicubic": lambda lr, _: upsample_stack(lr, (1, 2, 2)),
        "ours": restorer(Upscaler(model)),
        "kept": restorer(Upscaler(model, denoise=0.0)),
        "told": restorer(Upscaler(model, denoise=0.0, overrides=KNOWN)),
        "hard": restorer(Upscaler(model, consistency="hard", overrides=KNOWN)),
    }
    score = means(score_slices(volume, methods, Acquisition((1, 2, 2)), 3))
    assert score["ours"]["psnr_wide"] > score["bicubic"]["psnr_wide"] + least_db
    assert score["ours"]["smse_frangi"] < score["bicubic"]["smse_frangi"] / 7
    assert score["kept"]["psnr_wide"] > score["ours"]["psnr_wide"]
    assert score["told"]["consistency_hu"] < 1.25
    assert score["hard"]["consistency_hu"] < 0.3


def test_structure_maps_are_closer_to_the_truths_than_the_interpolations_is(model):
    """The map that users get, and the network's own structure head (which once fell to 0 unnoticed)."""
    truth = io.read(str(get_testdata_file("CT_small.dcm")))
    low = degrade(truth, scale=(1, 2, 2))
    [slab] = Upscaler(model, structure=True).slabs(low)
    lr = torch.from_numpy(low.hu).float()
    _, head = model.mean_hu(
        model.features(lr[:, None].repeat(1, 3, 1, 1), low.spacing_mm[1:], ScanProperties(increment_mm=0.0))
    )
    maps = {"users": torch.from_numpy(slab.structure), "head": head[:, 0]}
    maps["prior"] = model.operator(upsample(lr, 2, 2), truth.spacing_mm[1:])
    wanted = model.operator(torch.from_numpy(truth.hu).float(), truth.spacing_mm[1:])
    error = {name: float((m - wanted).abs().mean()) for name, m in maps.items()}
    assert error["users"] < 0.5 * error["prior"]
    assert error["head"] < 0.9 * error["prior"]


def test_batch_and_tile_do_not_show_with_the_shipped_weights(model):
    rng = np.random.default_rng(0)
    hu = rng.normal(-600, 300, (3, 160, 144)).astype(np.float32)
    volume = Volume(hu, (0.8, 1.3, 1.3))
    for steps in (1, 2):
        whole, batched, tiled = (
            np.concatenate([s.hu for s in Upscaler(model, steps=steps, **k).slabs(volume)])
            for k in ({"batch": 1}, {"batch": 8}, {"batch": 1, "tile": 128})
        )
        assert np.abs(batched - whole).max() < 0.01
        assert np.abs(tiled - whole).max() < 0.01


@pytest.mark.parametrize(
    ("weights", "case", "least_db", "smse_ratio"),
    [
        ("x4", "validation/rider0117", 6.3, 8),
        ("x4", "test/lidc0314", 6.2, 8),
        ("5x1x1", "test/lidc0314", 2.0, 1.8),
        ("5x2x2", "validation/rider0117", 3.2, 2.8),
        ("5x2x2", "test/lidc0314", 3.4, 3.5),
    ],
)
def test_promised_gain_of_every_scale(shared_ct, weights, case, least_db, smse_ratio):
    volume = real_scan(shared_ct / case)
    model = Model.from_pretrained(weights)
    methods = {
        "interpolation": lambda lr, _: upsample_stack(lr, model.config.scale),
        "ours": restorer(Upscaler(model)),
    }
    score = means(score_slices(volume, methods, Acquisition(model.config.scale), 5 if weights.startswith("5") else 3))
    assert score["ours"]["psnr_wide"] > score["interpolation"]["psnr_wide"] + least_db
    assert score["ours"]["smse_frangi"] < score["interpolation"]["smse_frangi"] / smse_ratio


@pytest.mark.parametrize("weights", ["x2", "5x1x1", "5x2x2"])
def test_estimates_follow_the_noise_of_a_slice_that_anyone_has(weights):
    hu = io.read(str(get_testdata_file("CT_small.dcm"))).hu.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 40, hu.shape).astype(np.float32)
    upscaler = Upscaler(Model.from_pretrained(weights))
    quiet, loud = (upscaler.plan(Volume(x, (2.5, 0.7, 0.7))).scan.noise_hu for x in (hu, hu + noise))
    assert quiet < 25
    assert loud > quiet + 10


def test_noise_that_is_known_is_not_sharpened():
    """With its own estimate x2 leaves less of a scan's noise than when told that the scan is clean."""
    hu = io.read(str(get_testdata_file("CT_small.dcm"))).hu.astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 40, hu.shape).astype(np.float32)
    model = Model.from_pretrained("x2")

    def left(**told):
        clean, noisy = (
            next(iter(Upscaler(model, overrides=told, consistency="off").slabs(Volume(x, (2.5, 0.7, 0.7))))).hu
            for x in (hu, hu + noise)
        )
        return float((noisy - clean).std())

    assert left() < 0.7 * left(noise_hu=0.0, psf_fwhm=0.6, sharpening=0.0)
