"""The HTML tables show what evidence says, with a sign besides each colour, and escape what they are given."""

import math
import re

import pytest

from paperwalk import evidence, runs
from paperwalk.show import tables

ROW = {
    "chapter": "demo", "id": "a", "claim": "x < y & z", "source": "paper", "where": "Table 1", "paper": "<5",
    "headline": True, "section": None, "measure": "m", "arm": "b", "criterion": "<= 1", "scale": "evening",
    "ours": 0.25, "low": 0.125, "high": 0.5, "seeds": 5, "items": 96, "unit": "nats", "verdict": "holds", "fresh": True,
    "changed": False, "before": math.nan, "p": 0.01, "settled_by": "", "of_seeds": 5,
}  # fmt: skip
EMPTY = ROW | {"ours": math.nan, "low": math.nan, "high": math.nan, "seeds": 0, "items": 0, "scale": "", "before": 0.7}
EMPTY |= {"verdict": "not measured", "fresh": None, "headline": False, "source": "digest", "id": "e"}


@pytest.fixture
def judged(monkeypatch):
    rows = [dict(EMPTY), dict(ROW)]
    monkeypatch.setattr(runs, "chapters", lambda root=None: ["demo"])
    monkeypatch.setattr(evidence, "judged", lambda chapter, root=None: rows)
    return rows


def cells(page):
    return [re.findall("<td.*?</td>", row, re.S) for row in re.findall("<tr.*?</tr>", page, re.S)][1:]


def test_a_chapters_claims_headline_first_with_value_interval_and_criterion(judged):
    page = tables.comparison("demo").html
    assert "x &lt; y &amp; z" in page and "&lt;5" in page and "x < y" not in page
    first, second = cells(page)
    assert "0.25 nats" in first[2] and "[0.125, 0.5]" in first[2] and "✔ holds" in first[3]
    assert "asked: &lt;= 1; evening, 5 seeds x 96 items" in first[2] and "the paper, Table 1" in first[0]
    assert "– not measured" in second[3] and "the digest, Table 1" in second[0]


def test_superseded_figures_are_shown_as_such_beside_the_criterion_and_without_a_verdict(judged):
    del judged[1]
    page = tables.comparison("demo").html
    assert re.search(r"pw-superseded.>0\.7 <small>superseded", page) and "asked: &lt;= 1" in page
    assert "– not measured" in page and "superseded: no verdict rests on them" in page
    assert not any(sign in page for sign in "✔✘◐")


def test_dot_and_line_lie_where_the_figures_say(judged):
    at = tables._places(ROW | {"ours": 0.5, "low": 0.0, "high": 1.0, "criterion": "0 .. 0.5"})
    assert at["low"] == at["from"] and at["mean"] == at["to"] == 50 and at["low"] < 50 < at["high"]
    at = tables._places(ROW | {"criterion": ">= 0.4"})
    assert at["to"] == 100 and at["low"] < at["mean"] < at["from"] < at["high"] < 100


def test_scoreboard_has_a_row_a_claim_and_links_to_the_chapter(judged):
    judged[0] |= {"section": "what-it-costs"}
    page = tables.scoreboard().html
    assert page.count("<tr") == 3 and 'href="demo.html"' in page and 'href="demo.html#what-it-costs"' in page
    options = [re.findall("<option[^>]*>([^<]*)", inner) for inner in re.findall("<select.*?</select>", page)]
    assert options == [
        ["all", "demo"],
        ["all", "paper", "digest"],
        ["all", "holds", "not measured"],
        ["all", "headline", "other"],
    ]
    assert re.findall(r'<tr data-0="(\d)" data-1="(\d)" data-2="(\d)" data-3="(\d)">', page) == [
        ("0", "0", "0", "0"),
        ("0", "1", "1", "1"),
    ]
    assert '<input type="search" name="words">' in page


def test_stale_changed_and_open_rows_say_so(judged):
    judged[1] |= {"fresh": False, "changed": True}
    judged.append(ROW | {"verdict": "open", "settled_by": "about 9 seeds", "of_seeds": 8})
    judged.append(ROW | {"seeds": 1, "of_seeds": 1, "low": math.nan, "high": math.nan, "verdict": "open"})
    judged[0] |= {"not_measured": "no data"}
    page = tables.scoreboard().html
    assert "✔ holds (stale; criterion changed after the run)" in page and "no data" in page
    assert "◐ open" in page and "about 9 seeds would settle it" in page and "evening, 5 of 8 seeds x 96 items" in page
    assert "no interval" in page and "exact" not in page  # of one seed


def test_claims_of_the_paper_are_counted_apart(judged):
    judged += [ROW | {"source": "critic", "verdict": "fails"}, ROW | {"verdict": "open"}]
    numbers = [[re.sub("<.*?>", "", cell) for cell in row] for row in cells(tables.counts().html)]
    assert numbers == [["demo", "1 + 0", "0 + 1", "1 + 0", "0 + 1"]]


def test_verdicts_as_plain_text_say_what_would_settle_an_open_row(judged):
    judged.append(ROW | {"id": "o", "verdict": "open", "settled_by": "about 9 seeds or about 1,000 items"})
    lines = tables.verdicts("demo").splitlines()
    assert [line.split()[0] for line in lines] == ["holds", "open", "not"]
    assert "0.25 [0.125, 0.5]" in lines[0] and lines[1].endswith("about 9 seeds or about 1,000 items would settle it")


def test_what_the_fam_costs_stands_apart_from_the_contests_with_peers(tmp_path):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    lines = ["batch,tokens,block,F,D,layers,pass,implementation,p50_ms,ratio,ratio_p20,ratio_p80,device,threads,date"]
    for f, ratio in ((4, 1.25), (64, 2.5)):
        for passes, more in (("forward", 0), ("forward and backward", 0.25)):
            sizes, where = f"8,1024,64,{f},128,2,{passes}", "a <CPU>,1,2026-01-01"
            lines += [f"{sizes},BSWA,100,1,1,1,{where}", f"{sizes},TransformerFAM,150,{ratio + more},1.1,3.5,{where}"]
    (folder / "fam_cost.csv").write_text("\n".join(lines) + "\n")
    page = tables.fam_cost(tmp_path).html
    assert [cell in page for cell in ("1,024", "1.25 [1.10, 3.50]", "150 ms / 100 ms", "a &lt;CPU&gt;")] == [True] * 4
    assert "1.25 to 1.25 forward, 1.50 to 1.50 forward and backward" in page and page.count("<tr") == 3
    spans = tables.fam_cost_spans("forward and backward", tmp_path)
    assert spans == {"a <CPU>": (1.5, 1.5)}  # not where F is the block
    assert tables.benchmark_rows(tmp_path) == []


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
    alone = [f"steps,goldfish,step,9,10,11,1,,{rest}", f"steps,goldfish,floor: its products,3,5,6,0.5,,{rest}"]
    (folder / "steps.csv").write_text("\n".join([head, *alone]) + "\n")
    assert "<td>10 ms</td><td></td><td></td><td></td><td>50%</td>" in tables.performance(tmp_path).html  # no peers
    (folder / "steps.csv").unlink()
    page = tables.performance(tmp_path).html
    assert "where" in page and page.count("a &lt;CPU&gt;, 2 threads") == page.count("a GPU, 2 threads") == 1
