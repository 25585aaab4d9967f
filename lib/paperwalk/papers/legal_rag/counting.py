"""Outcomes of graded answers by question: where the hallucinated ones come from, what is refused; and excerpts."""

import collections
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from paperwalk.papers.legal_rag.answers import Answer
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question


class Grade(Protocol):
    """A judgement on one answer: the notebook's class."""

    why: str

    @property
    def label(self) -> str: ...


Graded = tuple[Question, Answer, Grade]


def by_question(graded: Iterable[Graded], value: Callable[[Question, Answer, Grade], float | None]) -> dict[str, float]:
    """Item of a question -> mean of value(question, answer, grade) over its answers; without those that are None."""
    found = collections.defaultdict(list)
    for question, answer, grade in graded:
        if (one := value(question, answer, grade)) is not None:
            found[question.item].append(float(one))
    return {item: float(np.mean(ones)) for item, ones in found.items()}


def at_hand(question: Question, answer: Answer, grade: Grade) -> bool | None:
    """Whether the right record was retrieved; None but for an answer to a true premise that is hallucinated."""
    return question.subject in answer.retrieved if question.keys and grade.label == "hallucinated" else None


def supported(
    question: Question, answer: Answer, by_id: Mapping[str, Record], bears_out: Callable[[Record, Question], bool]
) -> float | None:
    """Of the cited records that exist, the share that `bears_out` the answer; None without any."""
    found = [bears_out(by_id[cited], question) for cited in answer.cites if cited in by_id]
    return float(np.mean(found)) if found else None


def beside_twins(graded: Iterable[Graded], refused: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """What was refused of the false premises, and of their twins under the same items; without twins that were not
    asked. refused: item -> share of its answers, as `by_question` gives it."""
    twins = {q.item: f"true premise/{q.twin}" for q, _, _ in graded if not q.keys}
    asked = {item: twin for item, twin in twins.items() if twin in refused}
    return {item: refused[item] for item in asked}, {item: refused[twin] for item, twin in asked.items()}


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


def shares_below(graded: Sequence[Graded], score: Callable[[Answer], float]) -> dict[str, float]:
    """Item of an accurate answer -> share of the hallucinated answers with a lower score (ties count half).

    The mean is the AUC. Answers whose score is NaN are left out; empty without a hallucinated one.
    """
    scores = [score(answer) for _, answer, grade in graded if grade.label == "hallucinated"]
    wrong = np.sort([s for s in scores if not math.isnan(s)])

    def below(question, answer, grade):
        if grade.label != "accurate" or math.isnan(score(answer)) or not len(wrong):
            return None
        return np.mean([np.searchsorted(wrong, score(answer), side) for side in ("left", "right")]) / len(wrong)

    return by_question(graded, below)
