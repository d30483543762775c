import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import uhrct
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.models import choice as serving
from uhrct.models.choice import load_for_scale, pick_device, scale_word
from uhrct.models.model import Model, ModelConfig
from uhrct.models.precision import inference_dtype
from uhrct.models.slice_noise import INDEPENDENT
from uhrct.upscaling.files import derivation, write_result
from uhrct.upscaling.slabs import compute_part
from uhrct.upscaling.upscaler import Upscaler


def scan(slice_hu, n=5, dtype=np.int16, spacing=(0.8, 1.3, 1.3)):
    hu = np.stack([np.roll(slice_hu, k, 1) for k in range(n)]).astype(dtype)
    return Volume(hu, spacing, origin_mm=(-50.0, -60.0, 7.0))


def run(model, volume, **settings):
    slabs = list(Upscaler(model, **settings).slabs(volume))
    return np.concatenate([s.hu for s in slabs])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_batch_and_tile_do_not_show(tiny_model, slice_hu, steps, precision):
    volume = scan(slice_hu, dtype=np.float32)
    if precision not in (torch.float32, inference_dtype(torch.device("cpu"))):  # emulated, it takes two minutes
        volume = scan(slice_hu[:56, :56], 2, np.float32)
    settings = {"steps": steps, "precision": precision}
    whole = run(tiny_model, volume, batch=1, **settings)
    for other in ({"batch": 8}, {"batch": 2}, {"tile": 32, "batch": 1}, {"tile": 40, "batch": 3}):
        assert np.abs(run(tiny_model, volume, **other, **settings) - whole).max() < 0.01


def test_two_runs_are_bit_identical(tiny_model, slice_hu):
    volume = scan(slice_hu, dtype=np.float32)
    for steps in (1, 2):
        assert np.array_equal(run(tiny_model, volume, steps=steps), run(tiny_model, volume, steps=steps))


def test_a_slice_is_the_same_alone_and_in_its_volume(tiny_model, slice_hu):
    volume = scan(slice_hu, dtype=np.float32)
    whole = run(tiny_model, volume)
    alone = run(tiny_model, volume.on_grid(scan(slice_hu, 1).grid, volume.hu[2:3]))
    assert np.abs(alone[0] - whole[2]).max() < 0.01


def test_seeds_give_different_samples_and_equal_seeds_equal_ones(tiny_model, slice_hu):
    volume = scan(slice_hu, dtype=np.float32)
    a, b, c = (run(tiny_model, volume, steps=2, seed=s) for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert np.abs(a - c).mean() > 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (2, 17, 31), (1, 64, 7)])
def test_any_shape(tiny_model, shape):
    volume = Volume(np.full(shape, -1000, np.int16), (2.0, 1.0, 0.8))
    out = run(tiny_model, volume)
    assert out.shape == (shape[0], 2 * shape[1], 2 * shape[2])
    assert out.dtype == np.int16


def test_padding_comes_back_as_it_went_in_and_does_not_bleed(tiny_model, slice_hu):
    volume = scan(slice_hu, 1)
    out = run(tiny_model, volume)[0]
    assert (out[:20, :20] == -2000).all()
    filled = volume.hu.copy()
    filled[filled == -2000] = -1024
    same = run(tiny_model, volume.on_grid(volume.grid, filled))[0]
    beside = np.ones(out.shape, bool)
    beside[:20, :20] = False
    assert np.array_equal(out[beside], same[beside])


def test_hu_are_not_clipped_or_shifted(tiny_model):
    """Metal at 12000 HU and air below -1024 stay: with the network silenced the result is the interpolation."""
    for p in tiny_model.mean.to_image.parameters():
        p.zero_()
    hu = np.full((1, 24, 24), -1100, np.float32)
    hu[0, 12:, :] = 12000
    out = run(tiny_model, Volume(hu, (1.0, 1.0, 1.0)), consistency="off")
    assert np.allclose(out[0, :10], -1100, atol=0.01)
    assert np.allclose(out[0, -10:], 12000, atol=0.01)


def test_hard_consistency_leaves_nothing(tiny_model, slice_hu):
    volume = scan(slice_hu)
    left = {}
    for mode in ("off", "auto", "hard"):
        left[mode] = Upscaler(tiny_model, consistency=mode)(volume).consistency_hu
    assert left["hard"] < 0.01 < left["off"]
    assert left["hard"] < left["auto"] <= left["off"]


def test_spread_is_the_deviation_of_samples(tiny_model, slice_hu):
    volume = scan(slice_hu, 1, np.float32)
    [slab] = Upscaler(tiny_model, steps=2, samples=3, consistency="off").slabs(volume)
    singles = []
    for k in range(3):
        singles.append((k + 1) * run(tiny_model, volume, steps=2, samples=k + 1, consistency="off"))
    drawn = np.stack([singles[0], singles[1] - singles[0], singles[2] - singles[1]])
    inside = volume.hu[0].repeat(2, 0).repeat(2, 1) > -1500
    assert np.allclose(slab.sd_hu[0][inside], drawn.std(0, ddof=1)[0][inside], atol=0.02)


def test_structure_map_is_a_fraction_on_the_fine_grid(tiny_model, slice_hu):
    for steps in (1, 2):
        [slab] = Upscaler(tiny_model, steps=steps, structure=True).slabs(scan(slice_hu, 1))
        assert slab.structure.shape == slab.hu.shape
        assert 0 <= slab.structure.min() <= slab.structure.max() <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused(tiny_model, bad):
    hu = np.zeros((2, 8, 8), np.float32)
    hu[1, 3, 3] = bad
    with pytest.raises(UhrctError, match="NaN"):
        run(tiny_model, Volume(hu, (1.0, 1.0, 1.0)), batch=1)


@pytest.mark.parametrize(
    "settings", [{"consistency": "soft"}, {"steps": 0}, {"samples": 2}, {"tile": 0}, {"steps": 2, "samples": 0}]
)
def test_senseless_settings_are_refused(tiny_model, settings):
    with pytest.raises(UhrctError):
        Upscaler(tiny_model, **settings)


def test_missing_networks_are_said(tiny_model):
    tiny_model.denoiser = None
    with pytest.raises(UhrctError, match="no denoiser"):
        Upscaler(tiny_model, steps=4).plan(Volume(np.zeros((1, 8, 8), np.int16), (1.0, 1.0, 1.0)))


def test_api_puts_the_result_on_the_grid_of_coinciding_edges(tiny_model, slice_hu, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    volume = scan(slice_hu, 2)
    out = uhrct.upscale(volume, scale=2, weights=tmp_path)
    assert out.shape == (2, 192, 160)
    assert out.hu.dtype == np.int16
    assert np.allclose(out.grid.corner_mm, volume.grid.corner_mm, atol=1e-6)
    assert np.allclose(out.grid.extent_mm, volume.grid.extent_mm, atol=1e-6)


def test_a_scale_that_nothing_serves_says_what_exists(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "mine")
    with pytest.raises(UhrctError, match=r"no weights serve scale x3; there are: mine \(x2\)"):
        load_for_scale((1, 3, 3), tmp_path / "mine")
    with pytest.raises(UhrctError, match="no weights serve scale 7x2x2"):
        load_for_scale((7, 2, 2))


def test_devices():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UhrctError, match="not known"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        for name in ("cuda", "cuda:1"):
            with pytest.raises(UhrctError, match="no CUDA"):
                pick_device(name)
    with pytest.raises(UhrctError, match="has 1 CPU device"):
        pick_device("cpu:1")
    with pytest.raises(UhrctError, match="not known"):
        pick_device("cuda:one")


@pytest.mark.parametrize("settings", [{}, {"steps": 2}])
def test_progress_is_told_to_the_end(tiny_model, slice_hu, settings):
    seen = []
    uhrct.upscale(scan(slice_hu, 3), model=tiny_model, progress=lambda *told: seen.append(told), batch=2, **settings)
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert done[0] < 3
    assert seen[-1] == (pytest.approx(3), 3)


def test_a_full_gpu_gets_fewer_slices_then_smaller_tiles(tiny_model, slice_hu, monkeypatch, caplog):
    volume = scan(slice_hu, dtype=np.float32)
    whole = run(tiny_model, volume)
    forward = type(tiny_model.mean).forward

    def cramped(self, x, *rest, **numbers):
        if len(x) * x.shape[-2] * x.shape[-1] > 6000:  # less than one slice
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *rest, **numbers)

    monkeypatch.setattr(type(tiny_model.mean), "forward", cramped)
    done = []
    slabs = list(compute_part(Upscaler(tiny_model, batch=4, tile=96).plan(volume), volume, advance=done.append))
    assert np.abs(np.concatenate([s.hu for s in slabs]) - whole).max() < 0.01
    assert sum(done) == pytest.approx(len(volume.hu))
    assert "1 slice(s) per pass, in tiles of 48 pixels" in caplog.text
    monkeypatch.setattr(
        type(tiny_model.mean), "forward", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError)
    )
    with pytest.raises(UhrctError, match="too little memory"):
        run(tiny_model, volume)


def test_scales_have_names():
    assert [scale_word(s) for s in ((1, 2, 2), (5, 2, 2), (1, 2, 3))] == ["x2", "5x2x2", "1x2x3"]


@pytest.fixture(params=[(1, 2, 2), (5, 1, 1), (5, 2, 2)], ids=str)
def told_model(request):
    torch.manual_seed(0)
    size = {"image_width": 8, "image_blocks": 1, "structure_width": 8, "structure_blocks": 1}
    config = ModelConfig(
        scale=request.param, context=2, properties=True, estimator=4, mean=size, denoiser=size, sample_sd_hu=30.0
    )
    model = Model(config)
    for p in model.parameters():
        p.data += 0.03 * torch.randn(p.shape)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("steps", [1, 2])
def test_every_scale_is_blind_to_batch_tile_and_part(told_model, slice_hu, steps):
    volume = scan(slice_hu[:48, :40], dtype=np.float32)
    whole = run(told_model, volume, batch=1, steps=steps)
    # a sample's network sees a structure map of the mean: the mean's last digit may turn a rounding to bfloat16
    rounding = 0.01 if steps == 1 else 0.1
    sz, sy, sx = told_model.config.scale
    assert whole.shape == (5 * sz, 48 * sy, 40 * sx)
    for other in ({"batch": 8}, {"tile": 16, "batch": 2}):
        assert np.abs(run(told_model, volume, **other, steps=steps) - whole).max() < rounding
    parts = list(compute_part(Upscaler(told_model, steps=steps, batch=2).plan(volume), volume, 2, 4))
    assert parts[0].first == 2 * sz
    part = np.concatenate([p.hu for p in parts])
    assert np.abs(part - whole[2 * sz : 4 * sz]).max() < rounding


def test_every_scale_agrees_exactly_when_asked(told_model, slice_hu):
    upscaler = Upscaler(told_model, consistency="hard", overrides={"psf_fwhm": 0.6})
    volume = scan(slice_hu[:48, :40], dtype=np.float32)
    assert upscaler(volume).consistency_hu < 0.01


def test_agreement_counts_the_kernel(told_model, slice_hu):
    """With a sharp kernel it is the sharpened result that is to agree with the scan."""
    volume = scan(np.maximum(slice_hu[:48, :40], -1000), dtype=np.float32)
    told = {"psf_fwhm": 0.6, "sharpening": 0.5}
    hu = run(told_model, volume, consistency="hard", overrides=told)
    kernel = replace(told_model.acquisition, sharpening=0.5)
    measured = kernel.forward(torch.from_numpy(hu).double())
    assert np.abs(measured.numpy() - volume.hu).max() < 0.05


def test_what_the_user_tells_takes_the_place_of_the_estimate(told_model, slice_hu):
    volume = scan(slice_hu, dtype=np.float32)
    known = Upscaler(told_model, noise_hu=33.0).plan(volume).scan
    estimated = Upscaler(told_model).plan(volume).scan
    assert known.noise_hu == 33.0
    assert known.psf_fwhm == estimated.psf_fwhm
    assert estimated.increment_mm == 0.8
    single = volume.on_grid(scan(slice_hu, 1).grid, volume.hu[:1])
    assert Upscaler(told_model).plan(single).scan.increment_mm == 0
    with pytest.raises(UhrctError, match="`noise_hu` is -1"):
        Upscaler(told_model, noise_hu=-1.0)


def test_overlapping_slabs_are_known_from_thickness_and_increment(slice_hu):
    size = {"image_width": 8, "image_blocks": 1}
    model = Model(ModelConfig(scale=(5, 1, 1), context=2, mean=size)).eval().requires_grad_(False)
    volume = scan(slice_hu[:32, :32], spacing=(2.5, 0.8, 0.8))
    overlapping = replace(volume, slice_thickness_mm=5.0)
    assert Upscaler(model).plan(overlapping).scan.slice_thickness == 2
    with pytest.raises(UhrctError, match="overlap"):
        run(model, overlapping, consistency="hard")
    run(model, volume, consistency="hard")
    assert Upscaler(model)(overlapping).consistency_hu is None


def test_neighbouring_fine_slices_of_a_sample_share_their_noise(slice_hu):
    """Along z a part of the noise goes on smoothly, inside a thick slice and across its ends alike."""
    size = {"image_width": 8, "image_blocks": 1, "structure_width": 0}
    model = Model(ModelConfig(scale=(5, 1, 1), context=2, mean=size, denoiser=size)).eval().requires_grad_(False)
    for p in (*model.mean.to_image.parameters(), *model.denoiser.to_image.parameters()):
        p.zero_()
    flat = Volume(np.full((6, 24, 24), 40, np.float32), (5.0, 1.0, 1.0))
    # v = 0 leaves a multiple of the noise that the sampler began with
    out = run(model, flat, steps=2, consistency="off") - 40
    assert out.std() > 1
    alike = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(out[:-1], out[1:], strict=True)]
    assert min(alike) > 0.8 * (1 - INDEPENDENT)
    assert np.corrcoef(out[0].ravel(), out[15].ravel())[0, 1] < 0.3


def test_a_spacing_is_served_by_the_nearest_scale_and_resampled(slice_hu, tmp_path):
    size = {"image_width": 8, "image_blocks": 1}
    for name, scale in (("a", (1, 2, 2)), ("b", (1, 4, 4)), ("c", (5, 2, 2))):
        Model(ModelConfig(scale=scale, context=2, mean=size)).save_pretrained(tmp_path / name)
    volume = scan(slice_hu[:32, :32], spacing=(5.0, 1.3, 1.3))
    out = uhrct.upscale(volume, target_spacing_mm=0.5, weights=tmp_path / "a")
    assert out.spacing_mm == (5.0, 0.5, 0.5)
    assert out.hu.dtype == np.int16
    assert np.allclose(out.grid.corner_mm, volume.grid.corner_mm)
    thin = uhrct.upscale(volume, target_spacing_mm=(1.25, 0.65, 0.65), weights=tmp_path / "c")
    assert thin.shape == (20, 64, 64)
    with pytest.raises(UhrctError, match="nowhere finer"):
        uhrct.upscale(volume, target_spacing_mm=(5.0, 2.0, 1.3), weights=tmp_path / "a")
    with pytest.raises(UhrctError, match="exclude each other"):
        uhrct.upscale(volume, scale=2, target_spacing_mm=0.5)


@pytest.mark.parametrize(
    ("want", "scale"),
    [
        ((5.0, 0.65, 0.65), (1, 2, 2)),
        ((5.0, 0.34, 0.34), (1, 4, 4)),
        ((5.0, 0.9, 0.9), (1, 2, 2)),
        ((1.0, 1.3, 1.3), (5, 1, 1)),
        ((1.0, 0.65, 0.65), (5, 2, 2)),
        ((1.25, 0.8, 0.8), (5, 2, 2)),
    ],
)
def test_nearest_scale(monkeypatch, want, scale):
    served = {Path(str(k)): s for k, s in enumerate([(1, 2, 2), (1, 4, 4), (5, 1, 1), (5, 2, 2)])}
    monkeypatch.setattr(serving, "served_scales", lambda weights=None, fast=False: served)
    assert serving.nearest_scale((5.0, 1.3, 1.3), want) == scale


def test_maps_go_to_the_wanted_grid_too(tiny_model, slice_hu):
    upscaler = Upscaler(tiny_model, steps=2, samples=2, structure=True, target_spacing_mm=(0.8, 0.5, 0.5))
    result = upscaler(scan(slice_hu, 2))
    for volume in (result.volume, result.structure, result.spread):
        assert volume.spacing_mm == (0.8, 0.5, 0.5)
        assert volume.shape == result.plan.grid.shape
    assert result.spread.hu.min() >= 0
    assert result.structure.hu.max() <= 1


def test_a_plan_estimates_the_scan_once_and_everyone_reads_it(told_model, slice_hu, tmp_path, monkeypatch):
    calls = []
    kind = type(told_model.estimator)
    read = kind.read
    monkeypatch.setattr(kind, "read", lambda *a, **k: calls.append(1) or read(*a, **k))
    volume = scan(slice_hu[:32, :32], 2)
    plan = Upscaler(told_model).plan(volume)
    write_result(plan, volume, tmp_path / "out.nii.gz", quiet=True)
    assert str(plan.assumptions) in derivation(plan).description
    assert len(calls) == 1


def test_weights_are_loaded_once_for_many_volumes(tiny_model, slice_hu, tmp_path, monkeypatch):
    tiny_model.save_pretrained(tmp_path)
    upscaler = Upscaler(weights=tmp_path)
    volume = scan(slice_hu[:32, :32], 1)
    assert upscaler.plan(volume).model is upscaler.plan(volume).model


@pytest.mark.parametrize("turn", [lambda v: v[:, ::-1], lambda v: v[:, :, ::-1], lambda v: v.swapaxes(1, 2)])
def test_best_quality_is_indifferent_to_flips_and_transposition(told_model, slice_hu, turn):
    volume = scan(slice_hu[:40, :32], 2, np.float32, (0.8, 1.0, 1.3))
    y_mm, x_mm = (1.3, 1.0) if turn(volume.hu).shape != volume.hu.shape else (1.0, 1.3)
    turned = Volume(np.ascontiguousarray(turn(volume.hu)), (0.8, y_mm, x_mm))
    told = {"precision": torch.float32, "overrides": {"psf_fwhm": 0.6, "sharpening": 0.0, "noise_hu": 9.0}}

    def apart(quality):
        a, b = (run(told_model, v, quality=quality, consistency="off", **told) for v in (volume, turned))
        return np.abs(turn(a) - b).max()

    assert apart("best") < 0.05
    assert apart("standard") > 1


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_nothing_is_written_of_a_network_that_returns_nan(tiny_model, slice_hu, tmp_path, dtype):
    broken = copy.deepcopy(tiny_model)
    next(broken.mean.parameters()).data[0] = float("nan")
    volume = scan(slice_hu[:32, :32], 2, dtype)
    with pytest.raises(UhrctError, match="NaN or infinite"):
        write_result(Upscaler(broken).plan(volume), volume, tmp_path / "out.nii.gz", quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"batch": -1}, "batch"),
        ({"batch": 0}, "batch"),
        ({"seed": "a"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"steps": 1.5}, "steps"),
        ({"slice_thickness_mm": -5.0}, "slice_thickness_mm"),
        ({"noise_hu": "20"}, "noise_hu"),
        ({"psf_fwhm_mm": float("nan")}, "psf_fwhm_mm"),
        ({"denoise": 1.5}, "denoise"),
        ({"quality": "good"}, "quality"),
        ({"overrides": {"psf": 1.0}}, "overrides"),
        ({"scale": 2.5}, "scale"),
    ],
)
def test_impossible_settings_name_the_argument(settings, name):
    with pytest.raises(UhrctError, match=f"`{name}`"):
        Upscaler(**settings)


def test_what_changes_the_last_digits_changes_the_uids(told_model, slice_hu):
    plan = Upscaler(told_model).plan(scan(slice_hu[:32, :32], 2))
    threads = torch.get_num_threads()
    before = derivation(plan).key
    try:
        torch.set_num_threads(threads + 1)
        assert derivation(plan).key != before
    finally:
        torch.set_num_threads(threads)
    assert derivation(plan).key == before
    assert derivation(Upscaler(told_model, skip_air=False).plan(scan(slice_hu[:32, :32], 2))).key != before


def test_the_report_is_json_and_says_what_was_assumed(told_model, slice_hu):
    upscaler = Upscaler(told_model, noise_hu=np.float32(7.5), batch=1, overrides={"psf_fwhm": 0.7})
    result = upscaler(scan(slice_hu[:32, :32], 2))
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert report["schema"] == "uhrct-report-2"
    assert report["output"]["shape"] == list(result.volume.shape)
    assert report["scan_properties"]["noise_hu"] == 7.5
    assert report["reasons"]["noise"].startswith("your choice; its correlation measured")
    assert report["settings"]["batch"] == 1
    assert report["consistency_hu"] == result.consistency_hu
    assert report["consistency_not_measured"] is None
    assert report["files"] == []
