"""Counting graded answers, and the worked examples of prompts."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from paperwalk.papers.legal_rag import counting, shots
from paperwalk.papers.legal_rag.answers import REFUSAL, Answer
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question

RECORDS = {name: Record(name, "court", f"Court {name}", f"It sits in {name}.", "test") for name in ("a", "b")}
REFUSES = re.compile("cannot find")


def asked(name, subject="a", twin="", template="court-place"):
    keys = (subject,) if subject else ()
    return Question(name, template, "general", f"Where is {name}?", "place", keys, subject, twin)


def graded(question, text, label, cites=(), retrieved=()):
    return question, Answer(text, cites, retrieved), SimpleNamespace(label=label, why="")


def test_outcomes_go_by_question_whatever_its_phrasing():
    again = replace(asked("1"), text="Where is it?")
    rows = [graded(asked("1"), "In a.", "accurate"), graded(again, "In b.", "hallucinated")]
    rows += [graded(asked("2"), "", "incomplete")]
    right = lambda question, answer, grade: grade.label == "accurate" if answer.text else None
    assert counting.by_question(rows, right) == {"general/1": 0.5}


def test_reading_is_told_from_finding_and_support_from_existence():
    false = asked("false", subject="", twin="1", template="judge-unknown")
    rows = [
        graded(asked("1"), "In b.", "hallucinated", ("b",), ("a", "b")),
        graded(asked("2"), "In a.", "hallucinated", ("b", "[7]"), ("b",)),
        graded(asked("3"), "In a.", "accurate", ("a", "b"), ("a",)),
        graded(false, "In a.", "hallucinated"),
    ]
    assert counting.by_question(rows, counting.at_hand) == {"general/1": 1, "general/2": 0}
    is_subject = lambda record, question: record.id == question.subject
    supports = lambda question, answer, grade: counting.supported(question, answer, RECORDS, is_subject)
    assert counting.by_question(rows, supports) == {"general/1": 0, "general/2": 0, "general/3": 0.5}


def test_false_premises_stand_beside_their_twins():
    twin = lambda name: replace(asked(name), category="true premise")
    false = lambda name, twin: replace(asked(name, subject="", twin=twin), category="false premise")
    rows = [graded(q, "", "") for q in (twin("1"), false("2", "1"), false("3", "1"), false("4", "9"))]
    refused = {"true premise/1": 0.0, "false premise/2": 1.0, "false premise/3": 0.5, "false premise/4": 1.0}
    ours, theirs = counting.beside_twins(rows, refused)
    assert ours == {"false premise/2": 1, "false premise/3": 0.5}  # the twin of the last was not asked
    assert theirs == {"false premise/2": 0, "false premise/3": 0}


def test_shares_below_have_the_auc_as_their_mean():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 60) / 10, rng.choice(["accurate", "hallucinated", "incomplete"], 60)
    rows = [graded(asked(f"{n}"), f"{score}", label) for n, (score, label) in enumerate(zip(scores, labels))]
    shares = counting.shares_below(rows, lambda answer: float(answer.text))
    said = labels != "incomplete"
    assert set(shares) == {f"general/{n}" for n in np.flatnonzero(labels == "accurate")}
    assert np.mean([*shares.values()]) == pytest.approx(roc_auc_score(labels[said] == "accurate", scores[said]))
    assert counting.shares_below(rows, lambda answer: math.nan) == {}
    assert counting.shares_below([graded(asked("1"), "a", "accurate")], lambda answer: 1.0) == {}


def test_excerpts_show_titles_of_what_exists():
    row = graded(asked("1"), "In b.", "hallucinated", ("b", "[7]"), ("a", "b"))
    (shown,) = counting.excerpts([asked("1")], {"naive": [row], "other": []}, RECORDS)
    assert shown["key"] == "a" and shown["question"] == "Where is 1?"
    said = {"system": "naive", "text": "In b.", "cites": ["Court b"], "retrieved": ["Court a", "Court b"]}
    assert shown["said"] == [said | {"label": "hallucinated", "why": ""}]


def test_worked_examples_take_turns_and_name_the_place_of_their_document():
    questions = [asked(f"{n}", template=f"t{n}") for n in range(4)] + [asked("not found", subject="c", template="t9")]
    questions += [asked(f"false {n}", subject="", template=f"f{n}") for n in range(3)]
    search = lambda text: [RECORDS["b"], RECORDS["a"]]
    found = shots.worked_examples(questions, 6, search, lambda question, record: record.text)
    said = [shot[2] for shot in found]
    assert said == [REFUSAL, "It sits in a. [2]"] * 2 + ["It sits in a. [2]"] * 2
    assert len({shot[0] for shot in found}) == 6
