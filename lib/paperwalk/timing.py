"""How long a step takes on a device."""

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
