"""`paperwalk plan` against steps that were really trained: benchmarks/results/plan.csv, within the tolerance."""

import itertools
import json

import pytest

from benchmarks import plan as benchmark
from paperwalk import costs

pytestmark = pytest.mark.full

ROWS = costs.checks()
OFF = pytest.approx


def test_two_sizes_of_two_profiles_were_measured():
    assert [(row["profile"], json.loads(row["changed"])) for row in ROWS] == benchmark.CASES
    assert benchmark.TOLERANCE == 0.15


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['profile']}-{row['parameters']}")
def test_memory_is_within_the_tolerance_and_the_prediction_is_todays(row):
    training, _ = benchmark.training_of(row["profile"], json.loads(row["changed"]))
    count = costs.count(training, training.rows, longest=True)
    assert count.parameters == int(row["parameters"])
    assert count.flops / 1e9 == OFF(float(row["gflop"]), rel=1e-3)
    assert count.peak_bytes / 1e6 == OFF(float(row["memory_predicted"]), rel=0.01)  # versions of torch differ a little
    assert float(row["memory_predicted"]) == OFF(float(row["memory_measured"]), rel=benchmark.TOLERANCE)


def test_from_a_width_on_the_ratio_of_times_is_within_the_tolerance():
    judged = []
    for first, second in itertools.pairwise(ROWS):
        if first["profile"] != second["profile"]:
            continue
        measured = float(second["p50_seconds"]) / float(first["p50_seconds"])
        predicted = float(second["gflop"]) / float(first["gflop"])
        assert measured > 1.2  # else any guess near 1 would do
        assert float(second["time_measured"]) == OFF(measured, rel=2e-3)
        assert float(second["time_predicted"]) == OFF(predicted, rel=2e-3)
        if json.loads(first["changed"]).get("d_model", benchmark.WIDE) >= benchmark.WIDE:
            judged.append(second["profile"])
            assert predicted == OFF(measured, rel=benchmark.TOLERANCE)
    assert judged == ["gpu", "paper"]
