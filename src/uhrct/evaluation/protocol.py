"""The project's standard test: degrade real HR slices, restore them, compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.acquisition import Acquisition
from uhrct.evaluation.fidelity import WINDOWS_HU, mae, psnr, rmse
from uhrct.evaluation.structure_error import SMSE_OPERATORS, smse
from uhrct.model import FLOOR_HU
from uhrct.volume import Volume

#: restore(lr_hu (y, x), LR spacing_mm (y, x)) -> HR HU (y', x')
Restore = Callable[[Tensor, tuple[float, float]], Tensor]


def evenly_spaced(n: int, count: int) -> list[int]:
    """`count` slice numbers out of `n`, first and last among them.

    Example
    -------
    >>> evenly_spaced(95, 4)
    [0, 31, 63, 94]
    """
    return [int(i) for i in np.linspace(0, n - 1, min(count, n)).round()]


def score_slices(
    volume: Volume, restore: dict[str, Restore], acquisition: Acquisition, count: int = 24
) -> list[dict[str, Any]]:
    """Degrade `count` evenly spaced slices in plane, restore each with every method, and measure.

    Padding outside the field of view counts as -1024 HU, for truth and methods alike.

    Returns
    -------
    list of dict
        One per slice and method: method, slice, ``psnr_wide`` and the other windows (dB), ``rmse_hu``, ``mae_hu``,
        ``smse_frangi``, ``smse_vc`` (not yet x 1000), ``consistency_hu`` = mean abs (A y - x).
    """
    _, sy, sx = acquisition.scale
    rows, columns = (volume.shape[1] // sy * sy, volume.shape[2] // sx * sx)
    spacing = volume.spacing_mm[1:]
    results = []
    for z in evenly_spaced(volume.shape[0], count):
        hr = torch.from_numpy(volume.hu[z, :rows, :columns]).float().clamp(min=FLOOR_HU)
        lr = acquisition.forward(hr)
        for name, method in restore.items():
            sr = method(lr, (spacing[0] * sy, spacing[1] * sx)).float().cpu()
            results.append({"method": name, "slice": z, **score(hr.numpy(), sr.numpy(), spacing)})
            results[-1]["consistency_hu"] = float((acquisition.forward(sr) - lr).abs().mean())
    return results


def score(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Fidelity and structure error of one slice (y, x) in HU; `spacing_mm` (y, x)."""
    out = {f"psnr_{name}": psnr(reference, test, window_hu=w) for name, w in WINDOWS_HU.items()}
    out |= {"rmse_hu": rmse(reference, test), "mae_hu": mae(reference, test)}
    out |= {f"smse_{k}": smse(reference, test, spacing_mm, operator=op) for k, op in SMSE_OPERATORS.items()}
    return out


def means(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per method the mean over slices of every measure."""
    out: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(r["method"] for r in results):
        rows = [r for r in results if r["method"] == name]
        keys = [k for k in rows[0] if k not in ("method", "slice")]
        out[name] = {k: float(np.mean([r[k] for r in rows])) for k in keys}
    return out
