"""Side checks of a judge: what may fool it, and whether it tells people's translations from damaged ones."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from paperwalk.papers.rest.clues import words


def commonest(texts: Sequence[str], n: int = 20) -> str:
    """The n commonest words of the texts, the commonest first."""
    return " ".join(word for word, _ in Counter(word for text in texts for word in words(text)).most_common(n))


def auc(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """For each reward of good (n,) the share of bad (m,) below it, ties counted half: its mean is the AUC."""
    rising = np.sort(bad)
    below, up_to = (np.searchsorted(rising, good, side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(bad))
