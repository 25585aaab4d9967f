"""Results files, intervals, verdicts and the scoreboard, on a throw-away book."""

import json
import math
import os
import subprocess

import nbformat
import pytest
import yaml

from paperwalk import evidence, runs
from paperwalk.evidence import EvidenceError

PARAMETERS = {"profile": "laptop", "seed": 0, "steps": 4}
CLAIM = {"id": "low", "kind": "claim", "claim": "It is low", "where": "Table 1", "paper": 0.1}
MEASURED = CLAIM | {"metric": "loss.a", "criterion": "<= 1", "scales": ["laptop", "gpu"]}
SKIPPED = CLAIM | {"id": "far", "claim": "It is far", "not_attempted": "no data"}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "book" / "demo"
    (folder / "profiles").mkdir(parents=True)
    code = nbformat.v4.new_code_cell('profile = "laptop"\nseed = 0\nsteps = 4', metadata={"tags": ["parameters"]})
    cells = [code, nbformat.v4.new_code_cell("x = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "book" / "demo.ipynb")
    schema = {"profile": {"type": "str"}, "seed": {"type": "int"}, "steps": {"type": "int"}}
    (folder / "parameters.yml").write_text(yaml.safe_dump(schema))
    for profile in runs.PROFILES:
        (folder / "profiles" / f"{profile}.yml").write_text(yaml.safe_dump({"profile": profile}))
    (folder / "claims.yml").write_text(yaml.safe_dump([MEASURED, SKIPPED]))
    return tmp_path


def write(root, value, seed=0, profile="laptop", **changed):
    parameters = PARAMETERS | {"profile": profile, "seed": seed} | changed
    metrics = {"loss.a": {"value": value, "unit": "nats"}}
    return evidence.write("demo", profile, seed, parameters, metrics, {"curve": [1, 2]}, 12.34, root)


def test_a_faithful_run_becomes_evidence(root):
    file = write(root, 0.5, seed=3)
    assert file == root / "book/demo/results/laptop-seed3.json"
    result = evidence.read(file)
    assert result["metrics"]["loss.a"] == {"value": 0.5, "unit": "nats"} and result["data"] == {"curve": [1, 2]}
    assert result["code_hash"] == runs.measured_hash(root / "book/demo.ipynb")
    assert result["parameters"]["seed"] == 3 and result["wall_seconds"] == 12.3
    assert result["peak_memory_bytes"] > 10**6 and result["cores"] >= 1 and result["device"]


@pytest.mark.parametrize("changed", [{"profile": "ci"}, {"steps": 5}])
def test_any_other_run_stays_out_of_the_book(root, changed):
    assert write(root, 0.5, **changed).parent == root / "_runs/demo/results"
    assert not (root / "book/demo/results").exists()


@pytest.mark.parametrize(
    "entry",
    [{"value": math.nan, "unit": ""}, {"value": math.inf, "unit": ""}, {"value": True, "unit": ""}, {"value": 1}, 1.0],
)
def test_unusable_figures_are_refused_by_name(root, entry):
    with pytest.raises(EvidenceError, match=r"metric loss\.a"):
        evidence.write("demo", "laptop", 0, PARAMETERS, {"loss.a": entry}, {}, 1.0, root)
    assert not (root / "book/demo/results").exists()


def test_a_crash_while_writing_leaves_the_old_file_whole(root, monkeypatch):
    file = write(root, 0.5)
    before = file.read_bytes()

    def crash(*arguments):
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk gone"):
        write(root, 0.7)
    assert file.read_bytes() == before and [f.name for f in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("content", ['{"schema": 1, "chap', "[]", '{"schema": 99}', ""])
def test_a_damaged_file_is_named(root, content):
    file = write(root, 0.5)
    file.write_text(content)
    with pytest.raises(EvidenceError, match=r"laptop-seed0\.json"):
        evidence.load("demo", "laptop", root)


def test_summary_against_a_table_of_t():
    s = evidence.summarise([1.0, 2.0, 4.0])
    assert s.mean == pytest.approx(7 / 3) and s.sd == pytest.approx(math.sqrt(7 / 3)) and s.n == 3
    half = 4.30265 * math.sqrt(7 / 3) / math.sqrt(3)  # t(.975) with two degrees of freedom
    assert (s.low, s.high) == (pytest.approx(7 / 3 - half, abs=1e-4), pytest.approx(7 / 3 + half, abs=1e-4))
    assert evidence.summarise([0.3, 0.3, 0.3]).low == pytest.approx(0.3)
    assert math.isnan(evidence.summarise([]).mean) and math.isnan(evidence.summarise([2.0]).low)


def test_wilson_of_34_in_202():
    low, high = evidence.wilson(34, 202)
    assert (round(100 * low, 1), round(100 * high, 1)) == (12.3, 22.6)
    with pytest.raises(ValueError, match="successes = 3"):
        evidence.wilson(3, 2)


def test_bootstrap_covers_the_mean():
    import numpy as np

    low, high = evidence.bootstrap(np.arange(50.0), statistic=np.mean)
    assert 18 < low < 24.5 < high < 31
    low, high = evidence.bootstrap(np.arange(50.0), np.arange(20.0), statistic=lambda a, b: a.mean() - b.mean())
    assert low < 15 < high


def test_equal_values_are_their_own_mean():
    for value in (0.1, 0.05, 0.8):
        s = evidence.summarise([value] * 3)
        assert (s.mean, s.low, s.high) == (value, value, value)


@pytest.mark.parametrize(
    "criterion, numbers, word",
    [
        ("<= 1", [], "not attempted"),
        ("<= 1", [0.5, 0.5, 0.5], "reproduced"),
        ("<= 1", [0.5, 0.5], "partly"),  # too few seeds
        ("<= 1", [0.1, 0.9, 1.1], "partly"),  # the interval reaches over 1
        ("<= 1", [1.1, 1.1, 1.0], "not reproduced"),
        ("> 0", [0.0, 0.0, 0.0], "not reproduced"),
        (">= 1", [1.0, 1.0, 1.0], "reproduced"),
        ("-0.1 .. 0.1", [0.05, 0.05, 0.05], "reproduced"),
        ("-0.1 .. 0.1", [0.2, 0.2, 0.2], "not reproduced"),
    ],
)
def test_verdicts(criterion, numbers, word):
    assert evidence.verdict(criterion, numbers) == word


@pytest.mark.parametrize(
    ("kind", "numbers", "word"),
    [
        ("claim", [2, 2.1, 1.9], "reproduced"),
        ("question", [2, 2.1, 1.9], "yes"),
        ("question", [0, 0.1, -0.1], "no"),
        ("question", [2, 0.5, 1.5], "undecided"),  # the mean meets it, the interval does not
        ("question", [1.5, -0.5, 0.5], "undecided"),
        ("question", [0, 0.1], "undecided"),  # too few seeds
        ("question", [], "not attempted"),
        ("demonstration", [2], "shown"),
        ("demonstration", [0], "not shown"),
    ],
)
def test_answers(kind, numbers, word):
    assert evidence.answer(kind, ">= 1", numbers) == word


@pytest.mark.parametrize("criterion", ["about 1", "1", "<= x", "0..1", ">= 1 and <= 2"])
def test_unreadable_criteria(criterion):
    with pytest.raises(EvidenceError, match="criterion"):
        evidence.meets(criterion, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": ["moon"]}, "scales = ['moon']: must be 'laptop' or 'gpu'; 'moon' is not"),
        ({"scales": []}, "scales = []: must be among laptop, gpu"),
        ({"typo": 1}, "missing or unknown: typo"),
        ({"criterion": None, "typo": 1}, "missing or unknown: criterion, typo"),
        ({"criterion": "about 1"}, "criterion 'about 1': must be like '>= 0.4' or '-0.03 .. 0.03'"),
        ({"kind": "hope"}, "kind = 'hope': must be 'claim', 'question' or 'demonstration'"),
        ({"claim": 3}, "claim = 3: must be text"),
        ({"not_attempted": "no data"}, "missing or unknown: criterion, metric, scales"),
    ],
)
def test_incomplete_claims_are_named(root, change, message):
    entry = {key: value for key, value in (MEASURED | change).items() if value is not None}
    (root / "book/demo/claims.yml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(EvidenceError) as caught:
        evidence.claims("demo", root)
    assert str(caught.value) == f"claims.yml: 'low': {message}"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([SKIPPED, MEASURED, SKIPPED], "claims.yml: 'far': stands twice"),
        ([SKIPPED, "low"], "claims.yml: 'low': must be a mapping of names, is 'low'"),
    ],
)
def test_a_list_that_is_no_list_of_different_claims_is_refused(root, entries, message):
    (root / "book/demo/claims.yml").write_text(yaml.safe_dump(entries))
    with pytest.raises(EvidenceError, match=message):
        evidence.claims("demo", root)


def test_scoreboard_has_every_claim_at_every_scale(root):
    for seed, value in enumerate([0.2, 0.3, 0.4]):
        write(root, value, seed)
    board = evidence.scoreboard(root)
    assert list(board.columns) == ["chapter", "claim", "paper", "ours", "low", "high", "n", "profile", "verdict"]
    assert len(board) == 4 and set(board["claim"]) == {"It is low", "It is far"}
    row = board[(board["claim"] == "It is low") & (board["profile"] == "laptop")].iloc[0]
    assert row["ours"] == pytest.approx(0.3) and row["n"] == 3 and row["verdict"] == "reproduced"
    assert row["low"] < 0.2 and row["high"] > 0.4
    rest = board.drop(row.name)
    assert set(rest["verdict"]) == {"not attempted"} and rest["ours"].isna().all() and (rest["n"] == 0).all()


def test_results_of_changed_parameters_are_marked_stale(root):
    for seed in range(3):
        write(root, 0.5, seed)
    (root / "book/demo/profiles/laptop.yml").write_text("profile: laptop\nsteps: 5\n")
    assert evidence.scoreboard(root)["verdict"].tolist()[0] == "reproduced (stale)"


def test_results_of_changed_code_are_marked_stale(root):
    for seed in range(3):
        write(root, 0.5, seed)
    file = root / "book/demo.ipynb"
    notebook = json.loads(file.read_text())
    notebook["cells"][1]["source"] = "x = 2"
    file.write_text(json.dumps(notebook))
    board = evidence.scoreboard(root)
    assert board["verdict"].tolist()[0] == "reproduced (stale)"
    assert evidence.status(root)["code"].tolist() == ["stale"] * 3


def test_results_of_earlier_runs_leave_the_tree_clean(tmp_path):
    git = lambda *given: subprocess.run(["git", "-C", str(tmp_path), *given], check=True, capture_output=True)
    (tmp_path / "book/demo/results").mkdir(parents=True)
    (tmp_path / "book/demo/claims.yml").write_text("[]")
    (tmp_path / "book/demo/results/laptop-seed0.json").write_text("1")
    git("init", "-q")
    git("add", "-A")
    git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "all")
    (tmp_path / "book/demo/results/laptop-seed0.json").write_text("2")
    (tmp_path / "book/demo/results/laptop-seed1.json").write_text("1")
    assert evidence.commit(tmp_path / "book/demo/results")["git_dirty"] is False
    (tmp_path / "book/demo/claims.yml").write_text("[1]")
    assert evidence.commit(tmp_path / "book/demo/results")["git_dirty"] is True
