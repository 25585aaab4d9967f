"""The texts that the chapters read: fetched and cleaned before a run, or for a machine without a network."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from paperwalk import runs
from paperwalk.data import corpora

CORPORA = ("books", "wikipedia")  # of several chapters; others name theirs in papers/<chapter>/prefetch.py


def cached(root: Path | None = None) -> Iterator[Path]:
    """Files of the cache with the cleaned texts, made if need be: the corpora, and what `cached()` of a chapter's
    module paperwalk.papers.<chapter>.prefetch names, where there is one. Raises CorpusError for what cannot be had."""
    yield from map(corpora.cleaned, CORPORA)
    for chapter in runs.chapters(root):
        if (Path(__file__).parents[1] / "papers" / chapter / "prefetch.py").exists():
            yield from importlib.import_module(f"paperwalk.papers.{chapter}.prefetch").cached()
