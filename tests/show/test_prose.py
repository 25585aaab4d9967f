"""The figures that prose cites come from the results files, and a newly cited one makes the page stale."""

import nbformat
import pytest

from paperwalk import evidence, runs
from paperwalk.show import prose


@pytest.fixture
def glued(monkeypatch, tmp_path):
    """A chapter with two seeds of results; {name: value} that `glue_figures` glued."""
    text = "{glue:text}`rouge.hash-4:.2f` of {glue:text}`low.rouge.hash-4` to {glue:text}`high.rouge.hash-4:.1f`, "
    text += "{glue:text}`parameter.steps`, {glue:text}`run.minutes`, {glue:text}`elsewhere`"
    page = tmp_path / "demo.ipynb"
    code = nbformat.v4.new_code_cell("'{glue:text}`only.code`'")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), code]), page)
    results = [
        {
            "parameters": {"steps": 7},
            "wall_seconds": 300 * value,
            "metrics": {"rouge.hash-4": {"value": value, "unit": "1"}},
        }
        for value in (0.2, 0.4)
    ]
    monkeypatch.setattr(evidence, "load", lambda chapter, profile: results if profile == "laptop" else [])
    monkeypatch.setattr(runs, "notebook_path", lambda chapter: page)
    found = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: found.update({name: value}))
    return found


def test_mean_interval_and_parameters_are_glued(glued):
    prose.glue_figures("demo")
    assert set(glued) == {"rouge.hash-4", "low.rouge.hash-4", "high.rouge.hash-4", "parameter.steps", "run.minutes"}
    assert glued["rouge.hash-4"] == pytest.approx(0.3) and glued["parameter.steps"] == 7
    assert glued["run.minutes"] == pytest.approx(1.5)  # of 60 s and 120 s
    assert glued["low.rouge.hash-4"] < 0.2 < 0.4 < glued["high.rouge.hash-4"]
    assert all(type(value) in (int, float) for value in glued.values())  # numpy's floats cannot be formatted


def test_nothing_is_glued_without_results(glued):
    prose.glue_figures("demo", "gpu")
    assert glued == {}


def test_citing_another_figure_makes_the_page_stale(tmp_path):
    book = tmp_path / "book"
    book.mkdir()
    page = book / "page.ipynb"

    def reported(text):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), page)
        return runs.reported_hash(page, tmp_path)

    assert reported("a {glue:text}`x:.2f`") == reported("b {glue:text}`x:.3f`") != reported("b {glue:text}`y`")
