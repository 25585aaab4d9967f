"""The benchmarks' harness: equality comes first, times are compared in turn, results replace those of the same case."""

import csv
import time

import pytest

from benchmarks import harness
from benchmarks.harness import Contest, Unequal, run


def exact(name, result, reference):
    if result != reference:
        raise Unequal(f"toy: {name}: its sum is not ours")


def contest(peer, case="ten"):
    def slow(numbers):
        time.sleep(0.02)
        return sum(numbers)

    ours = {"paperwalk": slow, "peer": peer, "floor: nothing": lambda numbers: None}
    return Contest("toy", case, lambda: (list(range(10)),), ours, exact, rounds=3)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    return tmp_path / "results" / "toy.csv"


def test_rows_have_times_and_ratios_to_ours(results):
    def twice_as_slow(numbers):
        time.sleep(0.04)
        return sum(numbers)

    rows = {row["implementation"]: row for row in run(contest(twice_as_slow), memory=lambda contest, name: 1.5)}
    assert float(rows["paperwalk"]["ratio"]) == 1 and 1.5 < float(rows["peer"]["ratio"]) < 3
    assert 20 <= float(rows["paperwalk"]["p20_ms"]) <= float(rows["paperwalk"]["p80_ms"])
    written = list(csv.DictReader(results.open(newline="")))
    assert [row["implementation"] for row in written] == ["paperwalk", "peer", "floor: nothing"]
    assert all(row["peak_mb"] == "1.5" and row["device"] and "torch" in row["versions"] for row in written)


def test_another_result_stops_before_anything_is_timed_or_written(results):
    with pytest.raises(Unequal, match="toy: peer: its sum is not ours"):
        run(contest(lambda numbers: -1))
    assert not results.exists()


def test_a_case_replaces_itself_and_leaves_the_others(results):
    for case in ("ten", "eleven", "ten"):
        run(contest(sum, case))
    assert [row["case"] for row in csv.DictReader(results.open(newline=""))] == ["eleven"] * 3 + ["ten"] * 3


def test_a_machine_without_git_is_measured_too(monkeypatch):
    def missing(*given, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr("subprocess.run", missing)
    assert harness.machine()["commit"] == "unknown"
