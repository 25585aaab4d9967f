"""A chapter's self-test: questions with one right option each, answered in the page, with or without a kernel."""

import hashlib
import html
import json

import yaml

from paperwalk import evidence, runs

_CSS = """
.pw-self-test fieldset { border: 1px solid #8888; border-radius: .4em; margin: 0 0 1em; padding: .4em 1em .8em;
  min-width: 0; }
.pw-self-test legend { float: left; width: 100%; font-weight: 600; font-size: 1em; margin: .3em 0 .5em; padding: 0; }
.pw-self-test label { display: flex; gap: .6em; align-items: baseline; clear: both; padding: .2em 0; }
.pw-self-test button { font: inherit; color: inherit; background: none; border: 1px solid currentColor;
  border-radius: .3em; margin: .5em 0 0; padding: .25em .9em; cursor: pointer; }
.pw-self-test [role="status"]:empty { display: none; }
.pw-self-test [role="status"] { margin: .6em 0 0; }
.pw-self-test details { clear: both; margin-top: .5em; }
.pw-self-test [hidden] { display: none; }
"""

_SCRIPT = """
(() => {
  for (const field of document.getElementById(ID).querySelectorAll("fieldset")) {
    const said = field.querySelector("[role=status]"), answer = field.querySelector("details");
    const button = field.querySelector("button");
    button.addEventListener("click", () => {
      const chosen = field.querySelector("input:checked");
      if (!chosen) said.textContent = "Choose an answer first.";
      else if (chosen.value === button.value) said.textContent = `✔ Right. ${answer.lastElementChild.textContent}`;
      else said.textContent = "✘ Not that one. Try again.";
    });
    field.addEventListener("change", () => said.textContent = "");
    button.hidden = false;
    answer.hidden = true;
  }
})();
"""


class SelfTest:
    """Shows as HTML that needs no kernel and no network; without a script the answers can be unfolded."""

    def __init__(self, questions: list[dict]):
        self.questions = questions

    def _repr_html_(self):
        digest = hashlib.sha256(json.dumps(self.questions).encode()).hexdigest()[:16]
        name = f"pw-self-test-{digest}"
        fields = "".join(_field(question, f"{name}-{n}") for n, question in enumerate(self.questions))
        return (
            f'<div class="pw-self-test tex2jax_ignore mathjax_ignore" id="{name}"><style>{_CSS}</style>{fields}'
            f"<script>{_SCRIPT.replace('ID', json.dumps(name))}</script></div>"
        )

    def __repr__(self):
        return f"{len(self.questions)} questions"


def show(chapter: str, root=None) -> SelfTest:
    """The self-test of book/<chapter>/self_test.yml."""
    return SelfTest(read(chapter, root))


def read(chapter: str, root=None) -> list[dict]:
    """The questions of book/<chapter>/self_test.yml: [{question, options, answer, why}], found complete.

    answer: index of the right option, from 0. Raises EvidenceError naming file and question where a field is missing,
    unknown or of the wrong kind, where options are fewer than two or alike, or where the answer is none of them.
    """
    file = runs.notebook_path(chapter, root).with_suffix("") / "self_test.yml"
    try:
        questions = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise evidence.EvidenceError(f"{file.name} of {chapter}: {' '.join(str(error).split())}") from error
    if not isinstance(questions, list) or not questions:
        raise evidence.EvidenceError(f"{file.name} of {chapter}: must be a list of at least one question")
    for number, question in enumerate(questions, 1):
        if problem := _problem(question):
            raise evidence.EvidenceError(f"{file.name} of {chapter}: question {number}: {problem}")
    return questions


def _problem(question) -> str | None:
    """What is wrong with an entry, in words."""
    fields = {"question", "options", "answer", "why"}
    if not isinstance(question, dict) or set(question) != fields:
        return f"must have exactly the fields {', '.join(sorted(fields))}"
    texts = [question["question"], question["why"]]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return "question and why must be text"
    options = question["options"]
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(option, str) for option in options):
        return f"options = {options!r}: must be a list of at least two texts"
    if len(set(options)) < len(options):
        return f"options = {options!r}: two are alike"
    answer = question["answer"]
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        return f"answer = {answer!r}: must be a whole number from 0 to {len(options) - 1}"
    return None


def _field(question, name) -> str:
    options = "".join(
        f'<label><input type="radio" name="{name}" value="{n}"><span>{html.escape(option)}</span></label>'
        for n, option in enumerate(question["options"])
    )
    right = html.escape(question["options"][question["answer"]])
    return (
        f"<fieldset><legend>{html.escape(question['question'])}</legend>{options}"
        f'<button type="button" value="{question["answer"]}" hidden>Check</button><p role="status"></p>'
        f"<details><summary>Answer</summary><p>{right}</p><p>{html.escape(question['why'])}</p></details></fieldset>"
    )
