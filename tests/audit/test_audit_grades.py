"""What the scan shows is supported; what it does not show is not, however well it hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audit_case import PIXEL_MM, SCANNER, Case, chest, interpolating_model, tube

from uhrct.audit.audit import Audit
from uhrct.audit.evidence import Curvature, ScanSlice, slice_evidence
from uhrct.audit.grades import DOUBTFUL, INFERRED, SUPPORTED, grade
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.upscaler import Upscaler

CASE = chest()


def audited(case: Case, fine: np.ndarray, draws: int = 0) -> Audit:
    upscaler = Upscaler(interpolating_model(), noise_hu=6.0, psf_fwhm_mm=0.6 * 2 * PIXEL_MM)
    audit = Audit(case.scan, upscaler.plan(case.scan), draws=draws)
    audit.feed(0, fine)
    return audit


def share(audit: Audit, grade: int, kind: str = "vessels") -> float:
    lengths = audit.length_mm[kind].sum(0)
    return float(lengths[grade] / lengths.sum())


def test_the_truth_is_supported_and_nothing_is_broken():
    audit = audited(CASE, CASE.truth)
    assert share(audit, SUPPORTED) > 0.97
    assert audit.length_mm["vessels"].sum() == pytest.approx(
        3 * 2 * 60 * PIXEL_MM, rel=0.25
    )  # thinning shortens the ends
    assert audit.broken_mm == 0
    assert audit.merges == 0
    assert audit.findings() == []


@pytest.mark.parametrize("contrast_hu", [400.0, 800.0])
def test_a_vessel_that_is_not_in_the_scan_is_doubtful(contrast_hu):
    """Faint ones too: a small vessel is often only 400 HU brighter than the lung."""
    drawn = np.stack([tube(CASE.truth.shape[1:], 80, (60, 100), contrast_hu)] * 3)
    audit = audited(CASE, CASE.truth + drawn)
    assert audit.length_mm["vessels"].sum(0)[DOUBTFUL] > 0.5 * 3 * 40 * PIXEL_MM
    worst = audit.findings()[0]
    assert abs(worst.y - 80) <= 2
    assert 60 <= worst.x <= 100
    assert worst.share < 0.2


def test_a_vessel_that_the_scanner_cannot_see_is_doubtful_although_it_agrees_with_the_scan():
    unseen = np.stack([tube(CASE.truth.shape[1:], 80, (60, 100), 900.0)] * 3).astype(np.float32)
    t = torch.from_numpy(unseen)
    unseen = 8 * (t - SCANNER.pinv(SCANNER.forward(t))).numpy()
    assert float(SCANNER.forward(torch.from_numpy(unseen)).abs().max()) < 0.1
    plain, hidden = (audited(CASE, fine).length_mm["vessels"].sum(0) for fine in (CASE.truth, CASE.truth + unseen))
    assert hidden.sum() > plain.sum() + 20
    assert hidden[DOUBTFUL] > 0.9 * (hidden.sum() - plain.sum())


def test_a_vessel_of_the_scan_that_the_result_lacks_is_broken():
    without = CASE.truth - np.stack([tube(CASE.truth.shape[1:], 60, (62, 98))] * 3)
    assert 3 * 15 * PIXEL_MM < audited(CASE, without).broken_mm < 3 * 40 * PIXEL_MM


def test_a_drawn_bridge_between_two_vessels_is_a_merge():
    bridge = np.stack([tube(CASE.truth.shape[1:], 80, (55, 105)).T] * 3)
    audit = audited(CASE, np.maximum(CASE.truth, -850 + bridge))
    assert audit.merges >= 3


def test_repeated_results_hold_what_the_networks_find_and_not_what_was_drawn():
    """Weak contrast: nothing is measured, so that only the repetition can tell a real vessel from a drawn one."""
    case = chest()
    fine = case.truth + np.stack([tube(case.truth.shape[1:], 80, (60, 100))] * 3)
    audit = audited(case, fine, draws=2)
    found = audit.findings()
    assert found
    assert all(f.present == 0 for f in found[:3])
    assert share(audit, INFERRED) == 0


def test_share_is_the_amplitude_in_the_scan():
    for amplitude in (0.0, 0.5, 1.0):
        fine = CASE.truth + np.stack([tube(CASE.truth.shape[1:], 80, (50, 110))] * 3)
        scan = CASE.truth + amplitude * (fine - CASE.truth)
        low = SCANNER.forward(torch.from_numpy(scan.astype(np.float32)))
        inside = np.hypot(*(np.mgrid[:160, :160] - 80)) < 41
        part = ScanSlice(
            measured=low[1],
            interpolated=upsample_stack(low[1][None], (1, 2, 2)),
            fine=torch.from_numpy(fine[1:2].astype(np.float32)),
            lungs=inside,
            spacing_mm=(PIXEL_MM, PIXEL_MM),
            noise_hu=5.0,
        )
        [evidence] = slice_evidence(part, SCANNER)["vessels"]
        rows = evidence.segments.mean(np.mgrid[:160, :160][0].astype(float))
        drawn = np.abs(rows - 80) < 2
        assert evidence.share[drawn] == pytest.approx(amplitude, abs=0.25)
        assert evidence.share[~drawn] == pytest.approx(1, abs=0.1)
        assert (grade(evidence)[drawn] == (SUPPORTED if amplitude == 1 else DOUBTFUL)).all() or amplitude == 0.5


def test_an_airway_is_dark_and_darker_than_lung_between_vessels():
    hole = CASE.truth - np.stack([tube(CASE.truth.shape[1:], 80, (60, 100), 140.0)] * 3)
    wall = sum(tube(CASE.truth.shape[1:], row, (60, 100), 500.0) for row in (76, 84))
    fine = hole + np.stack([wall] * 3)
    low = SCANNER.forward(torch.from_numpy(fine.astype(np.float32))).numpy()
    audit = audited(Case(fine, CASE.scan.on_grid(CASE.scan.grid, low)), fine)
    assert audit.length_mm["airways"].sum() == pytest.approx(3 * 40 * PIXEL_MM, rel=0.3)
    assert audited(CASE, CASE.truth).length_mm["airways"].sum() == 0


def test_maps_are_those_of_the_structure_operator_of_the_metrics():
    from uhrct.evaluation.structure_error import SMSE_OPERATORS

    image = torch.from_numpy(CASE.truth[:1])
    own = Curvature(image, (PIXEL_MM, PIXEL_MM)).map("vessels")
    assert np.abs(own - SMSE_OPERATORS["vc"](image, (PIXEL_MM, PIXEL_MM)).numpy()).max() < 1e-4
