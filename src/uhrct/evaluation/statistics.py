"""Bootstrap intervals of means, paired tests of two methods, and Holm's correction."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined

RESAMPLES = 10_000
#: Up to so many pairs the test tries all 2^n signs; above, it uses the normal approximation.
EXACT_UP_TO = 50


def interval(
    values: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, over slices or over patients.

    Slices of one patient are alike. An interval over single slices is too narrow for statements about patients. With
    `groups`, whole patients are drawn with all their slices.

    Parameters
    ----------
    values : array_like, (n,)
    groups : sequence of n names, optional
        The patient of each value.
    level : float, in (0, 1)

    Raises
    ------
    Undefined
        With fewer than two values, or two patients.
    UhrctError
        On NaN or infinite values, or a number of groups that does not fit.

    References
    ----------
    Efron, Ann. Statist. 1979, doi 10.1214/aos/1176344552; clusters: Davison and Hinkley 1997, section 3.8,
    doi 10.1017/CBO9780511802843.

    Example
    -------
    >>> low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> 1 < low < 3 < high < 5
    True
    """
    x = _numbers(values)
    if not (0 < level < 1 and resamples > 0):
        raise UhrctError(f"level {level} and {resamples} resamples: need a level between 0 and 1, one resample or more")
    names = list(range(len(x))) if groups is None else list(groups)
    if len(names) != len(x):
        raise UhrctError(f"{len(names)} groups for {len(x)} values: need one for each")
    index = {name: k for k, name in enumerate(dict.fromkeys(names))}
    if len(index) < 2:
        raise Undefined(f"{len(index)} {'patient' if groups is not None else 'value'}: no interval can be computed")
    of = np.array([index[name] for name in names])
    sums, counts = np.bincount(of, x), np.bincount(of)
    drawn = np.random.default_rng(seed).integers(len(index), size=(resamples, len(index)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of any statistic of cases, such as a sensitivity at a number of false positives.

    Parameters
    ----------
    statistic : gets the numbers (n,) of the cases that were drawn; draws where it is NaN are left out
    n : number of cases
    level : float, in (0, 1)

    Raises
    ------
    Undefined
        With fewer than two cases, or if the statistic is always NaN.

    References
    ----------
    Efron, Ann. Statist. 1979, doi 10.1214/aos/1176344552.

    Example
    -------
    >>> values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> low, high = bootstrap(lambda drawn: float(np.median(values[drawn])), 5)
    >>> 1 <= low < 3 < high <= 5
    True
    """
    if n < 2:
        raise Undefined(f"{n} case{'' if n == 1 else 's'}: no interval can be computed")
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    values = np.array([statistic(some) for some in drawn])
    values = values[~np.isnan(values)]
    if not len(values):
        raise Undefined("the statistic has no value")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_test(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on pairs (same slice or patient, two methods).

    Pairs without a difference are left out. If no pair differs, p is 1. The test is exact up to 50 pairs if no two
    differences have the same size.

    Raises
    ------
    UhrctError
        On unequal lengths, NaN or infinite values, or no values.

    References
    ----------
    Wilcoxon, Biometrics Bulletin 1945, doi 10.2307/3001968.

    Example
    -------
    >>> paired_test([1, 2, 3, 4, 5], [0, 0, 0, 0, 0])  # 2 of the 2^5 signs are as extreme
    0.0625
    """
    from scipy.stats import wilcoxon  # evaluation extra

    x, y = _numbers(a), _numbers(b)
    if len(x) != len(y) or len(x) == 0:
        raise UhrctError(f"{len(x)} against {len(y)} values: a paired test needs equally many, one or more")
    difference = (x - y)[x != y]
    if len(difference) == 0:
        return 1.0
    ties = len(np.unique(np.abs(difference))) < len(difference)
    method = "approx" if ties or len(difference) > EXACT_UP_TO else "exact"
    return float(wilcoxon(difference, method=method, correction=method == "approx").pvalue)


def holm(p_values: ArrayLike) -> list[float]:
    """Holm's step-down correction of several p values, in the given order. Reject where the result is below alpha.

    Raises
    ------
    UhrctError
        On values outside 0 ... 1.

    References
    ----------
    Holm, Scand. J. Statist. 1979, https://www.jstor.org/stable/4615733.

    Example
    -------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise UhrctError("Holm's correction needs a list of p values between 0 and 1")
    order = np.argsort(p, kind="stable")
    steps = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    out = np.empty_like(p)
    out[order] = steps
    return [float(v) for v in out]


def _numbers(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise UhrctError("need a list of finite numbers; leave out undefined values")
    return x
