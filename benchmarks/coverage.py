"""How often the 95 % intervals of the book hold the truth, in simulations whose truth is known.

`python -m benchmarks.coverage` writes benchmarks/results/coverage.csv: for rates and paired differences, items that all
seeds share or that each draws for itself, and 3, 6 and 12 seeds, the share of intervals that hold the truth, and that
of a two-way bootstrap alone. tests/evidence/test_coverage.py simulates anew.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from scipy import special

from paperwalk.evidence import intervals

RESULTS = Path(__file__).parent / "results" / "coverage.csv"
SEEDS = (3, 6, 12)
ITEMS = 60  # of a seed
SIMULATIONS = 2000


@dataclass(frozen=True)
class Case:
    """Outcomes 0 or 1, of an arm, or the differences of two, whose log odds vary by seed and by item.

    levels: log odds of the arm, or of both; by_seed, by_item: standard deviations of what seeds and items add, by_seed
    also of what a seed adds to the first arm alone.
    """

    name: str
    levels: tuple[float, ...]
    by_seed: float
    by_item: float

    @property
    def bounds(self) -> tuple[float, float]:
        return (0, 1) if len(self.levels) == 1 else (-1, 1)

    def truth(self) -> float:
        """The mean over all seeds and items, by integration over their normal distributions."""
        x, w = np.polynomial.hermite_e.hermegauss(80)
        w = w / w.sum()
        first = np.hypot(np.hypot(self.by_seed, self.by_item), self.by_seed * (len(self.levels) - 1))
        means = [w @ special.expit(self.levels[0] + first * x)]
        means += [w @ special.expit(level + np.hypot(self.by_seed, self.by_item) * x) for level in self.levels[1:]]
        return float(means[0] - sum(means[1:]))

    def draw(self, seeds: int, shared: bool, rng: np.random.Generator) -> np.ndarray:
        """Outcomes (seeds, items); where items are not shared, NaN for those of other seeds."""
        item = self.by_item * rng.normal(size=(1 if shared else seeds, ITEMS))
        seed = self.by_seed * rng.normal(size=(seeds, 1))
        alone = self.by_seed * rng.normal(size=(seeds, 1)) * (len(self.levels) - 1)
        hit = lambda level: (rng.random((seeds, ITEMS)) < special.expit(level + seed + item)).astype(float)
        return _spread(hit(self.levels[0] + alone) - sum(hit(level) for level in self.levels[1:]), shared)


@dataclass(frozen=True)
class AllOrNothing:
    """Seeds that mostly learn a task and sometimes do not: a rate of `learned`, or with odds of `fails` of `failed`."""

    name: str
    learned: float
    failed: float
    fails: float
    bounds = (0, 1)

    def truth(self) -> float:
        """The mean over all seeds and items."""
        return (1 - self.fails) * self.learned + self.fails * self.failed

    def draw(self, seeds: int, shared: bool, rng: np.random.Generator) -> np.ndarray:
        """As `Case.draw`."""
        rates = np.where(rng.random(seeds) < self.fails, self.failed, self.learned)
        return _spread((rng.random((seeds, ITEMS)) < rates[:, None]).astype(float), shared)


def _spread(x, shared):
    """Outcomes (seeds, items) as they are, or with columns for each seed's own items, NaN elsewhere."""
    if shared:
        return x
    seeds, items = x.shape
    own = np.full((seeds, seeds * items), np.nan)
    for s in range(seeds):
        own[s, s * items : (s + 1) * items] = x[s]
    return own


CASES = [
    Case("rate near 0", (-4.0,), 0.3, 1.0),
    Case("rate near .5", (0.0,), 0.3, 1.0),
    Case("rate near .5, seeds vary much", (0.0,), 0.8, 1.0),
    Case("rate near 1", (4.0,), 0.3, 1.0),
    Case("paired difference near 0", (0.0, 0.0), 0.3, 1.0),
    Case("paired difference near .2", (1.0, 0.0), 0.3, 1.0),
    Case("paired difference of rare outcomes", (-3.0, -5.0), 0.2, 1.0),
]
# What no interval of few seeds covers: all of them may have learned the task, and none tells of those that do not
UNCOVERED = [AllOrNothing("one seed in seven fails to learn", 0.995, 0.3, 1 / 7)]


def bootstrap_alone(outcomes: np.ndarray) -> tuple[float, float]:
    """Percentiles of the two-way bootstrap, nothing corrected."""
    drawn = intervals._resampled(outcomes, None)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def book(case: Case | AllOrNothing) -> Callable[[np.ndarray], tuple[float, float]]:
    """The interval that the book shows."""

    def ends(outcomes):
        found = intervals.estimate(outcomes, bounds=case.bounds)
        return found.low, found.high

    return ends


def covered(
    case: Case | AllOrNothing,
    seeds: int,
    shared: bool,
    ends: Callable[[np.ndarray], tuple[float, float]],
    n: int,
    seed: int = 0,
) -> float:
    """Share of n simulated experiments whose interval holds the truth."""
    rng, truth = np.random.default_rng([seed, seeds, shared]), case.truth()
    inside = 0
    for _ in range(n):
        low, high = ends(case.draw(seeds, shared, rng))
        inside += low <= truth <= high
    return inside / n


def _row(case, shared):
    row = {"case": case.name, "items": "shared by all seeds" if shared else "of each seed its own"}
    row |= {f"{n} seeds": covered(case, n, shared, book(case), SIMULATIONS) for n in SEEDS}
    return row | {
        f"{n} seeds, bootstrap alone": covered(case, n, shared, bootstrap_alone, SIMULATIONS // 4) for n in SEEDS
    }


def main() -> None:
    jobs = [joblib.delayed(_row)(case, shared) for case in CASES + UNCOVERED for shared in (True, False)]
    rows = joblib.Parallel(n_jobs=-1)(jobs)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {RESULTS.name}, {len(rows)} rows")


if __name__ == "__main__":
    main()
