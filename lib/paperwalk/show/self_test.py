"""A chapter's self-test: questions with one right option each, answered in the page, with or without a kernel."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import StrictInt

from paperwalk import evidence, runs
from paperwalk.runs.parameters import fitted
from paperwalk.show.templates import digest, macros

_HTML = macros("self_test.html")


@dataclass
class _Question:
    """An entry of self_test.yml; answer: index of the right option, from 0."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "str_strip_whitespace": True, "str_min_length": 1}
    question: str
    options: list[str]
    answer: StrictInt
    why: str

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"options = {self.options!r}: must be a list of at least two texts")
        if len(set(self.options)) < len(self.options):
            raise ValueError(f"options = {self.options!r}: two are alike")
        if not 0 <= self.answer < len(self.options):
            raise ValueError(f"answer = {self.answer!r}: must be a whole number from 0 to {len(self.options) - 1}")


class SelfTest:
    """Shows as HTML that needs no kernel and no network; without a script the answers can be unfolded."""

    def __init__(self, questions: list[dict]):
        self.questions = questions

    def _repr_html_(self) -> str:
        return str(_HTML.self_test(f"pw-self-test-{digest(self.questions)}", self.questions))

    def __repr__(self) -> str:
        return f"{len(self.questions)} questions"


def show(chapter: str, root: Path | None = None) -> SelfTest:
    """The self-test of book/<chapter>/self_test.yml."""
    return SelfTest(read(chapter, root))


def read(chapter: str, root: Path | None = None) -> list[dict]:
    """The questions of book/<chapter>/self_test.yml: [{question, options, answer, why}], found complete.

    Raises EvidenceError naming file and question where a field is missing, unknown or of the wrong kind, where options
    are fewer than two or alike, or where the answer is none of them.
    """
    file = runs.notebook_path(chapter, root).with_suffix("") / "self_test.yml"
    try:
        questions = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise evidence.EvidenceError(f"{file.name} of {chapter}: {' '.join(str(error).split())}") from error
    if not isinstance(questions, list) or not questions:
        raise evidence.EvidenceError(f"{file.name} of {chapter}: must be a list of at least one question")
    for number, question in enumerate(questions, 1):
        fitted(_Question, question, f"{file.name} of {chapter}: question {number}", evidence.EvidenceError)
    return questions
