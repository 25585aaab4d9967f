"""95 % intervals of a mean over seeds and items: what the same experiment would give with other seeds and other items.

Outcomes are a matrix of seeds x items, NaN where a seed has no such item. Items that several seeds share (the same
canaries in every run) and items of one seed alone (mazes drawn anew) are told apart by that: no design is declared.

A two-way bootstrap alone does not cover: it is too wide where seeds and items vary independently, and too narrow where
few seeds vary much (`tests/evidence/test_coverage.py` measures both). So its spread is set to an unbiased variance of
the mean, widened by Student's t for the few seeds there are; its shape is kept. Rates have Korn and Graubard's
interval: Beta quantiles of as many independent trials as that variance amounts to.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 999
LEAST = 0.85  # of the variance of independent outcomes; with the whole of it, rare successes were covered too often
Z = 1.959963984540054  # of the normal distribution, at the ends of 95 %


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, NaN where there is none.

    seeds, items: how many there are, items of the same name counted once; spread: what the interval rests on.
    """

    mean: float
    low: float
    high: float
    seeds: int
    items: int
    spread: "Spread | None" = None


@dataclass(frozen=True)
class Spread:
    """Variance of a mean and its degrees of freedom.

    total = between + common, at least independent. between: of the seeds' means; common: what they share because they
    share items; independent: LEAST of the variance of as many outcomes that have nothing in common.
    """

    total: float
    freedom: float
    between: float
    common: float
    independent: float

    @property
    def error(self) -> float:
        """Half of the width of a 95 % interval."""
        return _t(self.freedom) * math.sqrt(self.total)


def estimate(
    outcomes: np.ndarray,
    strata: Sequence[str] | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    rate: bool | None = None,
) -> Estimate:
    """The mean over seeds of their means over items, with its interval.

    outcomes: (S, I) floats, NaN where a seed lacks an item; of a paired contrast, the differences. strata: the stratum
    of each item, within which items are drawn; None: one. bounds: what the mean can be. rate: whether outcomes are
    successes of trials; None: where all are 0 or 1. No interval (NaN) with fewer than two seeds, and for outcomes
    without bounds that do not differ at all. Raises ValueError for outcomes out of bounds.
    """
    outcomes = np.asarray(outcomes, float)
    outcomes = outcomes[~np.isnan(outcomes).all(1)]
    filled = outcomes[~np.isnan(outcomes)]
    seeds, items = len(outcomes), int((~np.isnan(outcomes)).any(0).sum()) if len(outcomes) else 0
    if not len(filled):
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    low, high = bounds
    if filled.min() < low or filled.max() > high:
        raise ValueError(f"outcomes: must be from {low} to {high}, are from {filled.min()} to {filled.max()}")
    mean = float(np.nanmean(outcomes, 1).mean())
    if seeds < 2:
        return Estimate(mean, math.nan, math.nan, seeds, items)
    if filled.min() == filled.max():
        return Estimate(float(filled[0]), *_constant(float(filled[0]), items, bounds), seeds, items)
    spread = variance_of_mean(outcomes, strata)
    if spread.total <= 0:  # every stratum is of one value, in all seeds alike
        strata, spread = None, variance_of_mean(outcomes)
    if rate if rate is not None else set(np.unique(filled)) <= {0.0, 1.0}:
        ends = _rate(mean, (spread.error / Z) ** 2, len(filled))
    elif items == 1:  # too few draws to have a shape
        ends = mean - spread.error, mean + spread.error
    else:
        drawn = _resampled(outcomes, strata)
        ends = tuple(mean + (np.percentile(drawn, [2.5, 97.5]) - mean) * spread.error / (Z * drawn.std()))
    return Estimate(mean, max(low, float(ends[0])), min(high, float(ends[1])), seeds, items, spread)


def variance_of_mean(outcomes: np.ndarray, strata: Sequence[str] | None = None) -> Spread:
    """Variance of the mean over other seeds and other items; outcomes (S, I), S >= 2.

    With seed means a_s, the variance of the mean is var(a) / S, plus what the seeds have in common because they share
    items: the mean over pairs of seeds of cov(s, s') n(s, s') / (n(s) n(s')), where the covariance is over the n(s, s')
    items that both have. Both parts are without bias in a random-effects model, for items that all seeds share, none,
    or some. At least LEAST of the variance of as many independent outcomes: few seeds agree by chance.
    """
    present = ~np.isnan(outcomes)
    counts = present.sum(1)
    means = np.nanmean(outcomes, 1)
    seeds, deviations, groups = len(outcomes), np.zeros_like(outcomes), np.zeros(len(outcomes), int)
    names = np.asarray(strata if strata is not None else [""] * outcomes.shape[1])
    for name in np.unique(names):
        inside = present & (names == name)
        n = inside.sum(1, keepdims=True)
        groups += n[:, 0] > 0
        own = np.where(inside, outcomes, 0).sum(1, keepdims=True) / np.maximum(n, 1)
        deviations = np.where(inside, outcomes - own, deviations)
    between = float(means.var(ddof=1)) / seeds
    freedom = np.maximum(counts - groups, 0).sum()
    within = float((deviations**2).sum() / freedom) if freedom else 0.0
    shared = present.astype(float) @ present.T
    both = np.minimum.outer(groups, groups)
    usable = (shared - both > 0) & ~np.eye(seeds, dtype=bool)
    covariance = deviations @ deviations.T / np.where(usable, shared - both, 1)
    common = float((covariance * shared / np.outer(counts, counts) * usable).sum() / (seeds * (seeds - 1)))
    total, independent = between + common, LEAST * within / counts.sum()
    if total <= independent * (1 + 1e-9):  # equal up to rounding, as with one success in all
        return Spread(independent, float(freedom), between, common, independent)
    by_item = (common + independent) ** 2 / max(int(present.any(0).sum()) - 1, 1) if usable.any() else 0.0
    satterthwaite = total**2 / (between**2 / (seeds - 1) + by_item)
    return Spread(total, max(satterthwaite, seeds - 1.0), between, common, independent)


def seeds_needed(outcome: Estimate, distance: float) -> int | None:
    """How many seeds would bring half of the interval's width to the distance, if mean and spread stay as they are.

    None where no number of seeds would: the items are too few, or the distance is 0.
    """
    if outcome.spread is None or not distance > 0:
        return None
    between, common = outcome.spread.between * outcome.seeds, max(outcome.spread.common, 0)
    for n in [*range(max(outcome.seeds, 3), 100), *range(100, 10_000, 10)]:
        if _t(n - 1) * math.sqrt(between / n + common) <= distance:
            return n
    return None


def items_needed(outcome: Estimate, distance: float) -> int | None:
    """The same for items of as many seeds; None where no number of items would: the seeds are too few."""
    if outcome.spread is None or not distance > 0 or outcome.items < 2:
        return None
    s = outcome.spread
    of_items = min(s.independent, s.between) + max(s.common, 0)
    room = (distance / _t(s.freedom)) ** 2 - max(s.between - s.independent, 0)
    return math.ceil(outcome.items * max(1, of_items / room)) if room > 0 else None


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a rate over independent trials (Clopper and Pearson 1934).

    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    return _of_trials(successes, n, "exact")


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927), as papers report it. Raises ValueError as `clopper_pearson`."""
    return _of_trials(successes, n, "wilson")


def _of_trials(successes, n, method):
    if not (0 <= successes <= n and n > 0):
        raise ValueError(f"successes = {successes}: must be from 0 to n = {n}, and n at least 1")
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(LEVEL, method=method)
    return float(interval.low), float(interval.high)


def p_value(outcome: Estimate, distance: float) -> float:
    """Two-sided p of the mean's distance from a bound, by Student's t; NaN without a spread."""
    from scipy import stats

    if outcome.spread is None:
        return math.nan
    return float(2 * stats.t.sf(distance / math.sqrt(outcome.spread.total), outcome.spread.freedom))


def stand_together(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which findings stand where a share `level` of those that stand may be false (Benjamini and Hochberg 1995)."""
    order = np.argsort(p_values)
    passing = [rank for rank, i in enumerate(order, 1) if p_values[i] <= level * rank / len(order)]
    standing = set(order[: max(passing, default=0)].tolist())
    return [i in standing for i in range(len(order))]


def _t(freedom: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + LEVEL / 2, freedom))


def _constant(value: float, items: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """Interval where all outcomes are one value: another item may differ, as often as none of so many allows."""
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return math.nan, math.nan
    _, rare = clopper_pearson(0, items)
    return value - rare * (value - low), value + rare * (high - value)


def _rate(mean: float, variance: float, n: int) -> tuple[float, float]:
    """Beta quantiles (Jeffreys's prior) of as many independent trials as have this variance, n at most."""
    from scipy import stats

    trials = min(mean * (1 - mean) / variance, n / LEAST)
    parts = mean * trials + 0.5, (1 - mean) * trials + 0.5
    tail = (1 - LEVEL) / 2
    return float(stats.beta.ppf(tail, *parts)), float(stats.beta.ppf(1 - tail, *parts))


def _resampled(outcomes: np.ndarray, strata: Sequence[str] | None) -> np.ndarray:
    """Means of RESAMPLES draws, with replacement, of the seeds and, within strata, of the items: (RESAMPLES,)."""
    of_seeds = _times_drawn(len(outcomes), 0)
    present, filled = ~np.isnan(outcomes), np.nan_to_num(outcomes)
    names = np.asarray(strata if strata is not None else [""] * outcomes.shape[1])
    totals, counts = np.zeros_like(of_seeds), np.zeros_like(of_seeds)  # (RESAMPLES, S)
    for stream, name in enumerate(np.unique(names), 1):
        where = np.flatnonzero(names == name)
        drawn = _times_drawn(len(where), stream)
        totals += drawn @ filled[:, where].T
        counts += drawn @ present[:, where].T.astype(float)
    weights = of_seeds * (counts > 0)  # a seed whose items were not drawn says nothing
    means = (weights * totals / np.maximum(counts, 1)).sum(1) / np.maximum(weights.sum(1), 1)
    return means[weights.sum(1) > 0]


@functools.lru_cache(maxsize=8)  # rows of a table, and simulations, have the same seeds and items
def _times_drawn(n, stream):
    """How often each of n things is among n drawn with replacement, (RESAMPLES, n) floats; others for each stream."""
    draws = np.random.default_rng([n, stream]).integers(n, size=(RESAMPLES, n))
    return np.stack([np.bincount(drawn, minlength=n) for drawn in draws]).astype(float)
