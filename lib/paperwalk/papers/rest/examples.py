"""Translations that the page shows: of the first Grow with their rewards, and of each policy."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from paperwalk.papers.rest.scores import each_chrf


class Grown(Protocol):
    """A Grow's data, an entry a translation; `human` is true where a person wrote it."""

    @property
    def sources(self) -> list[str]: ...
    @property
    def targets(self) -> list[str]: ...
    @property
    def human(self) -> np.ndarray: ...
    @property
    def reward(self) -> np.ndarray: ...


def samples_of(source: str, grown: Mapping[str, Grown]) -> dict:
    """All translations of a source in the first Grow, with their rewards by judge and chrF, for the live control.

    grown: by judge; the translations are the same for all.
    """
    any_judges = next(iter(grown.values()))
    rows = [i for i, each in enumerate(any_judges.sources) if each == source]
    texts, human = [any_judges.targets[i] for i in rows], [bool(any_judges.human[i]) for i in rows]
    rewards = {name: [float(data.reward[i]) for i in rows] for name, data in grown.items()}
    gold = each_chrf(texts, [texts[human.index(True)]] * len(texts)).tolist()
    return {"source": source, "texts": texts, "human": human, "rewards": rewards, "gold": gold}


def side_by_side(columns: Mapping[str, Sequence[str]], n: int = 40) -> list[dict[str, str]]:
    """The first n sentences, each with its text in every column."""
    return [dict(zip(columns, texts)) for texts in list(zip(*columns.values()))[:n]]
