"""What a system says to a question: a model's reply with its citations read, a refusal, the true answer."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from paperwalk.papers.legal_rag.endpoint import Reply
from paperwalk.papers.legal_rag.law import Record
from paperwalk.papers.legal_rag.law_questions import Question

REFUSAL = "I cannot find this in the documents."

# How a key of each template is put in a sentence: in worked examples, and by the oracle.
SAY = {
    "owner": "Its owner is {}.",
    "law": "The law of {}.",
    "court-place": "It is a court of {}.",
    "court-end": "It was abolished in {}.",
    "reporter-end": "It was published until {}.",
    "provision": "{}.",
    "court-cite": "It is cited as {}",
    "reporter-name": "It is the {}.",
    "judge-born": "In {}.",
    "case-year": "In {}.",
}


@dataclass(frozen=True)
class Answer:
    """What a system said: text without citations, ids of the cited records, ids of the retrieved ones (best first),
    confidence (the higher the surer), error (why there is none), sentence quoted or not."""

    text: str
    cites: tuple = ()
    retrieved: tuple = ()
    confidence: float = math.nan
    error: str = ""
    quoted: bool = False


def read_answer(reply: Reply, retrieved: Sequence[Record], quoted: bool = False) -> Answer:
    """An Answer from a model's reply: its citations [n] become ids of records, or stay where there is no document n."""
    cites = [int(n) for n in re.findall(r"\[(\d+)\]", reply.text)]
    cited = [retrieved[n - 1].id if n <= len(retrieved) else f"[{n}]" for n in cites if n]
    text = re.sub(r"\s*\[\d+\]", "", reply.text).strip()
    refused = text == REFUSAL
    return Answer(
        text,
        () if refused else tuple(dict.fromkeys(cited)),
        tuple(r.id for r in retrieved),
        reply.confidence,
        reply.error,
        quoted and not refused,
    )


def oracle(question: Question) -> Answer:
    """The true answer with its authority; a refusal where there is none."""
    if not question.keys:
        return Answer(REFUSAL)
    return Answer(SAY[question.template].format(question.keys[0]), (question.subject,))
