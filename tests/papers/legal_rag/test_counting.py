"""Counting graded answers, and the worked examples of prompts."""

import math
import re
from types import SimpleNamespace

from paperwalk.papers.legal_rag import counting, shots
from paperwalk.papers.legal_rag.answers import REFUSAL, Answer
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question

RECORDS = {name: Record(name, "court", f"Court {name}", f"It sits in {name}.", "test") for name in ("a", "b")}
REFUSES = re.compile("cannot find")


def asked(name, subject="a", twin="", template="court-place"):
    keys = (subject,) if subject else ()
    return Question(name, template, "general", f"Where is {name}?", "place", keys, subject, twin)


def graded(question, text, label, cites=(), retrieved=(), groundedness=""):
    return question, Answer(text, cites, retrieved), SimpleNamespace(label=label, groundedness=groundedness, why="")


def test_causes_tell_reading_from_finding_and_support_from_existence():
    false = asked("false", subject="", twin="1", template="judge-unknown")
    rows = [
        graded(asked("1"), "In b.", "hallucinated", ("b",), ("a", "b")),
        graded(asked("2"), "In a.", "hallucinated", ("b", "[7]"), ("b",), "misgrounded"),
        graded(asked("3"), "In a.", "accurate", ("a",), ("a",), "grounded"),
        graded(false, "In a.", "hallucinated"),
    ]
    shares = counting.causes(rows, RECORDS, lambda record, question: record.id == question.subject)
    assert shares["failure.reading"] == 1 / 2  # of two wrong answers to true premises
    assert shares["failure.premise"] == shares["failure.misgrounded"] == 1 / 3
    assert shares["citation.exists"] == 3 / 4 and shares["citation.supports"] == 1 / 3
    assert all(map(math.isnan, counting.causes([], RECORDS, lambda record, question: True).values()))


def test_premises_are_compared_with_their_twins():
    rows = [
        graded(asked("1"), "I cannot find it.", "incomplete"),
        graded(asked("2"), "In a.", "accurate"),
        graded(asked("3", subject="", twin="1"), "I cannot find it.", "accurate"),
        graded(asked("4", subject="", twin="2", template="judge-unknown"), "", "accurate"),
        graded(asked("5", subject="", twin="2", template="judge-unknown"), "In b.", "hallucinated", ("b",)),
        graded(asked("6", subject="", twin="9"), "In b.", "hallucinated"),  # its twin was not asked
    ]
    shares = counting.premises(rows, REFUSES)
    assert shares["refuses.false"] == 2 / 3 and shares["refuses.true"] == 1 / 3
    assert shares["refuses.difference"] == 2 / 3 - 1 / 3
    assert shares["premise.real-citation"] == shares["premise.judge"] == 1 / 2
    assert set(counting.premises(rows[:2], REFUSES).values()) == {0}


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
