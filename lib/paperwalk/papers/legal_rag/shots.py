"""Worked examples for prompts with documents, from held-out questions."""

import itertools
from collections.abc import Callable, Sequence

from paperwalk.papers.legal_rag.answers import REFUSAL
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question, rank

Shot = tuple[str, list[Record], str]  # question, documents, answer with the number of its document


def worked_examples(
    questions: Sequence[Question],
    n: int,
    search: Callable[[str], list[Record]],
    say: Callable[[Question, Record], str | None],
) -> list[Shot]:
    """n shots, if there are so many, of questions that are found: answers and refusals by turns, a template once.

    search: records for a question's text, best first. say: the answer to a question from its record, or None where the
    record does not serve.
    """
    shots, seen = [], set()
    for q in sorted(questions, key=lambda q: (bool(q.keys), rank("shot", q.id))):
        retrieved = search(q.text)
        at = next((i for i, r in enumerate(retrieved, 1) if r.id == q.subject), None)
        if q.template in seen or (q.keys and not at):
            continue
        seen.add(q.template)
        said = say(q, retrieved[at - 1]) if at else REFUSAL
        if said:
            shots.append((q.text, retrieved, f"{said} [{at}]" if at else said))
    refusals = [shot for shot in shots if shot[2] == REFUSAL]
    answers = [shot for shot in shots if shot[2] != REFUSAL]
    turns = itertools.zip_longest(refusals[: n // 2 - 1], answers)
    return [shot for pair in turns for shot in pair if shot][:n]
