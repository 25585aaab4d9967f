"""How fast the compiled generator of mazes and traces is beside plain Python, and on two threads."""

import time
from collections.abc import Callable, Iterable

import numpy as np

from paperwalk.kernels import astar
from paperwalk.kernels.astar import naive


def tokens_a_second(generate: Callable, size: int, count: int, seed: int, **options: int) -> float:
    """Tokens of traces and plans that `generate`, compiled or plain, writes in a second for so many mazes."""
    start = time.perf_counter()
    tasks = generate("maze", size, count, seed, **options)
    seconds = time.perf_counter() - start
    if isinstance(tasks, astar.Traces):
        return (tasks.lengths("trace") + tasks.lengths("plan")).sum() / seconds
    return sum(len(trace) + len(plan) for _, trace, plan in tasks) / seconds


def median_ratio(one: Callable[[int], float], other: Callable[[int], float], seeds: Iterable[int]) -> float:
    """How many times as fast as the other: the median of side-by-side pairs of runs, each with a seed of its own."""
    return float(np.median([one(seed) / other(seed) for seed in seeds]))


def ratios(mazes: int, seed: int, pairs: int = 7) -> dict[str, float]:
    """Compiled over plain at 10 x 10 and 30 x 30, one thread; and two threads over one at 20 x 20.

    mazes: those that plain Python makes in a run; the compiled generator makes 200 times as many.
    """
    compiled = lambda size, threads: (
        lambda seed: tokens_a_second(astar.generate, size, 200 * mazes, seed, threads=threads)
    )
    plain = lambda size: lambda seed: tokens_a_second(naive.generate, size, mazes, seed)
    seeds = range(seed, seed + pairs)
    out = {str(size): median_ratio(compiled(size, 1), plain(size), seeds) for size in (10, 30)}
    return out | {"two_threads": median_ratio(compiled(20, 2), compiled(20, 1), seeds)}
