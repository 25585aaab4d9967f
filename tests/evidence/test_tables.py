"""The HTML tables show what evidence says, with a sign besides each colour, and escape what they are given."""

import math

import pytest

from paperwalk import evidence, tables

ROW = {
    "chapter": "demo", "id": "a", "kind": "claim", "claim": "x < y & z", "where": "Table 1", "paper": "<5",
    "metric": "m", "criterion": "<= 1", "profile": "laptop", "ours": 0.25, "sd": 0.1, "low": 0.0, "high": 0.5,
    "n": 3, "verdict": "reproduced", "answer": "reproduced", "fresh": True,
}  # fmt: skip
EMPTY = ROW | {"profile": "gpu", "ours": math.nan, "sd": math.nan, "n": 0, "verdict": "not attempted"}
EMPTY |= {"answer": "not attempted"}


@pytest.fixture
def judged(monkeypatch):
    rows = [dict(ROW), dict(EMPTY)]
    monkeypatch.setattr(evidence.runs, "chapters", lambda root=None: ["demo"])
    monkeypatch.setattr(evidence, "judged", lambda chapter, root=None: rows)
    return rows


def test_comparison_sets_the_scales_side_by_side(judged):
    page = tables.comparison("demo").html
    assert "x &lt; y &amp; z" in page and "&lt;5" in page and "x < y" not in page
    assert "0.25 ± 0.1, n = 3" in page and "[0, 0.5]" in page
    assert "✔ reproduced" in page and "– not attempted at this scale" in page
    assert page.count("<tr>") == 2  # the head and one claim


def test_scoreboard_has_a_row_a_scale_and_links_to_the_chapter(judged):
    page = tables.scoreboard().html
    assert page.count("<tr>") == 3 and 'href="demo.html"' in page


def test_stale_and_never_attempted(judged):
    judged[0] |= {"answer": "partly", "fresh": False}
    judged[1] |= {"not_attempted": "no data"}
    page = tables.scoreboard().html
    assert "◐ partly (stale)" in page and "no data" in page and "at this scale" not in page


def test_questions_are_answered_and_counted_apart_from_claims(judged):
    judged += [ROW | {"kind": "question", "answer": "undecided"}, ROW | {"kind": "demonstration", "answer": "shown"}]
    assert "◐ undecided" in tables.scoreboard().html and "✔ shown" in tables.scoreboard().html
    laptop, gpu = (row.split("</td>")[2:10] for row in tables.counts().html.split("<tr>")[2:])
    numbers = [[cell.split(">")[1] for cell in cells] for cells in (laptop, gpu)]
    assert numbers == [list("10000010"), list("00010000")]  # the demonstration is no finding
