"""Keyword search over the corpus, and the fusion of rankings."""

import collections
import re
from collections.abc import Callable, Iterable, Sequence

import bm25s
import numpy as np

from paperwalk.papers.legal_rag.law import Record


def plain_tokens(text: str) -> list[str]:
    """Words of two letters or more, in small letters."""
    return re.findall(r"\w\w+", text.lower())


def legal_tokens(text: str) -> list[str]:
    """Abbreviations stay whole: F.3d, N.Y., 11th are one token each."""
    return re.sub(r"(?<=[a-z]{4})\.(?=\s|$)|[?,;:()\"]|'s\b", " ", text).lower().split()


def first(scores: Sequence[float] | np.ndarray, k: int) -> list[int]:
    """Places of the k highest scores, best first; of equal scores the earlier."""
    return [int(i) for i in np.argsort(-np.asarray(scores), kind="stable")[:k]]


def fuse(rankings: Iterable[Sequence[int]], k: int, c: int = 60) -> list[int]:
    """Reciprocal rank fusion (Cormack et al. 2009): the k places with the largest sum of 1 / (c + rank)."""
    score: collections.Counter[int] = collections.Counter()
    for ranking in rankings:
        for place, i in enumerate(ranking, 1):
            score[i] += 1 / (c + place)  # type: ignore[assignment]  # a Counter of shares
    return [i for i, _ in score.most_common(k)]


class Bm25:
    """BM25 (bm25s) over titles, twice, and texts."""

    def __init__(self, records: Sequence[Record], tokens: Callable[[str], list[str]]):
        self.tokens, self.index = tokens, bm25s.BM25()
        texts = [tokens(f"{r.title} {r.title} {r.text}") for r in records]
        self.index.index(texts, show_progress=False)

    def scores(self, text: str) -> np.ndarray:
        """A score for each record, in their order; zeros for a text without tokens."""
        tokens = self.tokens(text)
        return self.index.get_scores(tokens) if tokens else np.zeros(self.index.scores["num_docs"])
