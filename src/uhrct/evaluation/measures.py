"""All metrics of one slice, with names, units and constants. An undefined metric has a reason instead of a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU, METRIC_WINDOWS_HU, PADDING_HU
from uhrct.core.purpose import NOTE as NOTE
from uhrct.core.undefined import undefined
from uhrct.evaluation import flicker, lungs, sfrc, spectrum, vif
from uhrct.evaluation.consistency import consistency
from uhrct.evaluation.fidelity import mae, psnr, rmse, ssim
from uhrct.evaluation.structure_error import SMSE_OPERATORS, SMSE_WINDOW_HU, difference, structure_maps
from uhrct.physics.acquisition import Acquisition
from uhrct.structure import topology
from uhrct.structure.lengths import vessel_lengths
from uhrct.structure.vessels import VESSEL_THRESHOLDS, cldice, vessel_mask


class Measure(NamedTuple):
    """Label and unit of a metric. `better` is "higher", "lower", "1", or "" where no direction is better."""

    label: str
    unit: str
    better: str
    decimals: int = 3
    printed_times: float = 1.0


#: Metrics of a slice, in the order of tables.
MEASURES: dict[str, Measure] = {
    **{f"psnr_{w}": Measure(f"PSNR, {w} window", "dB", "higher", 2) for w in METRIC_WINDOWS_HU},
    "rmse_hu": Measure("RMSE", "HU", "lower", 2),
    "mae_hu": Measure("MAE", "HU", "lower", 2),
    "ssim_wide": Measure("SSIM, wide window", "", "higher", 4),
    "vif_wide": Measure("VIF, wide window", "", "higher", 4),
    "smse_frangi": Measure("SMSE, Frangi", "x 1000", "lower", 3, 1000),
    "smse_vc": Measure("SMSE, V_C", "x 1000", "lower", 3, 1000),
    "smse_frangi_c100": Measure("SMSE, Frangi at c = 100 HU", "x 1000", "lower", 3, 1000),
    **{f"cldice_{100 * t:.0f}": Measure(f"clDice in lungs, V_C from {t}", "", "higher", 4) for t in VESSEL_THRESHOLDS},
    "betti0_error": Measure("Betti-0 error per 64 x 64", "pieces", "lower", 3),
    "betti1_error": Measure("Betti-1 error per 64 x 64", "loops", "lower", 3),
    "vessel_mm": Measure("vessels of the reference", "mm", "", 1),
    "broken_mm": Measure("broken vessels", "mm", "lower", 1),
    "invented_mm": Measure("invented vessels", "mm", "lower", 1),
    "texture_1": Measure("texture, Nyquist/2 to Nyquist", "ratio", "1", 3),
    "texture_2": Measure("texture, Nyquist/4 to Nyquist/2", "ratio", "1", 3),
    "texture_3": Measure("texture, Nyquist/8 to Nyquist/4", "ratio", "1", 3),
    "texture_4": Measure("texture, Nyquist/16 to Nyquist/8", "ratio", "1", 3),
    "sfrc": Measure("sFRC, patches flagged", "share", "lower", 3),
    "consistency_hu": Measure("consistency with the LR", "HU", "lower", 2),
}
#: Metrics with one value per volume.
VOLUME_MEASURES: dict[str, Measure] = {
    "flicker": Measure("flicker along z", "ratio", "", 3),  # 1.05 is a bound; blurred images have the lowest value
    "betti0_error_3d": Measure("Betti-0 error per 64 x 64 x 64", "pieces", "lower", 3),
    "betti1_error_3d": Measure("Betti-1 error per 64 x 64 x 64", "tunnels", "lower", 3),
}
#: Threshold of the V_C map for Betti numbers and lengths.
VESSEL_THRESHOLD = VESSEL_THRESHOLDS[1]
#: HR pixels around padding in which the test may be padding too: one LR pixel of the coarsest scale.
RIM_PX = 4


@dataclass
class Scores:
    """Values of one slice. An undefined metric has the value None and a reason."""

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    #: vessel masks of reference and test at `VESSEL_THRESHOLD`, for metrics of volumes
    vessels: tuple[np.ndarray, np.ndarray] | None = None

    def take(self, names: Sequence[str], compute: Callable[[], Sequence[float]]) -> None:
        """Store the values that `compute` returns, or the reason of the error that it raises."""
        try:
            numbers = compute()
        except UhrctError as reason:
            for name in names:
                self.values[name], self.reasons[name] = None, str(reason)
            return
        for name, number in zip(names, numbers, strict=True):
            if np.isfinite(number):
                self.values[name] = float(number)
            else:
                self.values[name], self.reasons[name] = None, "no difference inside the window"


def score_all(
    reference: np.ndarray,
    test: np.ndarray,
    spacing_mm: tuple[float, ...],
    *,
    lung: np.ndarray | None = None,
    lr: np.ndarray | None = None,
    acquisition: Acquisition | None = None,
) -> Scores:
    """All metrics of one slice. Those of `protocol.score` have the same values there. Padding: see `without_padding`.

    Parameters
    ----------
    reference, test : (y, x), HU
    spacing_mm : (y, x)
    lung : (y, x) of bool, optional
        The lung mask; default: that of this slice alone. The mask of a whole volume is better.
    lr, acquisition : optional
        The scan (y', x') in HU that `test` was made from, and how it arises, for the consistency.

    Raises
    ------
    UhrctError
        On unequal shapes. Other problems become reasons of the metrics.

    Example
    -------
    >>> hu = np.random.default_rng(0).normal(-800, 50, (64, 64))
    >>> s = score_all(hu, hu + 16, (0.7, 0.7))
    >>> f"{s.values['psnr_wide']:.1f}", s.values["cldice_50"], s.reasons["cldice_50"]
    ('40.0', None, 'no lung in the reference')
    """
    a, b = np.asarray(reference), np.asarray(test)
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise UhrctError(f"reference {a.shape} and test {b.shape}: need equal slices (y, x)")
    scores = Scores()
    bad = [n for n, image in (("reference", a), ("test", b)) if not np.isfinite(image).all()]
    if bad:
        names = [m for m in MEASURES if m != "consistency_hu" or lr is not None]
        scores.take(names, lambda: undefined(f"NaN or infinite values in the {' and the '.join(bad)}"))
        return scores
    inside = lungs.lung_mask(a, spacing_mm) if lung is None else np.asarray(lung, bool)
    lr_test, (a, b) = b, without_padding(a, b)
    wide = METRIC_WINDOWS_HU["wide"]
    for name, window in METRIC_WINDOWS_HU.items():
        scores.take([f"psnr_{name}"], lambda w=window: [psnr(a, b, window_hu=w)])  # type: ignore[misc]
    scores.take(["rmse_hu", "mae_hu"], lambda: [rmse(a, b), mae(a, b)])
    scores.take(["ssim_wide"], lambda: [ssim(a, b, window_hu=wide)])
    scores.take(["vif_wide"], lambda: [vif.vif(a, b, window_hu=wide)])
    both = np.stack([a, b])
    maps = {name: structure_maps(both, tuple(spacing_mm), operator) for name, operator in SMSE_OPERATORS.items()}
    for name, pair in maps.items():
        scores.take([f"smse_{name}"], lambda p=pair: [difference(p)])  # type: ignore[misc]
    _vessels(scores, maps["vc"], inside, spacing_mm)
    octaves = [f"texture_{k}" for k in range(1, spectrum.OCTAVES + 1)]
    scores.take(octaves, lambda: spectrum.texture(a, b, (spacing_mm[0], spacing_mm[1])))
    scores.take(["sfrc"], lambda: [sfrc.sfrc(a, b)])
    if lr is not None and acquisition is not None:
        scores.take(["consistency_hu"], lambda: [consistency(lr_test, lr, acquisition)])
    return scores


def without_padding(reference: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both slices in float64, with padding (-1500 HU and below) as -1024 HU.

    Where the reference is padding there is no truth, and both count as -1024. Padding of the test alone is an error,
    except within `RIM_PX` of the reference's padding. There, low-resolution pixels that are half padding and half
    patient can only be one of them, and a few hundred such voxels would dominate every mean.

    Example
    -------
    >>> a, b = without_padding(np.array([[-2000.0, 40, 50]]), np.array([[-1000.0, -2000, 60]]))
    >>> a.tolist(), b.tolist()
    ([[-1024.0, -1024.0, 50.0]], [[-1024.0, -1024.0, 60.0]])
    """
    from scipy import ndimage  # evaluation extra

    outside, lost = reference <= PADDING_HU, test <= PADDING_HU
    if outside.any() and (lost & ~outside).any():
        outside = outside | (lost & ndimage.binary_dilation(outside, np.ones((3, 3)), iterations=RIM_PX))
    a, b = (np.where(outside, FLOOR_HU, x.astype(np.float64)) for x in (reference, test))
    return a, np.where(lost, FLOOR_HU, b)


def _vessels(scores: Scores, maps: np.ndarray, inside: np.ndarray, spacing_mm: tuple[float, ...]) -> None:
    """Add the metrics of vessels inside the lungs."""
    if not inside.any():
        names = [n for n in MEASURES if n.startswith(("cldice", "betti")) or n in ("vessel_mm", *_BROKEN)]
        scores.take(names, lambda: undefined("no lung in the reference"))
        return
    for t in VESSEL_THRESHOLDS:
        pair = [vessel_mask(m, inside, t) for m in maps]
        scores.take([f"cldice_{100 * t:.0f}"], lambda p=pair: [cldice(*p)])  # type: ignore[misc]
    a, b = (vessel_mask(m, inside, VESSEL_THRESHOLD) for m in maps)
    scores.vessels = a, b
    scores.take(["betti0_error", "betti1_error"], lambda: topology.betti_errors(a, b, inside))
    lengths = vessel_lengths(a, b, tuple(spacing_mm))
    scores.take(["vessel_mm", *_BROKEN], lambda: [lengths.reference, lengths.broken, lengths.invented])


_BROKEN = ("broken_mm", "invented_mm")


def constants() -> dict[str, Any]:
    """All constants of the metrics, for result files."""
    operators = {
        name: {"sigma_mm": list(o.sigma_mm), "contrast_hu": o.contrast_hu, "beta": o.beta, "k1": o.k1, "k2": o.k2}
        for name, o in SMSE_OPERATORS.items()
    }
    return {
        "windows_hu": {name: list(w) for name, w in METRIC_WINDOWS_HU.items()},
        "padding": {"at_or_below_hu": PADDING_HU, "counts_as_hu": FLOOR_HU, "rim_px": RIM_PX},
        "ssim": {"window": "Gaussian 11 x 11, sigma 1.5", "data_range": 1.0, "k1": 0.01, "k2": 0.03},
        "vif": {"grey_levels": 255, "noise_variance": vif.NOISE_VARIANCE, "scales": vif.SCALES},
        "smse": {"window_hu": list(SMSE_WINDOW_HU), "operators": operators},
        "vessels": {
            "map": "smse operator vc inside the lungs of the reference",
            "cldice_thresholds": list(VESSEL_THRESHOLDS),
            "betti_and_length_threshold": VESSEL_THRESHOLD,
            "length_tolerance_voxels": 1,
        },
        "betti": {"crop": topology.CROP, "connectivity": "8 (background 4); volumes 26 (background 6)"},
        "texture": {"window_hu": list(spectrum.TEXTURE_WINDOW_HU), "taper": "Hann", "octaves": spectrum.OCTAVES},
        "sfrc": {
            "patch_px": sfrc.PATCH_PX,
            "step_px": sfrc.STEP_PX,
            "least_correlation": sfrc.LEAST,
            "up_to_share_of_nyquist": sfrc.UP_TO,
            "least_contrast_hu": sfrc.LEAST_CONTRAST_HU,
        },
        "flicker": {"tissue_hu": list(flicker.TISSUE_HU), "smooth_mm": flicker.SMOOTH_MM},
        "lungs": {"below_hu": lungs.LUNG_BELOW_HU, "closing_mm": lungs.CLOSE_MM},
    }
