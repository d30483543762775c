"""The standard test of the project: degrade real HR slices, restore them, compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.core.hu import FLOOR_HU, METRIC_WINDOWS_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.fidelity import mae, psnr, rmse
from uhrct.evaluation.rim import padding_and_rim
from uhrct.evaluation.structure_error import SMSE_OPERATORS, smse
from uhrct.physics.acquisition import Acquisition, correlated_noise

#: restore(lr_hu (n, y, x), LR spacing_mm (z, y, x)) -> HR HU ((n - 2 CONTEXT) sz, y', x'). The `CONTEXT` LR slices at
#: each end are neighbours and are not restored.
Restore = Callable[[Tensor, tuple[float, float, float]], Tensor]
#: LR neighbours on each side of a slice that a method may use.
CONTEXT = 2


def evenly_spaced(n: int, count: int) -> list[int]:
    """`count` evenly spaced slice numbers out of `n`, with the first and the last one.

    Example
    -------
    >>> evenly_spaced(95, 4)
    [0, 31, 63, 94]
    """
    return [int(i) for i in np.linspace(0, n - 1, min(count, n)).round()]


def score_slices(
    volume: Volume,
    restore: dict[str, Restore],
    acquisition: Acquisition,
    count: int = 24,
    *,
    noise_hu: float = 0.0,
    noise_fwhm: float = 0.0,
) -> list[dict[str, Any]]:
    """Degrade a volume, restore `count` evenly spaced LR slices with every method, and measure.

    Padding outside the field of view counts as -1024 HU for truth and methods. The rim beside it does not count
    (`uhrct.evaluation.rim`).

    Parameters
    ----------
    noise_hu, noise_fwhm : standard deviation of the noise added to the LR slices, and its correlation in LR pixels;
        each slice has its own noise, the same for every method

    Returns
    -------
    list of dict
        One per HR slice and method: method, slice, the values of `score`, and ``consistency_hu`` = mean abs (A y - x)
        of its LR slice (where slabs do not overlap).
    """
    results = []
    spacing = volume.spacing_mm
    lr_spacing = tuple(d * s for d, s in zip(spacing, acquisition.scale, strict=True))
    sz = acquisition.scale[0]
    for k in evenly_spaced(volume.shape[0] // sz, count):
        hr, lr = degraded_stack(volume, acquisition, k, noise_hu=noise_hu, noise_fwhm=noise_fwhm)
        seen = volume.hu[k * sz : (k + 1) * sz, : hr.shape[-2], : hr.shape[-1]]
        rims = torch.from_numpy(padding_and_rim(seen))
        for name, method in restore.items():
            sr = method(lr, lr_spacing).float().cpu()  # type: ignore[arg-type]
            left = {}
            if acquisition.slice_by_slice:  # otherwise A needs the neighbours too
                left["consistency_hu"] = float((acquisition.forward(sr)[0] - lr[CONTEXT]).abs().mean())
            for j in range(sz):
                truth, test = (torch.where(rims[j], FLOOR_HU, image[j]).numpy() for image in (hr, sr))
                row = {"method": name, "slice": k * sz + j, **score(truth, test, spacing[1:])}
                results.append(row | left)
    return results


def degraded_stack(
    volume: Volume,
    acquisition: Acquisition,
    k: int,
    *,
    count: int = 1,
    noise_hu: float = 0.0,
    noise_fwhm: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(truth (count sz, y', x'), LR slices (2 CONTEXT + count, y, x)) of `count` LR slices from `k` on.

    Beyond the first and the last slice, that slice is repeated.
    """
    sz, sy, sx = acquisition.scale
    spare = 0 if acquisition.slice_by_slice else 1
    around = CONTEXT + spare
    n = volume.shape[0] // sz
    numbers = np.arange(k - around, k + count + around).clip(0, n - 1)
    seen = slice(spare, spare + 2 * CONTEXT + count)
    index = (numbers[:, None] * sz + np.arange(sz)).flatten()
    rows, columns = (volume.shape[1] // sy * sy, volume.shape[2] // sx * sx)
    hr = torch.from_numpy(volume.hu[index, :rows, :columns]).float().clamp(min=FLOOR_HU)
    lr = acquisition.forward(hr)[seen]
    if noise_hu:
        shape = (1, *lr.shape[1:])
        noise = [
            correlated_noise(shape, noise_fwhm, torch.Generator().manual_seed(10_007 * int(z))) for z in numbers[seen]
        ]
        lr = lr + noise_hu * torch.cat(noise)
    return hr[around * sz : (around + count) * sz], lr


def score(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Fidelity and structure error of one slice (y, x) in HU; `spacing_mm` is (y, x).

    These metrics are cheap enough for validation during training. `measures.score_all` gives all metrics.
    """
    out = {f"psnr_{name}": psnr(reference, test, window_hu=w) for name, w in METRIC_WINDOWS_HU.items()}
    out |= {"rmse_hu": rmse(reference, test), "mae_hu": mae(reference, test)}
    out |= {f"smse_{k}": smse(reference, test, spacing_mm, operator=op) for k, op in SMSE_OPERATORS.items()}
    return out


def means(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean over the slices of every value, by method."""
    out: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(r["method"] for r in results):
        rows = [r for r in results if r["method"] == name]
        keys = [k for k in rows[0] if k not in ("method", "slice")]
        out[name] = {k: float(np.mean([r[k] for r in rows])) for k in keys}
    return out
