"""What the learned judge is told of a translation: numbers from dictionaries both ways and a language model."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def words(text: str) -> list[str]:
    """The words and marks of a text in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def ibm_model_1(
    bags: Sequence[tuple[list[str], list[str]]], f_ids: Mapping[str, int], e_ids: Mapping[str, int], rounds: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Links f * E + e, sorted, and t(e | f) of each, by expectation-maximisation (Brown et al. 1993, model 1).

    bags: (source words f, target words e) of each pair. f_ids, e_ids: a number for each word; E: of target words.
    """
    E = len(e_ids)
    rows = ((fs, e) for fs, es in bags for e in es)  # what may have made a target word
    f, e, n = np.array([(f_ids[f], e_ids[e], n) for n, (fs, e) in enumerate(rows) for f in fs]).T
    links, link = np.unique(f * E + e, return_inverse=True)
    t = np.ones(len(links))
    for _ in range(rounds):
        share = t[link] / np.bincount(n, t[link])[n]  # which f made this e?
        count = np.bincount(link, share)
        t = count / np.bincount(links // E, count)[links // E]
    return links, t


class Dictionary:
    """t(e | f), learned from pairs of texts by IBM model 1; `best`: the likeliest translation of each source word."""

    def __init__(self, part: Iterable[tuple[str, str]]):
        bags = [(["<none>", *words(source)], words(target)) for source, target in part]
        self.f, self.e = (numbered(side) for side in zip(*bags))
        self.links, self.t = links, t = ibm_model_1(bags, self.f, self.e)
        rising = links[np.lexsort((-links, t))]  # a source word's likeliest link comes last
        best, names = np.zeros(len(self.f), int), list(self.e)
        best[rising // len(names)] = rising % len(names)
        self.best = {w: names[best[f]] for w, f in self.f.items()}

    def table(self, source: str, target: str) -> np.ndarray:
        """t(e | f) for each word of the two texts; an unknown word has none: (source words, target words)."""
        f = np.array([self.f.get(w, -1) for w in words(source)], int)[:, None]
        e = np.array([self.e.get(w, -1) for w in words(target)], int)
        wanted = f * len(self.e) + e
        place = np.minimum(np.searchsorted(self.links, wanted), len(self.links) - 1)
        known = (self.links[place] == wanted) & (f >= 0) & (e >= 0)
        return np.where(known, self.t[place], 0.0)


def numbered(rows: Iterable[Iterable[str]]) -> dict[str, int]:
    """A number for each different word of the rows, in order."""
    return {w: i for i, w in enumerate(dict.fromkeys(w for row in rows for w in row))}


def word_by_word(dictionary: Dictionary, source: str) -> str:
    """Each word by its likeliest translation, unknown ones as they are."""
    return " ".join(dictionary.best.get(w, w) for w in words(source))


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
