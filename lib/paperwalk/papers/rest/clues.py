"""What the learned judge is told of a translation: numbers from dictionaries both ways and a language model."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import numpy as np


class Dictionary(Protocol):
    """Tells for each word of two texts how likely the one is a translation of the other."""

    def table(self, source: str, target: str) -> np.ndarray:
        """Probabilities, (source words, target words)."""


def words(text: str) -> list[str]:
    """The words and marks of a text in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class Bigrams:
    """A language model: probability of a word given the one before, interpolated with that of the word alone."""

    def __init__(self, texts: Iterable[str]):
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.single: Counter[str] = Counter()
        for text in texts:
            row = ["<s>", *words(text), "</s>"]
            self.single.update(row)
            self.pairs.update(itertools.pairwise(row))
        self.total = self.single.total()

    def score(self, text: str) -> float:
        """Mean log-probability of a word, in nats."""
        row = ["<s>", *words(text), "</s>"]
        alone = lambda w: (self.single[w] + 0.1) / (self.total + 0.1 * len(self.single) + 1)
        given = lambda v, w: 0.7 * self.pairs[v, w] / max(self.single[v], 1) + 0.3 * alone(w)
        return float(np.mean([math.log(given(v, w)) for v, w in itertools.pairwise(row)]))


def clues(there: Dictionary, back: Dictionary, language: Bigrams, source: str, target: str) -> list[float]:
    """Fourteen numbers about a translation, by dictionaries both ways and a language model of the target side."""
    s, t = words(source), words(target)
    tables = there.table(source, target), back.table(target, source)
    mean_log = lambda table: float(np.log(table.mean(0) + 1e-4).mean()) if table.size else -9.0
    best = lambda table, axis: float(table.max(axis).mean()) if table.size else 0.0
    repeated = 1 - len(set(itertools.pairwise(t))) / max(len(t) - 1, 1)
    copied = len(set(s) & set(t)) / max(len(set(t)), 1)
    lengths = len(t) / max(len(s), 1), len(target) / max(len(source), 1)
    count = lambda mark: len(re.findall(mark, target)) - len(re.findall(mark, source))
    return [
        *map(mean_log, tables),
        *(best(table, axis) for table in tables for axis in (0, 1)),
        language.score(target),
        *lengths,
        repeated,
        copied,
        *map(count, (r"\{", r"[.?!]$", r"\d")),
    ]
