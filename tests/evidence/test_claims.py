"""Claims and verdicts: the rule, contrasts, one row a claim, what is said of changes after the run."""

import math

import numpy as np
import pytest

from paperwalk import evidence
from paperwalk.evidence import Estimate, EvidenceError
from paperwalk.evidence.claims import COLUMNS

from .conftest import CLAIM, measured, rates, register


def outcome(mean, low, high, seeds=3):
    return Estimate(mean, low, high, seeds, 10)


@pytest.mark.parametrize(
    ("criterion", "measured_as", "word"),
    [
        ("<= 1", outcome(0.5, 0.2, 0.9), "holds"),
        ("<= 1", outcome(0.5, 0.2, 1.0), "holds"),
        ("<= 1", outcome(0.5, 0.2, 1.1), "open"),
        ("<= 1", outcome(1.2, 0.9, 1.5), "open"),  # the mean misses it, the interval does not
        ("<= 1", outcome(1.5, 1.1, 1.9), "fails"),
        ("< 1", outcome(0.5, 0.2, 1.0), "open"),
        ("< 1", outcome(1.5, 1.0, 1.9), "fails"),
        ("> 0", outcome(-0.1, -0.2, 0.0), "fails"),
        (">= 1", outcome(1.5, 1.0, 2.0), "holds"),
        ("-0.1 .. 0.1", outcome(0, -0.1, 0.1), "holds"),
        ("-0.1 .. 0.1", outcome(0.2, 0.05, 0.3), "open"),
        ("-0.1 .. 0.1", outcome(0.2, 0.11, 0.3), "fails"),
        ("-0.1 .. 0.1", outcome(-0.2, -0.3, -0.11), "fails"),
        ("<= 1", outcome(0.5, 0.2, 0.9, seeds=2), "open"),  # too few
        ("<= 1", outcome(0.5, math.nan, math.nan), "open"),
        ("<= 1", Estimate(math.nan, math.nan, math.nan, 0, 0), "not measured"),
    ],
)
def test_the_rule(criterion, measured_as, word):
    assert evidence.verdict(criterion, measured_as) == word


def test_what_is_computed_exactly_is_judged_by_its_value():
    assert evidence.verdict("<= 1", outcome(1, math.nan, math.nan, seeds=1), exact=True) == "holds"
    assert evidence.verdict("< 1", outcome(1, math.nan, math.nan, seeds=1), exact=True) == "fails"


def test_a_contrast_is_paired_by_item_and_takes_what_both_arms_have(root):
    for seed in (100, 101):
        a = {"x": 1.0, "y": 3.0, "z": 100.0}
        measured(root, seed, {("loss", "a"): a, ("loss", "b"): {"x": 0.5, "y": 2.0}})
    results = evidence.load("demo", "evening", root)
    assert evidence.contrast(results, "loss", "a", "b").mean == 0.75
    assert evidence.contrast(results, "loss", "a", "b").items == 2
    assert evidence.contrast(results, "loss", "c").seeds == 0


def test_differences_that_happen_to_be_0_or_1_are_no_rate(root):
    for seed in (100, 101, 102):
        better = {f"i{i}": float(i == 0) for i in range(5)}
        measured(root, seed, {("right", "a"): better, ("right", "b"): dict.fromkeys(better, 0.0)})
    found = evidence.contrast(evidence.load("demo", "evening", root), "right", "a", "b", bounds=(0, 1))
    assert found.low <= 0 < found.mean  # one better item of five, and none worse, decides nothing


def test_a_seed_whose_arms_have_no_item_in_common_counts_as_one_that_lacks_an_arm(root):
    register(root, CLAIM | {"measure": "loss", "minus": "b", "criterion": "<= 0"})
    measured(root, 100, {("loss", "a"): {"x": 1.0}, ("loss", "b"): {"y": 1.0}})
    measured(root, 101, {("loss", "a"): {"x": 1.0}, ("loss", "b"): {"x": 3.0}})
    (row,) = evidence.judged("demo", root)
    assert (row["ours"], row["seeds"], row["of_seeds"]) == (-2, 1, 2)


def test_among_takes_the_items_of_a_stratum(root):
    measured(root, 100, {("loss", "a"): {"false/judge/1": 1.0, "false/case/1": 3.0, "falsehood/1": 9.0, "true/1": 5.0}})
    results = evidence.load("demo", "evening", root)
    assert evidence.contrast(results, "loss", "a", among="false").mean == 2
    assert evidence.contrast(results, "loss", "a", among="false/judge").mean == 1
    assert evidence.contrast(results, "loss", "a", among="judge").seeds == 0


def test_a_row_a_claim_with_the_columns_that_others_rely_on(root):
    register(
        root,
        CLAIM,
        {k: v for k, v in CLAIM.items() if k not in ("measure", "arm", "criterion")}
        | {"id": "far", "not_measured": "no data"},
    )
    for seed in range(100, 105):
        measured(root, seed, rates(18))
    board = evidence.scoreboard(root)
    assert list(board.columns) == COLUMNS
    solved, far = board.to_dict("records")
    assert (
        solved["verdict"] == "holds"
        and solved["ours"] == pytest.approx(0.9)
        and 0.5 < solved["low"] < 0.9 < solved["high"] < 1
    )
    assert (solved["seeds"], solved["items"], solved["scale"], solved["criterion"]) == (5, 20, "evening", ">= 0.5")
    assert solved["fresh"] is True and solved["headline"] is True and solved["paper"] == "0.9"
    assert far["verdict"] == "not measured" and math.isnan(far["ours"]) and far["seeds"] == 0 and far["scale"] == ""


def test_every_verdict_of_random_evidence_is_that_of_the_rule_and_no_interval_leaves_its_bounds(root):
    rng = np.random.default_rng(0)
    claims = [
        CLAIM | {"id": f"{a}{b}{c}", "arm": a, "minus": b, "criterion": c}
        for a in "ab"
        for b in (None, "c")
        for c in (">= 0.1", "< 0.4", "-0.1 .. 0.5")
    ]
    register(root, *claims)
    for seed in range(100, 104):
        outcomes = {
            ("right", arm): {f"i{i}": float(rng.random() < p) for i in range(30)}
            for arm, p in (("a", 0.02), ("b", 0.5), ("c", 0.3))
        }
        measured(root, seed, outcomes)
    for row in evidence.judged("demo", root):
        low = -1 if row["minus"] else 0
        assert low <= row["low"] <= row["ours"] <= row["high"] <= 1
        inside = [evidence.meets(row["criterion"], x) for x in np.linspace(row["low"], row["high"], 101)]
        assert row["verdict"] == ("holds" if all(inside) else "open" if any(inside) else "fails")
        assert bool(row["settled_by"]) == (row["verdict"] == "open")


def test_the_largest_scale_that_measured_a_claim_is_shown_and_only_that(root):
    for seed in range(100, 103):
        measured(root, seed, rates(2))
        measured(root, seed, rates(20), profile="gpu")
    (row,) = evidence.judged("demo", root)
    assert (row["scale"], row["verdict"], row["ours"]) == ("gpu", "holds", 1.0)


def test_a_larger_scale_with_too_few_seeds_does_not_hide_what_a_smaller_one_decides(root):
    for seed in range(100, 103):
        measured(root, seed, rates(20))
    measured(root, 100, rates(2), profile="gpu")
    (row,) = evidence.judged("demo", root)
    assert (row["scale"], row["verdict"]) == ("evening", "holds")
    assert [run.profile for run in evidence.shown("demo", root)] == ["evening"] * 3


def test_arms_of_a_run_that_is_not_yet_whole_count(root):
    register(root, CLAIM, CLAIM | {"id": "other", "arm": "b"})
    for seed in range(100, 103):
        measured(root, seed, rates(20), complete=False)
    solved, other = evidence.judged("demo", root)
    assert solved["verdict"] == "holds" and other["verdict"] == "not measured"


def test_a_criterion_that_changed_after_the_run_is_said(root):
    for seed in range(100, 103):
        measured(root, seed, rates(18))
    (row,) = evidence.judged("demo", root)
    assert not row["changed"]
    register(root, CLAIM | {"criterion": ">= 0.6"}, CLAIM | {"id": "later"})
    assert [row["changed"] for row in evidence.judged("demo", root)] == [True, True]
    register(root, CLAIM | {"claim": "The same in better words"})
    assert not evidence.judged("demo", root)[0]["changed"]
    register(root, CLAIM, right={"what": "the same", "bounds": [0, 2]})  # from which the interval follows
    assert evidence.judged("demo", root)[0]["changed"]


def test_a_claim_that_was_taken_out_after_the_run_is_said(root):
    for seed in range(100, 103):
        measured(root, seed, rates(18))
    out = {key: value for key, value in CLAIM.items() if key not in ("measure", "arm", "criterion")}
    register(root, out | {"not_measured": "we would rather not"}, out | {"id": "far", "not_measured": "no data"})
    assert [row["changed"] for row in evidence.judged("demo", root)] == [True, False]
    register(root)
    (row,) = evidence.judged("demo", root)
    assert row["id"] == "solved" and row["verdict"] == "not measured" and row["changed"]
    assert "registered before the runs, then removed" in row["claim"]


def test_stale_evidence_is_told_from_fresh(root):
    for seed in range(100, 103):
        measured(root, seed, rates(18))
    notebook = root / "book/demo.ipynb"
    notebook.write_text(notebook.read_text().replace("x = 1", "x = 2"))
    assert evidence.scoreboard(root)["fresh"].tolist() == [False]


def test_superseded_evidence_gives_no_verdict(root):
    for seed in range(100, 103):
        measured(root, seed, rates(18) | {("claim", "solved"): {"": 0.9}})
    notebook = root / "book/demo.ipynb"
    notebook.write_text(notebook.read_text().replace("x = 1", "x = 2"))
    moved = evidence.supersede("demo", "evening", "the code was wrong", root)
    assert all(file.exists() for file in moved) and not evidence.load("demo", "evening", root)
    (row,) = evidence.judged("demo", root)
    assert row["verdict"] == "not measured" and math.isnan(row["ours"]) and row["before"] == pytest.approx(0.9)
    assert [run.superseded for run in evidence.shown("demo", root)] == [True] * 3
    readme = (root / "book/demo/results/superseded/README.md").read_text()
    assert "evening, seeds 100, 101, 102. the code was wrong" in readme


def test_an_exact_value_has_no_interval_and_must_repeat(root):
    register(root, CLAIM | {"exact": True})
    for seed in range(100, 102):
        measured(root, seed, {("right", "a"): {"": 0.75}})
    (row,) = evidence.judged("demo", root)
    assert row["verdict"] == "holds" and math.isnan(row["low"])
    measured(root, 102, {("right", "a"): {"": 0.5}})
    with pytest.raises(EvidenceError, match=r"exact, but runs have \[0\.5, 0\.75\]"):
        evidence.judged("demo", root)


def test_headline_rows_stand_together(root):
    register(root, CLAIM, CLAIM | {"id": "no", "criterion": ">= 0.99"}, CLAIM | {"id": "minor", "headline": False})
    for seed in range(100, 105):
        measured(root, seed, rates(14 + seed % 3))
    assert evidence.together(evidence.judged("demo", root)) == (2, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"criterion": "about 1"}, "'solved': criterion 'about 1': must be like"),
        ({"criterion": "0.03 .. -0.03"}, "'solved': criterion '0.03 .. -0.03': must be like"),
        ({"measure": "speed"}, "'solved': measure = 'speed': must be one of right, loss"),
        ({"source": "rumour"}, "'solved': source = 'rumour': must be"),
        ({"metric": "m"}, "'solved': missing or unknown: metric"),
        ({"arm": None}, "'solved': arm = None: must be text"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_named(root, changed, message):
    register(root, CLAIM | changed)
    with pytest.raises(EvidenceError, match=message):
        evidence.claims("demo", root)


def test_a_claim_stands_once(root):
    register(root, CLAIM, CLAIM)
    with pytest.raises(EvidenceError, match="'solved': stands twice"):
        evidence.claims("demo", root)
