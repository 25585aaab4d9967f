"""Counting graded answers: where the hallucinated ones come from, what is refused, and excerpts for the page."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import scipy.stats

from paperwalk.papers.legal_rag.answers import Answer
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question


class Grade(Protocol):
    """A judgement on one answer: the notebook's class."""

    groundedness: str
    why: str

    @property
    def label(self) -> str: ...


Graded = tuple[Question, Answer, Grade]


def share(flags: Sequence[bool]) -> float:
    """How many of the flags are set, as a share; NaN of none."""
    return float(np.mean(flags)) if len(flags) else math.nan


def causes(
    graded: Sequence[Graded], by_id: Mapping[str, Record], bears_out: Callable[[Record, Question], bool]
) -> dict[str, float]:
    """Shares of one system, NaN where there are none to share.

    Of its hallucinated answers: failure.reading, to a true premise with the right record retrieved (of those to true
    premises); failure.premise, to a false one; failure.misgrounded, a true answer with a wrong authority. Of its
    citations: citation.exists, in the corpus; citation.supports, `bears_out` the answer (of those that exist).
    """
    wrong = [(q, a, g) for q, a, g in graded if g.label == "hallucinated"]
    citations = [(q, cited) for q, a, _ in graded for cited in a.cites]
    existing = [(q, by_id[cited]) for q, cited in citations if cited in by_id]
    return {
        "failure.reading": share([q.subject in a.retrieved for q, a, _ in wrong if q.keys]),
        "failure.premise": share([not q.keys for q, _, _ in wrong]),
        "failure.misgrounded": share([g.groundedness == "misgrounded" for _, _, g in wrong]),
        "citation.exists": share([cited in by_id for _, cited in citations]),
        "citation.supports": share([q.keys != () and bears_out(record, q) for q, record in existing]),
    }


def premises(graded: Sequence[Graded], refuses: re.Pattern) -> dict[str, float]:
    """What one system does with false premises; shares of no answers are 0.

    refuses.false and refuses.true: refused of the false premises and of their twins, and refuses.difference. Of false
    premises: premise.real-citation, hallucinated answers that cite; premise.judge, hallucinated about unknown judges.
    """
    refused = {q.id: bool(refuses.search(a.text)) or not a.text for q, a, _ in graded}
    pairs = [(refused[q.id], refused[q.twin]) for q, _, _ in graded if not q.keys and q.twin in refused]
    false, true = np.mean(pairs, axis=0) if pairs else (0.0, 0.0)
    taken = [bool(a.cites) for q, a, g in graded if not q.keys and g.label == "hallucinated"]
    judges = [g.label == "hallucinated" for q, _, g in graded if q.template == "judge-unknown"]
    return {
        "refuses.false": false,
        "refuses.true": true,
        "refuses.difference": false - true,
        "premise.real-citation": share(taken) if taken else 0.0,
        "premise.judge": share(judges) if judges else 0.0,
    }


def excerpts(
    questions: Sequence[Question], graded: Mapping[str, Sequence[Graded]], by_id: Mapping[str, Record]
) -> list[dict]:
    """What each system said to the questions, titles in the place of ids, as `controls.answers_control` shows it."""
    out = []
    for q in questions:
        said = []
        for system, triples in graded.items():
            for asked, a, g in triples:
                if asked.id == q.id:
                    cited = [by_id[c].title for c in a.cites if c in by_id]
                    seen = [by_id[r].title for r in a.retrieved]
                    entry = {"system": system, "text": a.text, "cites": cited, "retrieved": seen}
                    said.append(entry | {"label": g.label, "why": g.why})
        key = q.keys[0] if q.keys else "none: the premise is false"
        out.append({"question": q.text, "category": q.category, "key": key, "said": said})
    return out


def risk_coverage(graded: Sequence[Graded], refuses: re.Pattern[str]) -> tuple[np.ndarray, np.ndarray]:
    """(coverage, risk) as the least confident answers are withheld one by one; risk: hallucinated of those given.

    One value for each answer that is given: one that says something, and does not refuse.
    """
    given = [(a.confidence, g.label == "hallucinated") for _, a, g in graded if a.text and not refuses.search(a.text)]
    wrong = [flag for _, flag in sorted(given, key=lambda pair: -pair[0])]
    n = np.arange(1, len(wrong) + 1)
    return n / max(1, len(graded)), np.cumsum(wrong) / n


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Chance that a right answer has the higher score of the two (ties count half); NaN without one of each."""
    if not len(right) or not len(wrong):
        return math.nan
    return scipy.stats.mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong))
