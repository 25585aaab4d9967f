"""The live control of the legal chapter: what each system retrieved, said and cited, and how that was graded."""

from collections.abc import Sequence

from paperwalk.show.controls import Slider, sliders
from paperwalk.show.figures import Display
from paperwalk.show.templates import macros

_VIEW = macros("answers.html", __file__)
_SIGNS = {"accurate": "✔", "incomplete": "◐", "hallucinated": "✘", "human": "?"}


def answers_control(questions: Sequence[dict], start: int, alt: str) -> Display:
    """Show what systems answered to a question, and their grades, with a slider for the question.

    questions: dicts of `question`, `key` and `said`, a list of dicts of `system`, `text`, `label` (one of the signs'
    names), `why`, and lists of titles `cites` and `retrieved`. start: number of the question shown first, from 1;
    alt: says what the control shows. Raises ValueError for a start that is not among them.
    """
    moved = [Slider("question", range(1, len(questions) + 1), start)]
    return sliders("pw-answers", _VIEW, moved, lambda number: answered(questions[number - 1]), alt)


def answered(asked: dict) -> str:
    """One picture: the question, its key, and each system's answer with its grade."""
    said = [answer | {"sign": _SIGNS[answer["label"]]} for answer in asked["said"]]
    return _VIEW.picture(asked["question"], asked["key"], said)
