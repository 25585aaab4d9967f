"""The benchmarks' harness: equality comes first, times are compared in turn, results replace those of the same case."""

import csv
from dataclasses import replace

import pytest

from benchmarks import harness
from benchmarks.harness import Contest, Unequal, run


def exact(name, result, reference):
    if result != reference:
        raise Unequal(f"toy: {name}: its sum is not ours")


def contest(peer, case="ten", ours=sum):
    implementations = {"paperwalk": ours, "peer": peer, "floor: nothing": lambda numbers: None}
    return Contest("toy", case, lambda: (list(range(10)),), implementations, exact, rounds=3)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    return tmp_path / "results" / "toy.csv"


def test_rows_have_times_and_ratios_to_ours(results, monkeypatch):
    now = 0.0
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now)

    def taking(warm_ups, *milliseconds):
        """sum, and the clock goes on: by nine seconds each time that it warms up, then by one of these a round."""
        left = iter([9000] * warm_ups + list(milliseconds))

        def implementation(numbers):
            nonlocal now
            now += next(left) / 1000
            return sum(numbers)

        return implementation

    ours, peer = taking(2, 20, 30, 20), taking(1, 40, 60, 80)
    rows = {row["implementation"]: row for row in run(contest(peer, ours=ours), memory=lambda contest, name: 1.5)}
    ratios = {name: [float(row[key]) for key in ("ratio_p20", "ratio", "ratio_p80")] for name, row in rows.items()}
    assert ratios["paperwalk"] == [1, 1, 1] and ratios["peer"] == [2, 2, 3.2]  # of 2, 2 and 4
    times = {name: [float(row[f"{p}_ms"]) for p in ("p20", "p50", "p80")] for name, row in rows.items()}
    assert times["paperwalk"] == [20, 20, 26] and times["peer"] == [48, 60, 72]  # none beyond what was measured
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


def test_sizes_are_columns(results):
    run(replace(contest(sum), sizes={"numbers": 10}))
    assert [row["numbers"] for row in csv.DictReader(results.open(newline=""))] == ["10"] * 3


def test_a_machine_without_git_is_measured_too(monkeypatch):
    def missing(*given, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr("subprocess.run", missing)
    assert harness.machine()["commit"] == "unknown"
