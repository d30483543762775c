"""Real pairs of a thick and a thin reconstruction of one scan, brought onto grids whose voxel edges coincide."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume

#: smallest correlation of LR slices with averaged HR slices; below, the two are not the same patient
SAME_PATIENT = 0.9
#: voxels overrule the headers if the difference in HU is smaller by this factor
CLEARLY = 0.9
#: pixels along each axis in plane that are compared
SAMPLES = 128


@dataclass(frozen=True, eq=False)
class Pair:
    """A measured LR scan and its HR scan. LR slice k covers exactly the slices [k * scale, (k + 1) * scale) of `hr`.

    `notes` says what was cut away, and what was missing or wrong in the headers.
    """

    lr: Volume
    hr: Volume
    scale: int
    notes: tuple[str, ...] = ()


def align(lr: Volume, hr: Volume, thickness_mm: tuple[float, float] | None = None) -> Pair:
    """Cut a thick and a thin scan to the slices that both have, so that their edges coincide.

    In the published RPLHR-CT the centre of 5 mm slice k lies on 1 mm slice 5 k: it covers the slices 5 k - 2 to
    5 k + 2, and the first and the last one reach out of the thin scan. Where headers and voxels disagree on the
    place, the voxels decide, and a note says so.

    Parameters
    ----------
    lr, hr : Volume
        Same pixels; the slice spacing of `lr` is a whole multiple of that of `hr`.
    thickness_mm : (LR, HR), optional
        Thickness of the slices; also their spacing, if both headers give the same spacing.

    Raises
    ------
    UhrctError
        If the pixels differ, the ratio is not whole, the slices do not overlap, or the patients differ.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> hr = Volume(np.rint(np.cumsum(rng.normal(0, 90, (11, 16, 16)), 0)).astype(np.int16), (1.0, 0.7, 0.7))
    >>> means = hr.hu[3:8].mean(0, keepdims=True).repeat(3, 0)  # the middle one of slices centred on 0, 5, 10
    >>> lr = Volume(means.astype(np.float32), (5.0, 0.7, 0.7))
    >>> pair = align(lr, hr)
    >>> pair.scale, pair.hr.shape, pair.lr.shape, pair.hr.origin_mm
    (5, (5, 16, 16), (1, 16, 16), (0.0, 0.0, 3.0))
    """
    notes: list[str] = []
    if thickness_mm is not None:
        lr, hr, notes = _with_named_spacing(lr, hr, thickness_mm)
    scale = _scale(lr, hr)
    _check_planes(lr, hr)
    by_headers = _start_by_headers(lr, hr, scale)
    start, agreement = _best_start(lr.hu, hr.hu, scale, by_headers)
    if start != by_headers:
        notes.append(f"headers place LR slice 0 on HR slice {by_headers}, voxels on {start}: voxels taken")
    if agreement < SAME_PATIENT:
        raise UhrctError(
            f"correlates only {agreement:.2f} with the thin scan: not the same patient? Leave the pair out"
        )
    first, count = _overlap(lr.shape[0], hr.shape[0], scale, start)
    begin = start + first * scale
    if (first, count) != (0, lr.shape[0]) or begin or count * scale < hr.shape[0]:
        notes.append(
            f"cut to LR slices {first} to {first + count - 1} of {lr.shape[0]}, HR slices {begin} to "
            f"{begin + count * scale - 1} of {hr.shape[0]}"
        )
    return Pair(_cut(lr, first, count), _cut(hr, begin, count * scale), scale, tuple(notes))


def _with_named_spacing(lr: Volume, hr: Volume, thickness_mm: tuple[float, float]) -> tuple[Volume, Volume, list[str]]:
    thick, thin = thickness_mm
    notes = []
    if abs(lr.spacing_mm[0] / hr.spacing_mm[0] - 1) < 0.01:  # a conversion lost the headers
        notes.append(f"headers give both the same slice spacing: {thick:g} and {thin:g} mm taken from the names")
        lr, hr = (replace(v, spacing_mm=(mm, *v.spacing_mm[1:])) for v, mm in ((lr, thick), (hr, thin)))
    if lr.slice_thickness_mm is None:
        lr = replace(lr, slice_thickness_mm=thick)
    if hr.slice_thickness_mm is None:
        hr = replace(hr, slice_thickness_mm=thin)
    return lr, hr, notes


def _scale(lr: Volume, hr: Volume) -> int:
    ratio = lr.spacing_mm[0] / hr.spacing_mm[0]
    scale = round(ratio)
    if scale < 2 or abs(ratio - scale) > 0.01 * scale:
        raise UhrctError(
            f"slices {lr.spacing_mm[0]:g} mm apart against {hr.spacing_mm[0]:g} mm: no whole number of times"
        )
    return scale


def _check_planes(lr: Volume, hr: Volume) -> None:
    if lr.shape[1:] != hr.shape[1:] or not np.allclose(lr.spacing_mm[1:], hr.spacing_mm[1:], rtol=1e-3):
        raise UhrctError(
            f"pixels {lr.shape[1:]} of {lr.spacing_mm[1:]} mm against {hr.shape[1:]} of {hr.spacing_mm[1:]}"
        )
    if not np.allclose(lr.direction, hr.direction, atol=1e-2):
        raise UhrctError("the two scans have different directions; write both in the same one")
    away_mm = hr.direction.T @ (np.asarray(lr.origin_mm) - np.asarray(hr.origin_mm))
    if np.abs(away_mm[1:] / hr.spacing_mm[1:]).max() > 0.1:
        raise UhrctError(f"pixels lie {away_mm[1]:.2f} and {away_mm[2]:.2f} mm beside the thin scan's pixels")


def _start_by_headers(lr: Volume, hr: Volume, scale: int) -> int:
    """The first HR slice that LR slice 0 covers, from the headers."""
    away = np.asarray(lr.origin_mm) - np.asarray(hr.origin_mm)
    centre = float(hr.direction[:, 0] @ away) / hr.spacing_mm[0]
    return round(centre - (scale - 1) / 2)


def _best_start(lr: np.ndarray, hr: np.ndarray, scale: int, by_headers: int) -> tuple[int, float]:
    """The first HR slice that LR slice 0 covers, from the voxels, and the correlation there."""
    step = max(1, max(lr.shape[1:]) // SAMPLES)
    a, b = (v[:, ::step, ::step].astype(np.float32).clip(-1024, 1500) for v in (lr, hr))
    starts = range(by_headers - scale, by_headers + scale + 1)
    overlaps = {start: _overlap(len(a), len(b), scale, start) for start in starts}
    most = max(count for _, count in overlaps.values())
    candidates = {}
    for start, (first, count) in overlaps.items():
        if count < max(1, most / 2):  # one or two slices agree by chance
            continue
        begin = start + first * scale
        means = b[begin : begin + count * scale].reshape(count, scale, *b.shape[1:]).mean(1)
        given = a[first : first + count]
        candidates[start] = (float(np.abs(given - means).mean()), _correlation(given, means))
    if not candidates:
        raise UhrctError("no slice of the thick scan lies within the thin one")
    best = min(candidates, key=lambda s: candidates[s][0])
    if by_headers in candidates and candidates[best][0] > CLEARLY * candidates[by_headers][0]:
        best = by_headers
    return best, candidates[best][1]


def _overlap(n_lr: int, n_hr: int, scale: int, start: int) -> tuple[int, int]:
    """The first LR slice that lies completely within the HR scan, and how many do."""
    first = max(0, -(start // scale))
    return first, min(n_lr - first, (n_hr - start) // scale - first)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return 1.0 if np.allclose(a, b, atol=1) else 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _cut(volume: Volume, first: int, count: int) -> Volume:
    origin = np.asarray(volume.origin_mm) + volume.direction[:, 0] * volume.spacing_mm[0] * first
    hu = np.ascontiguousarray(volume.hu[first : first + count])
    return replace(volume, hu=hu, origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])))
