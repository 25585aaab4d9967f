"""The answers control of the legal chapter: every system's answer with its grade, escaped, in both faces."""

import json

import pytest
from ipywidgets import SelectionSlider

from paperwalk.papers.legal_rag import controls

WIDGET = "application/vnd.jupyter.widget-view+json"
SAID = {
    "system": "naive RAG",
    "text": "It is <F.2d>.",
    "cites": ["F.2d"],
    "retrieved": ["F.2d", "F."],
    "label": "accurate",
}
QUESTIONS = [
    {
        "question": "What is <F.2d>?",
        "key": "Federal Reporter",
        "said": [
            SAID | {"why": "F.2d says so"},
            SAID
            | {"system": "closed book", "text": "", "cites": [], "retrieved": [], "label": "human", "why": "no rule"},
        ],
    },
    {"question": "When?", "key": "1924", "said": [SAID | {"label": "hallucinated", "why": "names 1925, not 1924"}]},
]


def test_a_picture_has_each_answer_with_its_grade_and_reason():
    picture = controls.answered(QUESTIONS[0])
    assert "What is &lt;F.2d&gt;?" in picture and "It is &lt;F.2d&gt;." in picture and "<F.2d>" not in picture
    assert "✔ accurate (F.2d says so)" in picture and "? needs a human (no rule)" in picture
    assert "cites: F.2d; retrieved: F.2d; F." in picture and "(no answer)" in picture
    assert "cites: nothing; retrieved: nothing" in picture
    assert "✘ hallucinated (names 1925, not 1924)" in controls.answered(QUESTIONS[1])


def test_page_and_widget_offer_every_question():
    bundle = controls.answers_control(QUESTIONS, 2, "who said what")._repr_mimebundle_()
    page = bundle["text/html"]
    data, _ = json.JSONDecoder().raw_decode(page[page.index('{"id"') :])
    assert data["values"] == [[1, 2]]
    assert data["frames"] == [controls.answered(question) for question in QUESTIONS]
    assert controls.answered(QUESTIONS[1]) in page and 'aria-label="who said what"' in page
    from ipywidgets.widgets.widget import _instances

    box = _instances[bundle[WIDGET]["model_id"]]
    assert [each.value for each in box.children if isinstance(each, SelectionSlider)] == [2]


def test_a_question_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"question = 3: must be one of \[1, 2\]"):
        controls.answers_control(QUESTIONS, 3, "who said what")
