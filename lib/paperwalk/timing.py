"""How long a step takes on a device, and on how many of a CPU's threads it takes least."""

import statistics
import time
from collections.abc import Callable

import torch


def wait_for(device: torch.device) -> None:
    """Returns when a GPU has done all that it was given; on other devices at once."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """What the step takes on the device."""
    start = time.perf_counter()
    step()
    wait_for(device)
    return time.perf_counter() - start


def fastest_threads(most: int, budget: float = 0.1) -> int:
    """1 or `most`: on how many threads products of matrices, of a small model's sizes, end sooner, tried in turn for
    `budget` seconds. On a shared machine threads that wait for each other can be slower than one alone."""
    if most <= 1:
        return 1
    before, end = torch.get_num_threads(), time.perf_counter() + budget
    a, b = torch.randn(768, 128), torch.randn(128, 512)
    taken: dict[int, list[float]] = {1: [], most: []}
    try:
        while time.perf_counter() < end or not taken[most]:
            for threads, times in taken.items():
                torch.set_num_threads(threads)
                a @ b  # the first call after a change starts threads
                times.append(seconds(lambda: [a @ b for _ in range(4)], a.device))
    finally:
        torch.set_num_threads(before)
    return min(taken, key=lambda threads: statistics.median(taken[threads]))
