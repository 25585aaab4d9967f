"""Shares of the paper's tools and of our systems, from runs with single outcomes and from runs that left means."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from paperwalk.evidence import Run
from paperwalk.papers.legal_rag import shown

COUNTS = {"Lexis+ AI": (131, 37, 34)}
ITEMS = [f"{category}/owner/{n}" for category in ("general", "recall") for n in range(10)]


def run(seed, outcomes):
    return Run(
        Path(f"seed{seed}.parquet"),
        outcomes,
        {"kept": {"curves": {name: [[0.1] * 6, [0.2] * 6] for name in shown.RISKS}}},
    )


@pytest.fixture
def runs():
    accurate = {item: float(item.startswith("recall") or item[-1] in "02468") for item in ITEMS}
    rest = {item: 1 - value for item, value in accurate.items()}
    of = {
        "accurate": accurate,
        "incomplete": dict.fromkeys(ITEMS, 0.0),
        "hallucinated": rest,
        "human": dict.fromkeys(ITEMS, 0.0),
    }
    return [run(n, {(label, name): of[label] for label in of for name in shown.SYSTEMS}) for n in range(2)]


def test_the_table_has_categories_and_intervals_where_outcomes_are_known(runs):
    table = shown.table_of_shares(runs, COUNTS)
    assert table.loc["Lexis+ AI (paper)", "all"] == "65 / 18 / 17 [12-23]"
    assert table.loc["hybrid RAG", "recall"].startswith("100 / 0 / 0 [0-")
    assert table.loc["hybrid RAG", "all"].startswith("75 / 0 / 25 [")
    assert list(table.columns) == ["all", "general", "recall"] and table.loc["search engine, all", "all"] == ""
    assert shown.table_of_shares([], COUNTS) is None


def test_means_alone_have_neither():
    labels = dict(zip(shown.COLOURS, (0.4, 0.3, 0.2, 0.1)))
    means = [
        run(n, {(label, "hybrid RAG"): {"": value + n / 100} for label, value in labels.items()}) for n in range(2)
    ]
    table = shown.table_of_shares(means, COUNTS)
    assert list(table.columns) == ["all"] and table.loc["hybrid RAG", "all"] == "40 / 30 / 20"


def test_bars_lines_and_squares_are_drawn(runs):
    bars = shown.stacked_shares(runs, COUNTS).axes[0]
    assert len(bars.get_yticklabels()) == len(COUNTS) + len(shown.SYSTEMS)
    risks = shown.risk_by_coverage(runs, COUNTS).axes[0]
    assert len(risks.lines) == len(runs) * len(shown.RISKS) + len(COUNTS)
    x, y = (float(values[0]) for values in risks.lines[-1].get_data())
    assert (x, y) == pytest.approx(((131 + 34) / 202, 34 / (131 + 34)))
    plt.close("all")
