"""Means over seeds and intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean, sample SD and 95 % interval of n values; sd, low and high are NaN for n < 2, all for n = 0."""

    mean: float
    sd: float
    n: int
    low: float
    high: float


def summarise(numbers: list[float]) -> Summary:
    """Mean with Student's t-interval (scipy); equal values have the point itself as their interval."""
    n, nan = len(numbers), math.nan
    if n < 2:
        return Summary(numbers[0] if n else nan, nan, n, nan, nan)
    from scipy import stats

    mean = min(max(math.fsum(numbers) / n, min(numbers)), max(numbers))  # equal values: exactly their value
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n)
    return Summary(mean, sd, n, mean - half, mean + half)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a rate (scipy). Raises ValueError unless 0 <= successes <= n and n > 0."""
    if not (0 <= successes <= n and n > 0):
        raise ValueError(f"successes = {successes}: must be from 0 to n = {n}, and n at least 1")
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return interval.low, interval.high


def bootstrap(*samples: Sequence[float], statistic: Callable[..., float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval (1,000 resamples, scipy) of `statistic(*samples)` of 1-D samples."""
    from scipy import stats

    options = {"n_resamples": 1000, "vectorized": False, "paired": False, "method": "percentile", "rng": seed}
    interval = stats.bootstrap(samples, statistic, **options).confidence_interval
    return float(interval.low), float(interval.high)
