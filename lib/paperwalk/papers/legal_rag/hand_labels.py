"""Answers that were labelled by hand: book/legal_rag/hand_labels.jsonl, after book/legal_rag/labelling.md."""

import json
from dataclasses import dataclass
from pathlib import Path

from paperwalk.papers.legal_rag.answers import Answer
from paperwalk.papers.legal_rag.law_questions import Question


@dataclass(frozen=True)
class Labelled:
    """One answer of a system, and the label that a reader gave it: accurate, incomplete or hallucinated."""

    system: str
    question: Question
    answer: Answer
    label: str


def read(file: Path) -> list[Labelled]:
    """The labelled answers of a file with a JSON object a line."""
    out = []
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        question, answer = (_with_tuples(entry[part]) for part in ("question", "answer"))
        out.append(Labelled(entry["system"], Question(**question), Answer(**answer), entry["label"]))
    return out


def _with_tuples(fields):
    """The fields as the dataclasses hold them; JSON has lists in the place of tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
