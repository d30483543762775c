"""The report of a run, for the library and for files alike, and the progress that it makes."""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uhrct.core.hu import MEAN_OF_NOISE
from uhrct.core.volume import Volume
from uhrct.models.model import Model, ModelConfig
from uhrct.physics.scan_properties import ScanProperties
from uhrct.upscaling.body_residual import BodyResidual
from uhrct.upscaling.files import work_in_words, write_result
from uhrct.upscaling.scan_warnings import limits
from uhrct.upscaling.slabs import Slab, compute_slabs
from uhrct.upscaling.upscaler import Upscaler


def scan(slice_hu, n=5):
    hu = np.stack([np.roll(slice_hu, k, 1)[:32, :32] for k in range(n)])
    return Volume(hu, (2.5, 1.3, 1.3), origin_mm=(-50.0, -60.0, 7.0))


def test_the_report_names_weights_and_no_folder(tiny_model, slice_hu, tmp_path):
    tiny_model.save_pretrained(tmp_path / "mine")
    volume = scan(slice_hu, 2)
    upscaler = Upscaler(weights=tmp_path / "mine")
    report = upscaler(volume).report
    sha256 = hashlib.sha256((tmp_path / "mine" / "model.safetensors").read_bytes()).hexdigest()
    assert report["weights"] == {"name": "mine", "sha256": sha256}
    assert str(tmp_path) not in json.dumps(report)
    # the same function makes the report of files
    written = write_result(upscaler.plan(volume), volume, tmp_path / "out.nii.gz", quiet=True)
    assert written["files"] == [{"content": "image", "series_instance_uid": None, "sop_instance_uids": []}]
    assert str(tmp_path) not in json.dumps(written)
    changed = {"seconds": 0, "files": []}
    assert written | changed == report | changed


def test_the_report_holds_the_warnings_of_its_own_run(tiny_model, slice_hu, tmp_path):
    quiet, loud = scan(slice_hu, 1), scan(np.full_like(slice_hu, 32767), 1)
    upscaler = Upscaler(tiny_model, consistency="off")
    reports = [upscaler(volume).report for volume in (loud, quiet, loud)]
    clipped = reports[0]["clipped_voxels"]
    assert clipped > 0
    said = [f"{clipped} voxels beyond 16 bits were clipped"]

    def clippings(report):
        return [line for line in report["warnings"] if "clipped" in line]

    assert [clippings(report) for report in reports] == [said, [], said]
    # the other lines are about the scan, which is unlike a patient; each run lists its own once
    assert reports[0]["warnings"] == reports[2]["warnings"]
    assert len(set(reports[0]["warnings"])) == len(reports[0]["warnings"])
    assert clippings(write_result(upscaler.plan(loud), loud, tmp_path / "out.nii.gz", quiet=True)) == said
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda volume: clippings(upscaler(volume).report), (loud, quiet)))
    assert both == [said, []]


def test_the_report_says_why_the_consistency_is_unknown(slice_hu):
    size = {"image_width": 8, "image_blocks": 1}
    model = Model(ModelConfig(scale=(5, 1, 1), context=2, mean=size)).eval().requires_grad_(False)
    volume = scan(slice_hu, 2)

    def why(scanned, **settings):
        return Upscaler(model, **settings)(scanned).report["consistency_not_measured"]

    assert why(volume) is None
    assert why(replace(volume, slice_thickness_mm=5.0)) == "slices overlap"
    assert why(volume, overrides={"psf_known": False}) == "the blur of the scan is unknown"
    assert why(replace(volume, hu=np.full_like(volume.hu, -3024))) == "all slices are padding"


@pytest.mark.parametrize("settings", [{}, {"quality": "best"}, {"steps": 2, "samples": 3}, {"target_spacing_mm": 0.5}])
def test_progress_counts_input_slices_and_moves_within_a_slab(tiny_model, slice_hu, settings):
    volume = scan(slice_hu)
    plan = Upscaler(tiny_model, batch=2, **settings).plan(volume)
    seen = []
    slabs = list(compute_slabs(plan, volume, seen.append))
    assert sum(seen) == pytest.approx(5)
    assert sum(len(s.hu) for s in slabs) == 5
    moves = {"quality": 8, "steps": 1 + 2 * 3}  # the mean, then every step of every sample
    assert len(seen) == 3 * next((moves[name] for name in moves if name in settings), 1)
    assert all(0 < n <= 2 for n in seen)


def test_the_work_in_words(tiny_model, slice_hu):
    volume = scan(slice_hu)
    for settings, words in (
        ({}, "5 slices"),
        ({"quality": "best"}, "5 slices, quality best"),
        ({"steps": 2}, "1 sample of 5 slices"),
        ({"steps": 2, "samples": 8}, "8 samples of 5 slices"),
    ):
        assert work_in_words(Upscaler(tiny_model, **settings).plan(volume)) == words


def test_the_plan_does_not_call_an_assumed_thickness_stated(slice_hu):
    size = {"image_width": 8, "image_blocks": 1}
    through = Model(ModelConfig(scale=(5, 1, 1), context=2, mean=size)).eval().requires_grad_(False)
    in_plane = Model(ModelConfig(mean=size)).eval().requires_grad_(False)
    thin = replace(scan(slice_hu), slice_thickness_mm=1.0)
    for model, volume, words in (
        (through, thin, "said by the file"),
        (through, scan(slice_hu), "file states no thickness"),
        (in_plane, thin, "this scale keeps the slices"),
    ):
        assert words in Upscaler(model).plan(volume).assumptions.reasons["slices"]


def test_the_weights_of_a_training_run_have_its_name(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "mine" / "model")
    volume = Volume(np.full((1, 8, 8), -1000, np.int16), (1.0, 1.0, 1.0))
    for weights in (tmp_path / "mine", tmp_path / "mine" / "model"):
        report = Upscaler(weights=weights)(volume).report
        assert report["weights"]["name"] == report["settings"]["weights"] == "mine"


@pytest.mark.parametrize("kind", ["scan_properties", "scan_facts"])
def test_every_number_of_the_scan_is_explained(tiny_model: Model, kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    table = page.split(f"| key of `{kind}` |")[1].split("\n\n")[0]
    explained = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    names = {
        "scan_properties": {f.name for f in fields(ScanProperties)},
        "scan_facts": {*limits((1, 2, 2)), "thickness_mm"},
    }
    assert explained == names[kind]


def test_slices_have_one_thickness_in_all_lines(slice_hu):
    """A scale that keeps the slices has no use for their thickness, whoever states it."""
    size = {"image_width": 8, "image_blocks": 1}
    volume = replace(scan(slice_hu), slice_thickness_mm=2.0)
    through = Model(ModelConfig(scale=(5, 1, 1), context=2, mean=size)).eval().requires_grad_(False)
    in_plane = Model(ModelConfig(mean=size)).eval().requires_grad_(False)

    def planned(model, **settings):
        plan = Upscaler(model, **settings).plan(volume)
        return plan.scan.slice_thickness * volume.spacing_mm[0], str(plan.assumptions)

    z_mm = volume.spacing_mm[0]
    for settings in ({}, {"slice_thickness_mm": 4.0}):
        told_mm, words = planned(in_plane, **settings)
        assert told_mm == z_mm
        assert f"slices {z_mm:.2f} mm apart (their thickness is not used, because this scale keeps the slices)" in words
    assert planned(through)[0] == pytest.approx(2.0)
    assert f"slices {z_mm:.2f} mm apart, 2.00 mm thick (said by the file)" in planned(through)[1]
    assert f"slices {z_mm:.2f} mm apart, 4.00 mm thick (your choice)" in planned(through, slice_thickness_mm=4.0)[1]


def test_air_does_not_dilute_the_difference_in_the_body(tiny_model):
    """The mean of the noise that a result lacks is .8 standard deviations, however much air is around the body."""
    clean = np.full((1, 96, 192), -1000, np.float32)
    clean[:, :, :48] = 40
    measured = tiny_model.acquisition.forward(torch.from_numpy(clean)).numpy()
    noise = np.random.default_rng(0).normal(0, 50, measured.shape) * (measured > -300)
    volume = Volume((measured + noise).astype(np.float32), (1.0, 0.7, 0.7))
    residual = BodyResidual(Upscaler(tiny_model).plan(volume), volume)
    residual.feed(Slab(0, clean))
    assert residual.mean_hu == pytest.approx(MEAN_OF_NOISE * 50, rel=0.05)
    assert residual.mean_hu > 3 * np.abs(noise).mean()
