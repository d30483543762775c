"""Metrics of neighbouring slices as a volume: flicker, and vessels as lines in space."""

from __future__ import annotations

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import undefined
from uhrct.evaluation.flicker import flicker
from uhrct.evaluation.measures import VESSEL_THRESHOLD, VOLUME_MEASURES, Measure, Scores, without_padding
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.structure.lengths import vessel_lengths
from uhrct.structure.topology import betti_errors
from uhrct.structure.vessels import VESSEL_THRESHOLDS, cldice, vessel_mask

_CLDICE = {t: f"cldice_{100 * t:.0f}_3d" for t in VESSEL_THRESHOLDS}
_LENGTHS = ("vessel_mm_3d", "broken_mm_3d", "invented_mm_3d")

#: One value per slab, in the order of tables. Vessel masks are those of single slices, stacked; centre lines are Lee's.
SLAB_MEASURES: dict[str, Measure] = {
    **VOLUME_MEASURES,
    **{name: Measure(f"clDice in 3D, V_C from {t}", "", "higher", 4) for t, name in _CLDICE.items()},
    "vessel_mm_3d": Measure("vessels of the reference in 3D", "mm", "", 0),
    "broken_mm_3d": Measure("broken vessels in 3D", "mm", "lower", 0),
    "invented_mm_3d": Measure("invented vessels in 3D", "mm", "lower", 0),
}


def score_slab(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, ...], lung: np.ndarray) -> Scores:
    """All of `SLAB_MEASURES` of neighbouring slices.

    Parameters
    ----------
    reference, test : (z, y, x), HU
    spacing_mm : (z, y, x)
    lung : (z, y, x) of bool

    Raises
    ------
    UhrctError
        On unequal shapes. Other problems become reasons of the metrics.

    Example
    -------
    >>> hu = np.random.default_rng(0).normal(40, 10, (4, 64, 64))
    >>> s = score_slab(hu, hu, (1, 1, 1), np.zeros(hu.shape, bool))
    >>> s.values["flicker"], s.values["cldice_25_3d"], s.reasons["cldice_25_3d"]
    (0.0, None, 'no lung in the reference')
    """
    a, b, inside = np.asarray(reference), np.asarray(test), np.asarray(lung, bool)
    if not (a.shape == b.shape == inside.shape) or a.ndim != 3 or a.size == 0:
        raise UhrctError(f"reference {a.shape}, test {b.shape} and lungs {inside.shape}: need equal slabs (z, y, x)")
    scores = Scores()
    scores.take(["flicker"], lambda: [flicker(a, b, spacing_mm)])
    vessels = [name for name in SLAB_MEASURES if name != "flicker"]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        scores.take(vessels, lambda: undefined("NaN or infinite values in the reference or the test"))
        return scores
    if not inside.any():
        scores.take(vessels, lambda: undefined("no lung in the reference"))
        return scores
    maps = _maps(a, b, spacing_mm)
    pairs = {t: [vessel_mask(m, inside, t) for m in maps] for t in VESSEL_THRESHOLDS}
    for t, name in _CLDICE.items():
        scores.take([name], lambda pair=pairs[t]: [cldice(*pair)])  # type: ignore[misc]
    x, y = pairs[VESSEL_THRESHOLD]
    scores.take(["betti0_error_3d", "betti1_error_3d"], lambda: betti_errors(x, y, inside))
    lengths = vessel_lengths(x, y, tuple(spacing_mm))
    scores.take(_LENGTHS, lambda: [lengths.reference, lengths.broken, lengths.invented])
    return scores


def _maps(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Structure maps (2, z, y, x), computed slice by slice."""
    in_plane = (spacing_mm[1], spacing_mm[2])
    pairs = (np.stack(without_padding(a, b)) for a, b in zip(reference, test, strict=True))
    return np.stack([structure_maps(pair, in_plane, SMSE_OPERATORS["vc"]) for pair in pairs], 1)
