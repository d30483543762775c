"""Intervals, paired tests and Holm's correction: equal to SciPy, to enumeration and to closed testing."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.statistics import holm, interval, paired_test


def test_the_interval_of_slices_is_scipys():
    x = np.random.default_rng(0).gamma(2.0, size=40)
    expected = stats.bootstrap((x,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert interval(x) == pytest.approx((expected.low, expected.high), abs=0.03)
    narrow = interval(x, level=0.5)
    assert interval(x)[0] < narrow[0] < x.mean() < narrow[1] < interval(x)[1]


def test_the_interval_of_patients_is_that_of_their_means():
    rng = np.random.default_rng(0)
    means = rng.normal(30, 3, 8)
    x = np.repeat(means, 25) + rng.normal(0, 0.1, 200)
    patients = np.repeat([f"p{k}" for k in range(8)], 25)
    expected = stats.bootstrap(
        (x.reshape(8, 25).mean(1),), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    low, high = interval(x, list(patients))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.1)
    by_slice = interval(x)
    assert high - low > 3 * (by_slice[1] - by_slice[0])  # slices of one patient are alike
    shuffled = rng.permutation(200)
    assert interval(x[shuffled], list(patients[shuffled]))[0] == pytest.approx(low, abs=0.3)


def test_patients_with_more_slices_weigh_more():
    values, patients = [0.0] + [10.0] * 9, ["a"] + ["b"] * 9
    assert interval(values, patients) == (0, 10)  # both draws of one patient; one of each would give 9
    assert interval(values, patients, level=0.2) == (9, 9)


def test_it_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = sum(low <= 5 <= high for low, high in (interval(rng.normal(5, 2, 40), resamples=500) for _ in range(300)))
    assert 0.90 < hits / 300 < 0.98


def test_intervals_depend_on_the_seed_and_scale_with_the_values():
    x = np.random.default_rng(0).normal(size=30)
    assert interval(x) == interval(x)
    assert interval(x) != interval(x, seed=1)
    assert interval(3 * x + 7) == pytest.approx([3 * v + 7 for v in interval(x)])
    assert interval([4.0, 4.0, 4.0]) == (4, 4)


def test_intervals_without_enough_values_are_undefined():
    for values, groups in (([1.0], None), ([], None), ([1.0, 2.0], ["a", "a"])):
        with pytest.raises(Undefined, match="no interval"):
            interval(values, groups)
    for arguments, options in (
        (([1.0, float("nan")],), {}),
        (([1.0, 2.0], ["a"]), {}),
        (([[1.0, 2.0]],), {}),
        (([1.0, 2.0],), {"level": 1.0}),
        (([1.0, 2.0],), {"resamples": 0}),
    ):
        with pytest.raises(UhrctError) as refusal:
            interval(*arguments, **options)
        assert not isinstance(refusal.value, Undefined)


@pytest.mark.parametrize("seed", range(2))
def test_the_paired_test_is_what_all_signs_give(seed):
    difference = np.random.default_rng(seed).normal(0.5, 1, 9)
    ranks = stats.rankdata(np.abs(difference))
    seen = ranks[difference > 0].sum()
    sums = np.array([np.dot(signs, ranks) for signs in product((0, 1), repeat=9)])
    middle = ranks.sum() / 2
    expected = np.mean(np.abs(sums - middle) >= abs(seen - middle) - 1e-9)
    assert paired_test(difference, np.zeros(9)) == pytest.approx(expected)
    assert paired_test(np.zeros(9), difference) == pytest.approx(expected)
    assert paired_test([*difference, 3.0], [*np.zeros(9), 3.0]) == pytest.approx(expected)  # no difference, no pair


def test_paired_tests_of_many_and_of_none():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    assert paired_test(a, a) == 1
    assert paired_test(a + 0.5, a + rng.normal(0, 0.1, 200)) < 1e-20
    p = [paired_test(rng.normal(size=60), rng.normal(size=60)) for _ in range(200)]
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.11
    tied = paired_test([1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 2])
    assert 0.01 < tied < 0.3
    for x, y in (([1.0], [1.0, 2.0]), ([], []), ([float("inf")], [1.0])):
        with pytest.raises(UhrctError):
            paired_test(x, y)


@pytest.mark.parametrize("seed", range(2))
def test_holm_is_closed_testing_with_bonferroni(seed):
    """A hypothesis falls if every set that holds it falls: its adjusted p is the largest Bonferroni p of those."""
    p = np.random.default_rng(seed).random(5) ** 3
    expected = [
        max(
            min(1.0, len(group) * min(p[list(group)]))
            for n in range(1, 6)
            for group in combinations(range(5), n)
            if k in group
        )
        for k in range(5)
    ]
    assert holm(p) == pytest.approx(expected)


def test_holm_at_its_ends():
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.6, 0.9]) == [1, 1]
    for bad in ([1.1], [-0.1], [float("nan")], [[0.1]]):
        with pytest.raises(UhrctError):
            holm(bad)
