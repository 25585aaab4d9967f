"""The HTML tables show what evidence says, with a sign besides each colour, and escape what they are given."""

import math
import re

import pytest

from paperwalk import evidence, runs
from paperwalk.show import tables

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
    monkeypatch.setattr(runs, "chapters", lambda root=None: ["demo"])
    monkeypatch.setattr(evidence, "judged", lambda chapter, root=None: rows)
    return rows


def test_comparison_sets_the_scales_side_by_side(judged):
    page = tables.comparison("demo").html
    assert "x &lt; y &amp; z" in page and "&lt;5" in page and "x < y" not in page
    assert "0.25 ± 0.1, n = 3" in page and "[0, 0.5]" in page
    assert "✔ reproduced" in page and "– not attempted at this scale" in page
    assert page.count("<tr>") == 2  # the head and one claim


def test_scoreboard_has_a_row_a_scale_and_links_to_the_chapter(judged):
    judged[1] |= {"section": "what-it-costs"}
    page = tables.scoreboard().html
    assert page.count("<tr") == 3 and 'href="demo.html"' in page and 'href="demo.html#what-it-costs"' in page


def test_scoreboard_rows_know_their_place_in_each_column_that_can_be_chosen(judged):
    judged.append(ROW | {"chapter": "other", "answer": "partly"})
    page = tables.scoreboard().html
    assert re.findall(r'<tr data-0="(\d)" data-1="(\d)" data-2="(\d)">', page) == [
        ("0", "0", "0"),
        ("0", "1", "2"),
        ("1", "0", "1"),
    ]
    options = [re.findall("<option[^>]*>([^<]*)", inner) for inner in re.findall("<select.*?</select>", page)]
    assert options == [
        ["all", "demo", "other"],
        ["all", "laptop", "gpu"],
        ["all", "reproduced", "partly", "not attempted"],
    ]


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


def test_performance_shows_the_best_peer_even_where_it_wins(tmp_path):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    head = "operation,case,implementation,p20_ms,p50_ms,p80_ms,ratio,peak_mb,rounds,device,threads,versions,date,commit"
    rest = "9,a <CPU>,2,torch 2,2026-01-01,abc"
    lines = [f"loss,k 4,paperwalk,9,10,11,1,20,{rest}", f"loss,k 4,slow peer,19,20,21,2,80,{rest}"]
    lines += [f"loss,k 4,fast peer,7,8,9,0.79,30,{rest}", f"loss,k 4,floor: products,3,4,5,0.4,10,{rest}"]
    (folder / "loss.csv").write_text("\n".join([head, *lines]) + "\n")
    page = tables.performance(tmp_path).html
    assert "fast peer: 8 ms" in page and "0.79" in page and "slow peer" not in page
    assert "20 / 30" in page and "40%" in page and "a &lt;CPU&gt;, 2 threads" in page
    assert len(tables.benchmark_rows(tmp_path)) == 4 and "where" not in page
    other = lines[0].replace("a <CPU>", "a GPU")
    (folder / "loss.csv").write_text("\n".join([head, *lines, other, lines[1].replace("a <CPU>", "a GPU")]) + "\n")
    page = tables.performance(tmp_path).html
    assert "where" in page and page.count("a &lt;CPU&gt;, 2 threads") == page.count("a GPU, 2 threads") == 1
