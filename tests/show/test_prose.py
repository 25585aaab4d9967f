"""The figures that prose cites come from the results files, and a newly cited one makes the page stale."""

import nbformat
import pytest

from paperwalk import evidence, runs
from paperwalk.book import freshness
from paperwalk.show import prose

GAP = {"id": "gap", "seeds": 3, "items": 2, "ours": 0.3, "low": 0.2, "high": 0.4}
CITED = ["rouge.hash-4", "low.rouge.hash-4", "high.rouge.hash-4", "rouge.hash-4 minus control", "claim.gap"]
CITED += ["low.claim.gap", "parameter.steps", "run.minutes", "elsewhere", "rouge.nobody"]


@pytest.fixture
def glued(monkeypatch, tmp_path):
    """A chapter with two runs; {name: value} that `glue_figures` glued. `runs` may be changed before."""
    page = tmp_path / "demo.ipynb"
    text = nbformat.v4.new_markdown_cell(" ".join(f"{{glue:text}}`{name}:.2f`" for name in CITED))
    code = nbformat.v4.new_code_cell("'{glue:text}`only.code`'")
    nbformat.write(nbformat.v4.new_notebook(cells=[text, code]), page)
    found = {"judged": [GAP], "runs": [run(tmp_path / "results", value) for value in (0.2, 0.4)]}
    monkeypatch.setattr(evidence, "shown", lambda chapter: found["runs"])
    monkeypatch.setattr(evidence, "judged", lambda chapter: found["judged"])
    monkeypatch.setattr(evidence, "measures", lambda chapter: {"rouge": evidence.Measure(what="", bounds=[0, 1])})
    monkeypatch.setattr(runs, "notebook_path", lambda chapter: page)
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: found.update({name: value}))
    return found


def run(folder, value, **more):
    outcomes = {("rouge", "hash-4"): {"x": value, "y": value + 0.2}, ("rouge", "control"): {"x": 0.1, "y": 0.1}}
    meta = {"parameters": {"steps": 7}, "wall_seconds": 300 * value}
    return evidence.Run(folder / f"{value}.parquet", outcomes | more, meta)


def test_means_differences_claims_and_parameters_are_glued(glued):
    prose.glue_figures("demo")
    assert set(glued) == {"judged", "runs", *CITED} - {"elsewhere", "rouge.nobody"}
    del glued["judged"], glued["runs"]
    assert glued["rouge.hash-4"] == pytest.approx(0.4) and glued["parameter.steps"] == 7
    assert glued["rouge.hash-4 minus control"] == pytest.approx(0.3)
    assert (glued["claim.gap"], glued["low.claim.gap"]) == (0.3, 0.2)
    assert glued["run.minutes"] == pytest.approx(1.5)  # of 60 s and 120 s
    assert 0 <= glued["low.rouge.hash-4"] < 0.4 < glued["high.rouge.hash-4"] <= 1
    assert all(type(value) in (int, float) for value in glued.values())  # numpy's floats cannot be formatted


def test_of_superseded_runs_a_claim_is_what_they_had_for_it(glued, tmp_path):
    old = tmp_path / "results" / "superseded" / "2026-01-01"
    glued["judged"] = [GAP | {"seeds": 0}]
    glued["runs"] = [run(old, value) for value in (0.2, 0.4)]
    for each, had in zip(glued["runs"], (0.5, 0.7)):
        each.outcomes["claim", "gap"] = {"": had}
    prose.glue_figures("demo")
    assert glued["claim.gap"] == pytest.approx(0.6)


def test_nothing_is_glued_without_results(glued):
    glued["judged"], glued["runs"] = [], []
    prose.glue_figures("demo")
    assert set(glued) == {"judged", "runs"}


def test_citing_another_figure_makes_the_page_stale(tmp_path):
    book = tmp_path / "book"
    book.mkdir()
    page = book / "page.ipynb"

    def reported(text):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), page)
        return freshness.reported_hash(page, tmp_path)

    assert reported("a {glue:text}`x:.2f`") == reported("b {glue:text}`x:.3f`") != reported("b {glue:text}`y`")
