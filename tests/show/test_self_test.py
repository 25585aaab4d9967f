"""The self-test of a chapter: what may stand in its file, and how it answers in a browser."""

import re

import pytest

from paperwalk import evidence
from paperwalk.show import self_test

QUESTIONS = [
    {"question": "Is 1 < 2?", "options": ["no", "yes & always"], "answer": 1, "why": "By <definition>."},
    {"question": "And 2 < 1?", "options": ["no", "yes", "at times"], "answer": 0, "why": "By the same."},
]


@pytest.fixture
def chapter(tmp_path):
    """A function that writes a self-test as YAML and reads it."""
    (tmp_path / "book/demo").mkdir(parents=True)
    (tmp_path / "book/demo/parameters.yml").touch()
    (tmp_path / "book/demo.ipynb").touch()

    def read(text):
        (tmp_path / "book/demo/self_test.yml").write_text(text, encoding="utf8")
        return self_test.read("demo", tmp_path)

    return read


def test_a_whole_file_is_read(chapter):
    assert chapter("- {question: q, options: [a, b], answer: 1, why: w}") == [
        {"question": "q", "options": ["a", "b"], "answer": 1, "why": "w"}
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a list of at least one question"),
        ("a: [", "self_test.yml of demo: while parsing"),
        ("- {question: q, options: [a, b], answer: 1}", "question 1: missing or unknown: why"),
        ("- {question: q, options: [a, b], answer: 1, why: w, hint: h}", "missing or unknown: hint"),
        ("- q", "question 1: must be a mapping of names, is 'q'"),
        ("- {question: '', options: [a, b], answer: 1, why: w}", "question 1: question = '': must be text"),
        ("- {question: q, options: [a, b], answer: 1, why: [w]}", "question 1: why = ['w']: must be text"),
        ("- {question: q, options: a, answer: 0, why: w}", "options = 'a': must be a list"),
        ("- {question: q, options: [a], answer: 0, why: w}", "must be a list of at least two texts"),
        ("- {question: q, options: [a, 2], answer: 0, why: w}", "options = ['a', 2]: must be text; 2 is not"),
        ("- {question: q, options: [a, a], answer: 0, why: w}", "two are alike"),
        ("- {question: q, options: [a, b], answer: 2, why: w}", "answer = 2: must be a whole number from 0 to 1"),
        ("- {question: q, options: [a, b], answer: yes, why: w}", "answer = True: must be a whole number"),
    ],
)
def test_a_broken_file_is_refused_with_the_question_that_is_wrong(chapter, text, problem):
    with pytest.raises(evidence.EvidenceError, match=re.escape(problem)):
        chapter(text)


def test_a_missing_file_is_named(chapter, tmp_path):
    with pytest.raises(evidence.EvidenceError, match=r"self_test\.yml of demo: .*No such file"):
        self_test.read("demo", tmp_path)


def test_ids_repeat_and_differ_with_the_content():
    page = lambda questions: self_test.SelfTest(questions)._repr_html_()
    assert page(QUESTIONS) == page(QUESTIONS) and "&lt;definition&gt;" in page(QUESTIONS)
    name = lambda questions: re.search(r'id="(pw-self-test-\w{16})"', page(questions))[1]
    assert name(QUESTIONS) != name(QUESTIONS[:1])


@pytest.mark.browser
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_in_a_browser(browser, scripts):
    page = browser.new_page(java_script_enabled=scripts)
    page.set_content(f"<!doctype html>{self_test.SelfTest(QUESTIONS)._repr_html_()}")
    field = page.get_by_role("group").first
    button, details, said = field.get_by_role("button"), field.locator("details"), field.get_by_role("status")
    assert button.is_visible() is scripts and details.is_visible() is not scripts
    if scripts:
        button.press("Enter")
        assert said.inner_text() == "Choose an answer first."
        field.get_by_label("no").press("Space")
        button.press("Enter")
        assert said.inner_text() == "✘ Not that one. Try again."
        field.get_by_label("no").press("ArrowDown")
        assert said.inner_text() == "" and field.get_by_label("yes & always").is_checked()
        button.press("Enter")
        assert said.inner_text() == "✔ Right. By <definition>."
    else:
        details.locator("summary").click()
        assert details.inner_text().splitlines()[-1] == "By <definition>."
    page.close()
