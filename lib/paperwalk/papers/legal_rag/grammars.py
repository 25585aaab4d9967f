"""What the local model may write, as grammars of llama.cpp (GBNF)."""

import json
from collections.abc import Sequence

from paperwalk.papers.legal_rag.answers import REFUSAL
from paperwalk.papers.legal_rag.texts import sentences


def words_grammar(k: int) -> str:
    """A refusal, or a sentence that ends in the number of one of k documents."""
    return f'root ::= "{REFUSAL}" | [^\\n\\[\\]]{{1,120}} " [" [1-{k}] "]"'


def quotes_grammar(documents: Sequence[str]) -> str:
    """A refusal, or one sentence of a document, word for word, and the document's number from 1."""
    said = [f"{s} [{n}]" for n, text in enumerate(documents, 1) for s in sentences(text) if s.strip()]
    return "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in [REFUSAL, *said])
