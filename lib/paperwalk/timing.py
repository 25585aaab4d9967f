"""How long a step takes on a device, and how it compares with another one timed beside it."""

import time
from collections.abc import Callable

import numpy as np
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


def median_ratio(slow: Callable[[], object], fast: Callable[[], object], device: torch.device, pairs: int = 5) -> float:
    """How many times as long the slow step takes: the median of side-by-side pairs, after a warm-up."""
    slow(), fast()  # warm-up
    return float(np.median([seconds(slow, device) / seconds(fast, device) for _ in range(pairs)]))
