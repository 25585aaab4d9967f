"""Intervals: exact cases, known tables, bounds, designs, and how much more would settle a row."""

import math

import numpy as np
import pytest
from scipy import stats

from paperwalk.evidence import intervals
from paperwalk.evidence.intervals import estimate


def test_one_value_a_seed_has_students_interval():
    e = estimate(np.array([[1.0], [2.0], [4.0]]), rate=False)
    half = 4.30265 * math.sqrt(7 / 3) / math.sqrt(3)  # t(.975) with two degrees of freedom
    assert e.mean == pytest.approx(7 / 3)
    assert (e.low, e.high) == (pytest.approx(7 / 3 - half, abs=1e-4), pytest.approx(7 / 3 + half, abs=1e-4))


def test_the_variance_is_that_of_a_two_way_analysis_where_all_share_all_items():
    x = np.random.default_rng(0).normal(size=(4, 30)) + np.arange(4)[:, None] + np.linspace(0, 3, 30)
    m, rows, columns = x.mean(), x.mean(1), x.mean(0)
    residual = x - rows[:, None] - columns + m
    ms_rows, ms_columns = 30 * rows.var(ddof=1), 4 * columns.var(ddof=1)
    ms_rest = (residual**2).sum() / (3 * 29)
    spread = intervals.variance_of_mean(x)
    assert spread.total == pytest.approx((ms_rows + ms_columns - ms_rest) / 120)


def test_items_of_its_own_count_only_between_seeds():
    x = np.random.default_rng(0).normal(size=(4, 30)) + np.arange(4)[:, None]
    own = np.full((4, 120), np.nan)
    for s in range(4):
        own[s, 30 * s : 30 * s + 30] = x[s]
    spread = intervals.variance_of_mean(own)
    assert spread.total == pytest.approx(x.mean(1).var(ddof=1) / 4) and spread.freedom == pytest.approx(3)
    assert estimate(own).items == 120 and estimate(x).items == 30


def test_strata_take_the_differences_between_strata_out_of_the_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 40)) + np.repeat([0.0, 10.0], 20)
    names = ["easy"] * 20 + ["hard"] * 20
    with_strata, without = estimate(x, names), estimate(x)
    assert with_strata.mean == without.mean
    assert with_strata.high - with_strata.low < 0.5 * (without.high - without.low)


@pytest.mark.parametrize(("value", "ends"), [(0.0, (0, 0.0378)), (1.0, (1 - 0.0378, 1))])
def test_none_or_all_of_96_items_have_clopper_and_pearsons_bound(value, ends):
    e = estimate(np.full((3, 96), value), bounds=(0, 1))
    assert (e.low, e.high) == pytest.approx(ends, abs=1e-3)


def test_a_difference_that_is_always_the_same_still_has_an_interval():
    e = estimate(np.zeros((3, 24)), bounds=(-1, 1))
    assert e.low == pytest.approx(-0.1425, abs=1e-3) and e.high == pytest.approx(0.1425, abs=1e-3)
    assert math.isnan(estimate(np.full((3, 24), 2.0)).low)  # without bounds nothing can be said


def test_no_interval_leaves_its_bounds_or_loses_the_mean():
    rng = np.random.default_rng(0)
    for _ in range(300):
        seeds, items = rng.integers(2, 7), rng.integers(1, 30)
        x = (rng.random((seeds, items)) < rng.choice([0.02, 0.5, 0.98])).astype(float)
        if rng.random() < 0.5:
            x = x - (rng.random((seeds, items)) < 0.5)
        x[rng.random(x.shape) < rng.choice([0, 0.3])] = np.nan
        e = estimate(x, bounds=(-1, 1) if np.nanmin(x, initial=0) < 0 else (0, 1))
        if not math.isnan(e.low):
            assert -1 <= e.low <= e.mean <= e.high <= 1 and e.low < e.high


def test_fewer_than_two_seeds_have_no_interval():
    assert math.isnan(estimate(np.ones((1, 5)), bounds=(0, 1)).low)
    assert estimate(np.full((2, 3), np.nan)).seeds == 0


def test_outcomes_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        estimate(np.array([[0.0, 1.5], [0, 1]]), bounds=(0, 1))


def test_strata_that_are_each_of_one_value_still_leave_an_interval():
    x = np.tile([0.0] * 5 + [1.0] * 3, (3, 1))
    names = ["owner"] * 5 + ["court"] * 3
    for shift, bounds in ((0, (0, 1)), (-0.5, (-1, 1))):
        e = estimate(x + shift, names, bounds)
        assert bounds[0] <= e.low < e.mean < e.high <= bounds[1]


def test_the_same_outcomes_have_the_same_interval():
    x = np.random.default_rng(0).normal(size=(3, 20))
    assert estimate(x) == estimate(x)


def test_intervals_of_a_rate():
    assert [round(100 * x, 1) for x in intervals.wilson(34, 202)] == [12.3, 22.6]
    assert intervals.clopper_pearson(0, 24) == pytest.approx((0, 0.1425), abs=1e-4)
    with pytest.raises(ValueError, match="successes = 3"):
        intervals.wilson(3, 2)
    with pytest.raises(ValueError, match="n at least 1"):
        intervals.clopper_pearson(0, 0)


def test_as_many_seeds_as_are_said_to_be_needed_bring_the_interval_there():
    rng = np.random.default_rng(0)
    x = 0.3 * rng.normal(size=(3, 1)) + rng.normal(size=(3, 50))
    own = np.full((3, 150), np.nan)
    for s in range(3):
        own[s, 50 * s : 50 * s + 50] = x[s]
    e = estimate(own)
    n = intervals.seeds_needed(e, 0.1)
    half = lambda n: stats.t.ppf(0.975, n - 1) * math.sqrt(e.spread.between * 3 / n)
    assert half(n) <= 0.1 < half(n - 1)


def test_where_the_items_are_too_few_no_number_of_seeds_is_named():
    x = np.random.default_rng(0).normal(size=(1, 10)) + 0.01 * np.random.default_rng(1).normal(size=(5, 10))
    e = estimate(x)
    assert intervals.seeds_needed(e, 0.05) is None and intervals.items_needed(e, 0.05) > 1000
    assert intervals.seeds_needed(e, 0) is None


def test_findings_that_stand_together():
    assert intervals.stand_together([0.001, 0.04, 0.9]) == [True, False, False]
    assert intervals.stand_together([0.04, 0.045]) == [True, True]
    assert intervals.stand_together([]) == []
