"""Check the grades of `uhrct audit` on phantoms, where every vessel is known -> results/faithfulness.json.

    python benchmarks/faithfulness.py --weights src/uhrct/models/weights --seeds 10 11 12

Phantoms are of the family "test", which no training has seen, with random pixel size, PSF, dose and kernel. The
thresholds of the grades were chosen on seeds 0 to 4 of this family; measure on others. Each phantom is degraded,
super-resolved with default settings (nothing told) and audited three times:

- ``result``: as it is;
- ``planted``: vessels that do not exist are drawn into the result;
- ``hidden``: the same vessels, but only the part that the scanner cannot see, twice as strong. Their residual is 0.

A structure is *real* where the V_C map of the phantom without noise is at least 0.06 (faint vessels count) within one
voxel, and *invented* elsewhere. Every segment of the audit is one or the other by the mean along its centre line.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from uhrct.audit.audit import Audit, without_rim
from uhrct.audit.evidence import CLEAR_FROM, VISIBLE_FROM, Curvature
from uhrct.audit.grades import GRADES
from uhrct.core.files import write_atomic
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.sfrc import PATCH_PX, STEP_PX, sfrc_flags
from uhrct.phantom.imaging import add_noise
from uhrct.phantom.scene import Imager, View, make_scene
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.kernels import SHARP, STANDARD
from uhrct.structure.lengths import line_lengths
from uhrct.structure.vessels import skeleton
from uhrct.upscaling.upscaler import Upscaler

SCALES = {"x2": (1, 2, 2), "x4": (1, 4, 4), "5x2x2": (5, 2, 2)}
HEIGHTS_MM = (-60.0, -20.0, 25.0, 60.0)
#: V_C of the faintest vessel that is real: half of what a structure of the result needs
FAINT_FROM = 0.06
#: HU of a drawn vessel, and where it ends
DRAWN_HU = 40.0
#: vessels drawn into each slice, and their length and contrast
PLANTED, LENGTH_MM, CONTRAST_HU = 8, (4.0, 15.0), (150.0, 700.0)
VARIANTS = ("result", "planted", "hidden")


def phantom(seed: int, height_mm: float, scale: tuple[int, int, int]) -> dict[str, Any]:
    """A part of a chest of three low-resolution slices: truth without noise, scan, and what is known about both."""
    draw = np.random.default_rng([seed, int(height_mm) + 1000, *scale])
    pixel_mm, z_mm = float(draw.uniform(0.6, 0.85)), float(draw.choice([0.8, 1.25, 2.5])) / (1 if scale[0] == 1 else 2)
    view = View((3 * scale[0], 512, 512), (z_mm, pixel_mm, pixel_mm), float(draw.uniform(0.9, 1.6)), (height_mm, 0, 0))
    slab = Imager(make_scene("test", seed), view).slab(0, view.shape[0])
    dose = float(np.exp(draw.uniform(np.log(0.1), np.log(3))))
    noisy = add_noise(slab.hu, view, dose, seed, 0, (STANDARD, SHARP)[draw.integers(2)])
    acquisition = Acquisition(scale, psf_fwhm=float(draw.uniform(0.5, 0.9)))
    low = acquisition.forward(torch.from_numpy(noisy.astype(np.float32))[None] if scale[0] > 1 else _t(noisy))
    hu = np.rint(low.reshape(3, *low.shape[-2:]).numpy()).astype(np.float32)
    spacing_mm = (z_mm * scale[0], pixel_mm * scale[1], pixel_mm * scale[2])
    return {
        "truth": slab.hu.astype(np.float32),
        "lungs": slab.lobes > 0,
        "scan": Volume(hu, spacing_mm),
        "acquisition": acquisition,
        "pixel_mm": pixel_mm,
        "dose": dose,
    }


def planted(truth: np.ndarray, avoid: np.ndarray, lungs: np.ndarray, pixel_mm: float, seed: int) -> np.ndarray:
    """Curved vessels in HU, drawn where a slice of the truth and of the result have no structure."""
    draw = np.random.default_rng(seed)
    out = np.zeros(truth.shape, np.float32)
    inner = ndimage.binary_erosion(lungs, iterations=5)
    for _ in range(PLANTED):
        free = inner & (ndimage.distance_transform_edt(~(avoid | (out > 20))) > 3)
        places = np.argwhere(free)
        if len(places) < 10:
            break
        at, angle = places[draw.integers(len(places))].astype(float), draw.uniform(0, 2 * np.pi)
        bend, line = draw.normal(0, 0.05), np.zeros(truth.shape, np.float32)
        for _ in range(int(2 * draw.uniform(*LENGTH_MM) / pixel_mm)):
            y, x = at.round().astype(int)
            if not (0 <= y < free.shape[0] and 0 <= x < free.shape[1] and free[y, x]):
                break
            line[y, x] = 1
            at += 0.5 * np.array([np.sin(angle), np.cos(angle)])
            angle += 0.5 * bend
        if line.sum() * pixel_mm >= LENGTH_MM[0] / 2:
            vessel = ndimage.gaussian_filter(line, draw.uniform(0.7, 1.6))
            out += vessel / vessel.max() * draw.uniform(*CONTRAST_HU)
    return out


def audited(case: dict[str, Any], fine: np.ndarray, upscaler: Upscaler) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(kind, label, grade of each segment) of every fine slice of the middle slice of the scan."""
    entries: list[tuple[str, np.ndarray, np.ndarray]] = []

    class Recorder(Audit):
        def _enter(self, k: int, corner: Any, part: Any, found: Any, present: Any, lines: np.ndarray) -> None:
            super()._enter(k, corner, part, found, present, lines)
            if k == 1:
                line = found.evidence.segments.line
                label = np.zeros(case["truth"].shape[1:], np.int32)
                label[line.rows + corner[0], line.columns + corner[1]] = line.numbers + 1
                entries.append((found.kind, label, lines[line.rows, line.columns]))

    audit = Recorder(case["scan"], upscaler.plan(case["scan"]))
    audit.lungs = without_rim(_low(case["lungs"], case["acquisition"].scale), case["scan"].spacing_mm[1:])
    audit._thirds = dict.fromkeys(range(3), 0)
    audit.feed(0, fine)
    return entries


def measure(name: str, weights: Path, seeds: list[int]) -> dict[str, Any]:
    """The figures of one scale."""
    scale = SCALES[name]
    upscaler = Upscaler(scale=scale, weights=weights / name)
    total: dict[str, float] = defaultdict(float)
    kinds = ("real", "invented", "at another height")
    grades = {v: {kind: np.zeros(len(GRADES)) for kind in kinds} for v in VARIANTS}
    flags = {v: np.zeros(4) for v in VARIANTS}
    cases = [(seed, height) for seed in seeds for height in HEIGHTS_MM]
    for seed, height in track(cases, name):
        case = phantom(seed, height, scale)
        mm = (case["pixel_mm"], case["pixel_mm"])
        sz = scale[0]
        middle = slice(sz, 2 * sz)
        truth, lungs = case["truth"], case["lungs"]
        result = np.asarray(upscaler(case["scan"]).volume.hu, np.float32)
        true_map, own_map = (Curvature(_t(image), mm).map("vessels") for image in (truth, result))
        drawn = np.stack(
            [
                planted(t, (a >= FAINT_FROM) | (b >= FAINT_FROM), l, mm[0], seed * 100 + k)
                for k, (t, a, b, l) in enumerate(zip(truth, true_map, own_map, lungs, strict=True))
            ]
        )
        a = case["acquisition"]
        shaped = _t(drawn)[None] if sz > 1 else _t(drawn)
        unseen = (shaped - a.pinv(a.forward(shaped))).reshape(drawn.shape).numpy()
        images = {"result": result, "planted": result + drawn, "hidden": result + 2 * unseen}
        near_drawn = ndimage.maximum_filter(drawn, (1, 3, 3)) > DRAWN_HU
        lines = [skeleton(one > DRAWN_HU) for one in drawn[middle]]
        total["drawn"] += sum(float(line_lengths(line, mm)[line].sum()) for line in lines)
        for variant, image in images.items():
            _grades(audited(case, image, upscaler), true_map[middle], near_drawn[middle], variant, mm, grades[variant])
            for k in range(sz, 2 * sz):
                _flags(truth[k], image[k], drawn[k], flags[variant])
        _lengths(true_map[middle], own_map[middle], lungs[middle], mm, total)
    return _figures(total, grades, flags)


def _grades(
    found: list[tuple[str, np.ndarray, np.ndarray]],
    true_map: np.ndarray,
    near_drawn: np.ndarray,
    variant: str,
    mm: tuple[float, float],
    out: dict[str, np.ndarray],
) -> None:
    """Add the length of vessels per grade, real and invented. In variants only what was drawn counts as invented.

    A vessel that the phantom has in another fine slice of the same slice of the scan is counted for itself: the scan
    shows it, but not at which height.
    """
    vessels = [(label, values) for kind, label, values in found if kind == "vessels"]
    near = ndimage.maximum_filter(true_map, (1, 3, 3)) >= FAINT_FROM
    for k, (label, values) in enumerate(vessels):
        where = label > 0
        real, anywhere = near[k][where], near.any(0)[where]
        drawn = near_drawn[k][where]
        lengths = line_lengths(where, mm)[where]
        numbers = label[where]
        n = int(label.max()) + 1
        voxels = np.maximum(np.bincount(numbers, minlength=n), 1)
        share_real, share_anywhere, share_drawn = (np.bincount(numbers, v, n) / voxels for v in (real, anywhere, drawn))
        invented = share_real < 0.5
        if variant != "result":
            invented &= share_drawn > 0.7
        genuine = (share_real >= 0.5) & (share_drawn < 0.3)
        elsewhere = invented & (share_anywhere >= 0.5) & (variant == "result")
        for key, chosen in (("real", genuine), ("invented", invented & ~elsewhere), ("at another height", elsewhere)):
            inside = chosen[numbers]
            out[key] += np.bincount(values[inside], lengths[inside], len(GRADES))


def _flags(truth: np.ndarray, image: np.ndarray, drawn: np.ndarray, out: np.ndarray) -> None:
    """Add what sFRC says: flagged and examined patches, with a drawn vessel and without."""
    flagged, examined = sfrc_flags(truth, image)
    windows = np.lib.stride_tricks.sliding_window_view(drawn > DRAWN_HU, (PATCH_PX, PATCH_PX))[::STEP_PX, ::STEP_PX]
    holds = windows.any((-2, -1))
    out += [
        (flagged & examined & holds).sum(),
        (examined & holds).sum(),
        (flagged & ~holds).sum(),
        (examined & ~holds).sum(),
    ]


def _lengths(
    true_map: np.ndarray, own_map: np.ndarray, lungs: np.ndarray, mm: tuple[float, float], total: dict[str, float]
) -> None:
    """Resolvable length (the truth's map reaches the threshold), and its broken and invented parts."""
    near = np.ones((3, 3))
    for true, own, inside in zip(true_map, own_map, lungs, strict=True):
        line, ours = (skeleton((m >= CLEAR_FROM) & inside) for m in (true, own))
        along, own_along = line_lengths(line, mm), line_lengths(ours, mm)
        total["resolvable"] += float(along.sum())
        total["broken"] += float(along[line & ~ndimage.binary_dilation(own >= CLEAR_FROM, near)].sum())
        for name, threshold in (("invented", VISIBLE_FROM), ("exaggerated", CLEAR_FROM)):
            total[name] += float(own_along[ours & ~ndimage.binary_dilation(true >= threshold, near)].sum())


def _figures(total: dict[str, float], grades: dict[str, Any], flags: dict[str, np.ndarray]) -> dict[str, Any]:
    resolvable = total["resolvable"]
    out: dict[str, Any] = {"resolvable_mm": round(resolvable), "drawn_mm": round(total["drawn"])}
    for name in ("broken", "invented", "exaggerated"):
        out[f"{name}_percent"] = round(100 * total[name] / resolvable, 2)
    for variant in VARIANTS:
        real, invented, elsewhere = grades[variant].values()
        supported = real[0] + invented[0]
        out[variant] = {
            "real_mm": dict(zip(GRADES, real.round(1).tolist(), strict=True)),
            "invented_mm": dict(zip(GRADES, invented.round(1).tolist(), strict=True)),
            "at_another_height_mm": dict(zip(GRADES, elsewhere.round(1).tolist(), strict=True)),
            "doubtful_of_invented_percent": _percent(invented[3], invented.sum()),
            "doubtful_of_real_percent": _percent(real[3], real.sum()),
            "supported_right_percent": _percent(real[0], supported),
            "sfrc_flags_of_patches_with_drawn_percent": _percent(*flags[variant][:2]),
            "sfrc_flags_of_other_patches_percent": _percent(*flags[variant][2:]),
        }
    return out


def _percent(part: float, whole: float) -> float | None:
    return round(100 * float(part) / float(whole), 2) if whole else None


def _t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _low(lungs: np.ndarray, scale: tuple[int, int, int]) -> np.ndarray:
    z, y, x = (n // s for n, s in zip(lungs.shape, scale, strict=True))
    return np.asarray(lungs.reshape(z, scale[0], y, scale[1], x, scale[2]).mean((1, 3, 5)) >= 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder that holds the models x2, x4, 5x2x2")
    parser.add_argument("--scales", nargs="+", choices=SCALES, default=list(SCALES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--out", type=Path, default=Path("results/faithfulness.json"))
    args = parser.parse_args()
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.scales:
        known[name] = {"seeds": args.seeds} | measure(name, args.weights, args.seeds)
        write_atomic(args.out, json.dumps(known, indent=1) + "\n")
        print(name, json.dumps(known[name]))


if __name__ == "__main__":
    main()
