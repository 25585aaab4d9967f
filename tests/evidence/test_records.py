"""Results files: whole, faithful, read by pandas, taken up after a kill only where all is the same."""

import math
import os

import numpy as np
import pandas as pd
import pytest

from paperwalk import evidence, runs
from paperwalk.data import sources
from paperwalk.evidence import EvidenceError, Records, records

from .conftest import CLAIM, measured, rates, register

PARAMETERS = {"profile": "laptop", "seed": 3, "steps": 4}


def test_outcomes_come_back_as_they_were_recorded(root):
    run = Records("demo", PARAMETERS, root)
    run.record("right", "a", ["x", "y"], np.array([True, False]))
    run.record("loss", "a", None, 0.5)
    run.keep("curve", [1, 2])
    file = run.save(complete=True)
    assert file == root / "_runs/demo/results/laptop-seed3.parquet"
    read = evidence.read(file)
    assert read.outcomes == {("right", "a"): {"x": 1.0, "y": 0.0}, ("loss", "a"): {"": 0.5}}
    assert read.means == {"right.a": 0.5, "loss.a": 0.5} and read.kept == {"curve": [1, 2]}
    assert read.parameters == PARAMETERS and read.seed == 3 and read.meta["complete"]
    assert read.meta["code"] == runs.code_hash(root / "book/demo.ipynb") and read.meta["git_commit"] == "unknown"
    assert read.meta["peak_memory_bytes"] > 10**6 and read.meta["cores"] >= 1 and read.meta["device"]
    rows = pd.read_parquet(file)
    assert list(rows.columns) == ["measure", "arm", "item", "value"] and rows.value.tolist() == [1, 0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("right", "a", ["x"], [math.nan]), "measure 'right', arm 'a', item 'x': nan must be a finite number"),
        (("right", "a", ["x"], [math.inf]), "item 'x': inf must be"),
        (("right", "a", ["x", "x"], [1, 0]), "item 'x': stands twice"),
        (("right", "a", ["x", "y"], [1]), "1 values for 2 items; must be as many"),
        (("a.b", "a", ["x"], [1]), "a measure's name must not be empty or hold a point"),
        (("right", "a", ["x", "y"], [0, 1.01]), r"item 'y': 1\.01 must be from 0\.0 to 1\.0 \(claims\.yml\)"),
    ],
)
def test_what_cannot_be_an_outcome_is_refused_by_name(root, arguments, message):
    with pytest.raises(EvidenceError, match=message):
        Records("demo", PARAMETERS, root).record(*arguments)


def test_a_share_in_single_precision_may_round_out_of_its_bounds(root):
    run = Records("demo", PARAMETERS, root)
    run.record("right", "a", ["x", "y"], [np.nextafter(np.float32(1), np.float32(2)), -1e-9])
    assert evidence.read(run.save()).outcomes == {("right", "a"): {"x": 1.0, "y": 0.0}}


def test_a_crash_while_writing_leaves_the_old_file_whole(root, monkeypatch):
    file = measured(root, 100, rates(3))
    before = file.read_bytes()

    def crash(*arguments):
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk gone"):
        measured(root, 100, rates(4))
    assert file.read_bytes() == before and [f.name for f in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_damaged_file_is_named(root, cut):
    file = measured(root, 100, rates(3))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(EvidenceError, match=r"evening-seed100\.parquet"):
        evidence.load("demo", "evening", root)


@pytest.mark.parametrize("wrong", ["named for another seed", "of a trial", "of a tree that was not committed"])
def test_what_is_no_evidence_does_not_count(root, monkeypatch, wrong):
    file = measured(root, 100, rates(3))
    if wrong == "named for another seed":
        file.rename(file.with_name("evening-seed101.parquet"))
    elif wrong == "of a trial":
        file.unlink()
        Records("demo", PARAMETERS | {"profile": "evening", "seed": 100}, root).save(complete=True).rename(file)
    else:
        monkeypatch.setattr(records, "commit", lambda folder: {"git_commit": "0" * 40, "git_dirty": True})
        measured(root, 100, rates(3))
    with pytest.raises(EvidenceError, match=r"evening-seed10\d\.parquet: is of .*; remove it, or take"):
        evidence.judged("demo", root)


def test_the_last_superseded_evidence_of_a_day_is_shown(root):
    for name, successes in (("2026-01-31-10", 10), ("2026-01-31-9", 9), ("2026-01-31", 1), ("2025-12-31-11", 11)):
        file = measured(root, 100, rates(successes))
        place = file.parent / "superseded" / name / file.name
        place.parent.mkdir(parents=True)
        file.rename(place)
    assert evidence.superseded("demo", root)[0].means == {"right.a": 0.5}


def test_a_file_of_another_schema_is_refused(root, monkeypatch):
    file = measured(root, 100, rates(3))
    monkeypatch.setattr("paperwalk.evidence.records.SCHEMA", 3)
    with pytest.raises(EvidenceError, match="not a results file of schema 3"):
        evidence.read(file)


def test_a_cut_off_run_is_taken_up_with_its_finished_arms(root):
    run = Records("demo", PARAMETERS, root)
    run.record("right", "a", ["x"], [1])
    unfinished = run.save(finished="arms/a")
    assert unfinished.name == "laptop-seed3.unfinished.parquet" and not run.file.exists()
    again = Records("demo", PARAMETERS, root)
    assert again.finished == ["arms/a"] and again.mean("right", "a") == 1
    again.record("right", "b", ["x"], [0])
    assert again.save(complete=True) == run.file and not unfinished.exists()
    assert evidence.read(run.file).means == {"right.a": 1, "right.b": 0}
    assert Records("demo", PARAMETERS, root).finished == []  # a whole run is not taken up: it is begun anew


def test_claims_are_registered_as_they_stand_when_a_run_begins(root):
    run = Records("demo", PARAMETERS, root)
    before = evidence.read(run.save(finished="arms/a")).meta["claims"]
    assert before["judged"]["solved"]["criterion"] == ">= 0.5"
    register(root, CLAIM | {"criterion": ">= 0.1"})
    run.save()
    again = Records("demo", PARAMETERS, root)  # taken up after a kill
    assert evidence.read(again.save(complete=True)).meta["claims"] == before


def test_nothing_is_taken_up_across_a_change_of_code_or_data(root, tmp_path, monkeypatch):
    monkeypatch.setenv(sources.VARIABLE, str(tmp_path / "sources"))
    text = tmp_path / "text"
    text.write_text("one")
    sources.file(text)
    Records("demo", PARAMETERS, root).save(finished="arms/a")
    assert Records("demo", PARAMETERS, root).finished == ["arms/a"]
    text.write_text("two")
    assert Records("demo", PARAMETERS, root).finished == []
    text.write_text("one")
    monkeypatch.setenv("PAPERWALK_CODE", "other")
    assert Records("demo", PARAMETERS, root).finished == []


def test_evidence_lies_in_the_book_and_is_fresh_until_code_profile_or_data_change(root):
    file = measured(root, 100, rates(3))
    assert file == root / "book/demo/results/evening-seed100.parquet"
    (run,) = evidence.load("demo", "evening", root)
    assert evidence.is_fresh(run, root)
    profile = root / "book/demo/profiles/evening.yml"
    profile.write_text("profile: evening\nsteps: 5\n")
    assert not evidence.is_fresh(run, root)


def test_runs_come_by_seed(root):
    for seed in (102, 100, 101):
        measured(root, seed, rates(seed - 100))
    results = evidence.load("demo", "evening", root)
    assert [run.seed for run in results] == [100, 101, 102]
    assert (
        evidence.values(results, "right.a") == [0, 0.05, 0.1] and evidence.by_arm(results, "right", ["a", "b"])[1] == []
    )
