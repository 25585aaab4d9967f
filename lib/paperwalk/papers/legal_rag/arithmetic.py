"""The paper's own arithmetic: counts behind rounded figures, tests between tools, agreement of two readers."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from paperwalk import evidence


def counts_that_fit(percentages: tuple, bounds: tuple, n: int) -> list[tuple[int, int, int]]:
    """Every (accurate, incomplete, hallucinated) of n that rounds to the percentages and to the bounds of the last."""
    fit = []
    for accurate, incomplete in itertools.product(range(n + 1), repeat=2):
        count = accurate, incomplete, n - accurate - incomplete
        if count[2] < 0 or tuple(round(100 * c / n) for c in count) != percentages:
            continue
        low, high = (100 * bound for bound in evidence.wilson(count[2], n))
        if all(abs(ours - theirs) <= 0.06 for ours, theirs in zip((low, high), bounds)):
            fit.append(count)
    return fit


def holm(ps: np.ndarray) -> np.ndarray:
    """p-values corrected for multiple comparison (Holm 1979)."""
    order, corrected, largest = np.argsort(ps), np.empty(len(ps)), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, ps[i] * (len(ps) - place)))
        corrected[i] = largest
    return corrected


def compared(parts: Mapping[str, tuple[int, int]]) -> dict[tuple[str, str], float]:
    """Pair of names -> p of Fisher's exact test with Holm's correction; parts: name -> (counted, of how many)."""
    pairs, ps = list(itertools.combinations(parts, 2)), []
    for one, other in pairs:
        (a, n), (b, m) = parts[one], parts[other]
        ps.append(scipy.stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue)
    return dict(zip(pairs, holm(np.array(ps))))


def agreement(table: ArrayLike) -> tuple[float, float]:
    """(share of agreement, Cohen's kappa) of a square table of counts: one rater's labels by another's.

    Kappa is NaN where both raters use one label alone.
    """
    table = np.asarray(table, float)
    n = table.sum()
    agreed, chance = np.trace(table) / n, (table.sum(0) * table.sum(1)).sum() / n**2
    return agreed, (agreed - chance) / (1 - chance) if chance < 1 else math.nan


def resampled_kappa(table: ArrayLike, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """95 % bootstrap interval of kappa, (low, high): the answers are drawn again with replacement."""
    table = np.asarray(table)
    again = np.random.default_rng(seed).multinomial(table.sum(), table.ravel() / table.sum(), draws)
    kappas = [agreement(one.reshape(table.shape))[1] for one in again]
    return np.nanpercentile(kappas, [2.5, 97.5])


def tables_that_fit(n: int = 48, agreed: int = 41, kappa: float = 0.77) -> np.ndarray:
    """All 3 x 3 tables of n answers, so many agreed on, whose kappa rounds to the published one: (tables, 3, 3)."""
    splits = lambda total, parts: np.array(
        [s for s in itertools.product(range(total + 1), repeat=parts) if sum(s) == total]
    )
    apart = np.zeros((math.comb(n - agreed + 5, 5), 3, 3), int)
    apart[:, ~np.eye(3, dtype=bool)] = splits(n - agreed, 6)
    every = (apart[None] + np.eye(3, dtype=int) * splits(agreed, 3)[:, None, None, :]).reshape(-1, 3, 3)
    chance = (every.sum(1) * every.sum(2)).sum(1) / n**2
    return every[np.round((agreed / n - chance) / (1 - chance), 2) == kappa]
