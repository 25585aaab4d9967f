"""A throw-away book: one chapter that measures next to nothing, and a scoreboard that only reports."""

import json

import nbformat
import pytest
import yaml

from paperwalk import evidence, runs
from paperwalk.data import sources
from paperwalk.evidence.records import REGISTERED
from paperwalk.runs.execution import environment

PARAMETERS = {
    "profile": {"type": "str", "help": "scale", "choices": list(runs.PROFILES)},
    "seed": {"type": "int", "help": "of everything random", "min": 0},
    "device": {"type": "str", "help": "where", "choices": ["auto", "cpu", "cuda"]},
    "steps": {"type": "int", "help": "updates", "min": 1, "max": 50},
    "warmup": {"type": "int", "help": "updates of warm-up", "min": 0, "max": "steps"},
    "text_tokens": {"type": "int", "help": "a text", "min": 2},
    "h": {"type": "int", "help": "hash context", "min": 1, "below": "text_tokens"},
    "hs": {"type": ["int"], "help": "hash contexts", "min": 1, "below": "text_tokens"},
    "share": {"type": "float", "help": "of all", "min": 0, "below": 1},
    "lr": {"type": "float", "help": "learning rate", "max": 1},
    "scale": {"type": "float", "help": "any", "below": 2.5},
    "arms": {"type": ["str"], "help": "arms", "choices": ["standard", "hash"]},
    "articles": {"type": "str", "help": "source"},
    "bf16": {"type": "bool", "help": "half precision"},
    "fail": {"type": "str", "help": "how to fail", "choices": ["no", "error", "hang", "die"]},
}

DEFAULTS = """profile = "laptop"
seed = 0
device = "auto"
steps = 4
warmup = 2
text_tokens = 96
h = 13
hs = [2, 4]
share = 0.5
lr = -0.5
scale = 1
arms = ["standard", "hash"]
articles = "wikipedia"
bf16 = False
fail = "no"
"""

CHECK = """experiment = Experiment("demo", globals())
p = experiment.p"""

MEASURE = """for step in runs.progress(range(p.steps), p.steps, "demo steps"):
    time.sleep(0.2)
"""

FAIL = """if p.fail == "error": raise ValueError("the \\x1b[31msky\\x1b[0m fell")
if p.fail == "hang": time.sleep(60)
if p.fail == "die": import os; os._exit(1)
print(runs.ROOT / "book", "\\x1b[31mred\\x1b[0m")
"""

WRITE = """experiment.record("value", "demo", None, p.seed * 10)
experiment.write()
"""

REPORT = 'sorted(evidence.values(evidence.load("demo", "evening"), "value.demo"))'


def notebook(*cells):
    """Notebook of (source, tags) cells; a cell with tags None is text."""
    made = [
        nbformat.v4.new_markdown_cell(source)
        if tags is None
        else nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {})
        for source, tags in cells
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


@pytest.fixture
def book(tmp_path):
    """Root of the throw-away book."""
    folder = tmp_path / "book"
    (folder / "demo/profiles").mkdir(parents=True)
    imports = "import time\nfrom paperwalk import evidence, runs\nfrom paperwalk.experiment import Experiment"
    demo = notebook(
        ("# Demo", None),
        (imports, ["setup"]),
        (REPORT, ["report", "hide-input"]),
        (DEFAULTS, ["parameters"]),
        (CHECK, []),
        (MEASURE, []),
        (FAIL, []),
        (WRITE, []),
    )
    nbformat.write(demo, folder / "demo.ipynb")
    nbformat.write(notebook((imports, ["setup"]), (REPORT, ["report"])), folder / "scoreboard.ipynb")
    (folder / "demo/parameters.yml").write_text(yaml.safe_dump(PARAMETERS, sort_keys=False))
    (folder / "demo/claims.yml").write_text("[]\n")
    (folder / "intro.md").write_text("# Intro\n")
    profiles = {
        "ci": {"steps": 1, "warmup": 0},
        "laptop": {},
        "evening": {},
        "gpu": {"steps": 50, "hs": [2, 50]},
        "paper": {"lr": 0.001},
    }
    for name, values in profiles.items():
        (folder / f"demo/profiles/{name}.yml").write_text(yaml.safe_dump({"profile": name} | values))
    toc = {
        "format": "jb-book",
        "root": "book/intro",
        "parts": [{"caption": "Chapters", "chapters": [{"file": "book/demo", "sections": []}]}],
        "chapters": [{"file": "book/scoreboard.ipynb"}, {"url": "https://example.org", "title": "elsewhere"}],
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    return tmp_path


@pytest.fixture
def put(book, monkeypatch):
    """put(value) writes evidence as a run of the chapter would, and returns its file."""

    monkeypatch.delenv(sources.VARIABLE, raising=False)

    def put(value, seed=100, profile="evening"):
        commit = json.dumps({"git_commit": "0" * 40, "git_dirty": False})
        with environment(**{REGISTERED: "1", "PAPERWALK_COMMIT": commit}):
            records = evidence.Records("demo", runs.profile_values("demo", profile, book) | {"seed": seed}, book)
            records.record("value", "demo", None, value)
            return records.save(complete=True)

    return put
