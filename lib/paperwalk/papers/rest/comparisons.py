"""What of a Grow's data passes a judge's thresholds: how much of the human anchor is left."""

from collections.abc import Iterator

import numpy as np


def survival(reward: np.ndarray, human: np.ndarray, taus: np.ndarray) -> Iterator[tuple[str, np.ndarray, float]]:
    """For each threshold "i1", "i2", ...: which human translations pass (bool), and the human share of what passes.

    reward (n,); human (n,), bool: by a person. A threshold that nothing passes has no share and is left out.
    """
    for i, tau in enumerate(taus, 1):
        passes = reward > tau
        if passes.any():
            yield f"i{i}", passes[human], float(human[passes].mean())
