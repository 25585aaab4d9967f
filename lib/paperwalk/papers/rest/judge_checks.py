"""Side checks of a judge: which tricks raise its reward, and whether it agrees with what it should agree with."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from paperwalk.papers.rest.clues import words

Judge = Callable[[Sequence[str], Sequence[str]], np.ndarray]  # sources, translations -> a reward each, (n,)


def commonest(texts: Sequence[str], n: int = 20) -> str:
    """The n commonest words of the texts, the commonest first."""
    return " ".join(word for word, _ in Counter(word for text in texts for word in words(text)).most_common(n))


def fooled(
    judges: Mapping[str, Judge], sources: Sequence[str], outputs: Sequence[str], stuffing: str
) -> dict[str, float]:
    """`trick.judge`: points of mean reward, of a hundred, that a trick adds to the outputs (or takes).

    The tricks: words appended that have nothing to do with the sentence, the translation twice, the source copied.
    """
    tricks = {
        "stuff": [f"{text} {stuffing}" for text in outputs],
        "repeat": [f"{text} {text}" for text in outputs],
        "copy": sources,
    }
    found = {}
    for name, judge in judges.items():
        plain = judge(sources, outputs).mean()
        for trick, texts in tricks.items():
            found[f"{trick}.{name}"] = 100 * float(judge(sources, texts).mean() - plain)
    return found


def agreement(
    judges: Mapping[str, Judge], scores: Mapping[str, np.ndarray], pairs: tuple[list[str], list[str]], wrong: list[str]
) -> dict[str, float]:
    """`auc.judge`: how well it tells people's translations from damaged ones; `pearson.judge`: correlation with chrF.

    scores: by judge, and "chrF", those of the same samples, (n,) each. pairs: sources and people's translations.
    wrong: a damaged translation of each source.
    """
    sources, humans = pairs
    labels, found = [1] * len(humans) + [0] * len(wrong), {}
    for name, judge in judges.items():
        found[f"auc.{name}"] = float(roc_auc_score(labels, judge(sources * 2, humans + wrong)))
        found[f"pearson.{name}"] = float(np.corrcoef(scores[name], scores["chrF"])[0, 1])
    return found
