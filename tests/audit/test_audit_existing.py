"""`audit_result` and the page: whole runs, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit_case import chest, interpolating_model, tube

from uhrct.audit import existing
from uhrct.audit.page import sentence, write_page
from uhrct.core.errors import InputRefused
from uhrct.core.volume import Volume
from uhrct.upscaling.plan import make_plan

CASE = chest()
DRAWN = CASE.truth + np.stack([tube(CASE.truth.shape[1:], 80, (60, 100))] * 3)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    model = interpolating_model()
    monkeypatch.setattr(existing, "make_plan", lambda volume, settings: make_plan(volume, settings, model))


def test_a_report_is_plain_json_and_adds_up():
    report = existing.audit_result(CASE.scan, CASE.volume(DRAWN)).report
    report = json.loads(json.dumps(report, allow_nan=False))
    for kind in ("vessels", "airways"):
        for grade, total in report[kind]["total_mm"].items():
            thirds = sum(report[kind][f"{t}_mm"][grade] for t in ("upper", "middle", "lower"))
            assert thirds == pytest.approx(total, abs=0.2)
    assert report["findings"][0]["grade"] == "doubtful"
    assert "doubtful" in sentence(report)
    assert "Measured again" in sentence(report)


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path):
    done = existing.audit_result(CASE.scan, CASE.volume(DRAWN))
    path = tmp_path / "audit.html"
    write_page(done.audit, done.report, path)
    text = path.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "http" not in text
    assert text.count('class="page') == 3  # one for each slice with lungs
    assert "doubtful" in text
    assert "Research use only" in text


def test_upper_and_lower_thirds_follow_the_patient_not_the_order_of_slices():
    fine = CASE.truth.copy()
    fine[0] = DRAWN[0]
    low = CASE.scan
    upright = existing.audit_result(low, CASE.volume(fine)).report["vessels"]
    assert low.direction[2, 0] > 0
    assert upright["lower_mm"]["doubtful"] > 10 > upright["upper_mm"]["doubtful"]
    turned = replace(low, direction=low.direction @ np.diag([-1, 1, -1]))
    high = turned.on_grid(turned.refined_grid((1, 2, 2)), fine)
    upside = existing.audit_result(turned, high).report["vessels"]
    assert upside["upper_mm"]["doubtful"] == upright["lower_mm"]["doubtful"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: replace(v, hu=v.hu[:, :-2]), "must be a multiple"),
        (lambda v: CASE.scan, "same number of voxels"),
        (lambda v: replace(v, origin_mm=(30.0, 0.0, 0.0)), "do not cover the same place"),
        (lambda v: replace(v, spacing_mm=(2.5, 0.9, 0.9)), "do not cover the same place"),
        (lambda v: replace(v, hu=np.full_like(v.hu, 40)), "there is nothing to audit"),
        (lambda v: replace(v, hu=np.roll(v.hu, 30, 1)), "do not show the same scan"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(change, words):
    with pytest.raises(InputRefused, match=words) as error:
        existing.audit_result(CASE.scan, change(CASE.volume(CASE.truth)))
    assert "\n" not in str(error.value)


def test_a_scan_without_lungs_is_audited_without_vessels():
    y, x = np.mgrid[:96, :96]
    hu = np.where(np.hypot(y - 48, x - 48) < 40, 40.0, -1000.0)[None].repeat(2, 0).astype(np.float32)
    low = Volume(hu, (2.5, 1.0, 1.0))
    high = low.on_grid(low.refined_grid((1, 2, 2)), hu.repeat(2, 1).repeat(2, 2))
    report = existing.audit_result(low, high).report
    assert not report["lungs_found"]
    assert "No lung was found" in sentence(report)
    assert sum(report["vessels"]["total_mm"].values()) == 0


def test_the_wall_of_the_lung_is_no_vessel():
    y, x = np.mgrid[:160, :160]
    hu = np.where(np.hypot(y - 80, x - 80) < 70, 40.0, -1000.0)
    for centre in (50, 110):
        hu[np.hypot(y - 80, x - centre) < 24] = -850
    low = Volume(hu[None].repeat(2, 0).astype(np.float32), (2.5, 1.0, 1.0))
    high = low.on_grid(low.refined_grid((1, 2, 2)), low.hu.repeat(2, 1).repeat(2, 2))
    report = existing.audit_result(low, high).report
    assert report["lungs_found"]
    assert sum(report["vessels"]["total_mm"].values()) == 0
