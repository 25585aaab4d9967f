"""Planted errors: the oracle's answers, spoilt in ten ways after the paper's typology (its section 6.2)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from paperwalk.papers.legal_rag.answers import SAY, Answer, oracle
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question, rank
from paperwalk.papers.legal_rag.texts import sentences

KINDS = (
    "fabricated case",
    "right case, wrong proposition",
    "wrong jurisdiction",
    "superseded authority",
    "party taken for the forum",
    "fictional judge",
    "false premise accepted",
    "wrong value",
    "denied",
    "misquotation",
)
SURNAMES = ("Harlow", "Benning", "Okafor", "Lindqvist", "Marsh", "Delano")
REPORTERS = ("F.5d", "U.S.", "F. Rep. 4th", "F.3d")


def plant(
    kind: str,
    question: Question,
    questions: Sequence[Question],
    by_id: Mapping[str, Record],
    places: Callable[[str], list[str]],
) -> Answer | None:
    """The oracle's answer with an error of that kind (one of KINDS) put in, or None where there is no occasion.

    questions: all that are asked; by_id: all records; places: those that a text names.
    """
    dice = int(rank(kind, question.id)[:8], 16)
    if not question.keys:  # answered as its twin is, which exists
        twin = next(q for q in questions if q.id == question.twin)
        return oracle(twin) if kind == "false premise accepted" else None
    record = by_id[question.subject]
    if text := _wording(kind, question, questions, record, dice):
        return replace(oracle(question), text=text)
    if cited := _citation(kind, question, record, by_id, places):
        return replace(oracle(question), cites=(cited,))
    return None


def _wording(kind, question, questions, record, dice):
    """The oracle's text with an error of that kind in its words, or None where the question gives no occasion."""
    said = SAY[question.template].format(question.keys[0])
    one, two = (SURNAMES[(dice + shift) % len(SURNAMES)] for shift in (0, 1))
    if kind == "fictional judge":
        return f"{said} Judge Mortimer {one} so held."
    if kind == "fabricated case":
        reporter = REPORTERS[dice % len(REPORTERS)]
        return f"{said} See {one} v. {two}, {100 + dice % 800} {reporter} {1 + dice % 900} ({1990 + dice % 30})."
    if kind == "party taken for the forum" and question.template == "law":
        return SAY["law"].format(record.facts["owner"])
    if kind == "wrong value":
        values = {q.keys[0] for q in questions if q.template == question.template} - set(question.keys)
        nearest = min(values, key=lambda value: rank(question.id, value), default=None)
        return SAY[question.template].format(nearest) if values else None
    if kind == "denied" and question.answer in ("year", "place"):
        denied = said.replace("It was ", "It was not ").replace("It is ", "It is not ")
        return denied.replace("The law", "Not the law").replace("In ", "Not in ")
    if kind == "misquotation":
        quote = sentences(record.text)[0].rstrip(".")
        long = [word for word in quote.split() if len(word) > 4]
        return f'{said} "{quote.replace(long[dice % len(long)], "otherwise")}"' if long else None
    return None


def _citation(kind, question, record, by_id, places):
    """Id of a record that bears the true answer out wrongly in that way, or None."""

    def other(fits):
        options = [r for r in by_id.values() if r.kind == record.kind and r.id != record.id and fits(r)]
        return min(options, key=lambda r: rank(question.id, r.id)).id if options else None

    if kind == "right case, wrong proposition":
        return other(lambda r: True)
    if kind == "wrong jurisdiction" and question.answer == "place":
        return other(lambda r: question.keys[0] not in r.text and places(r.text))
    if kind == "superseded authority" and question.answer == "provision":
        return other(lambda r: r.facts.get("superseded"))
    if kind == "superseded authority" and question.template == "reporter-end":
        return other(lambda r: r.facts.get("name") == record.facts.get("name"))
    return None
