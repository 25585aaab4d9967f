"""What the page shows of measured runs: shares of the paper's tools beside those of our systems."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from paperwalk import evidence
from paperwalk.evidence import Run
from paperwalk.show.figures import PALETTE

SYSTEMS = ("closed book", "naive RAG", "hybrid RAG", "RAG that quotes", "verified RAG", "search engine")
CATEGORIES = ("all", "general", "jurisdiction", "recall", "false premise", "true premise")
COLOURS = {"accurate": "green", "incomplete": "orange", "hallucinated": "vermillion", "human": "purple"}
RISKS = {"naive RAG": "orange", "hybrid RAG": "blue", "RAG that quotes": "green", "search engine": "purple"}

Counts = Mapping[str, tuple[int, int, int]]  # tool -> (accurate, incomplete, hallucinated) of its answers


def tool_intervals(counts: Counts) -> Figure:
    """Wilson's interval of each tool's hallucinated answers: of all answers, and of those that say something."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 2.9), sharey=True)
    for ax, answered_only in zip(axes, (False, True)):
        for row, (right, unsure, wrong) in enumerate(counts.values()):
            n = right + wrong if answered_only else right + unsure + wrong
            low, high = evidence.wilson(wrong, n)
            ax.hlines(row, low, high, color="black", linewidth=2)
            ax.plot(wrong / n, row, "o", color=PALETTE["vermillion"], markersize=8)
        of = "what it answers" if answered_only else "all answers"
        ax.set(xlim=(0, 0.65), xlabel=f"hallucinated, of {of}")
    axes[0].set_yticks(range(len(counts)), list(counts))
    axes[0].invert_yaxis()
    return fig


def stacked_shares(results: Sequence[Run], counts: Counts) -> Figure:
    """A bar of the four labels' shares for each of the paper's tools, above a line, and for each of our systems."""
    fig, ax = plt.subplots(figsize=(10, 4.6))
    stacks = {f"{tool} (paper)": [c / sum(count) for c in count] + [0] for tool, count in counts.items()}
    stacks |= {name: [evidence.contrast(results, label, name).mean for label in COLOURS] for name in SYSTEMS}
    for row, shares in enumerate(stacks.values()):
        left = 0.0
        for colour, share in zip(COLOURS.values(), shares):
            ax.barh(row, share, left=left, color=PALETTE[colour], height=0.7)
            if share > 0.04:
                ax.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", fontsize=10)
            left += share
    ax.axhline(len(counts) - 0.5, color="grey", linestyle="--")
    ax.set_yticks(range(len(stacks)), list(stacks))
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of all answers")
    ax.grid(visible=False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=PALETTE[colour]) for colour in COLOURS.values()]
    labels = ["needs a human" if label == "human" else label for label in COLOURS]
    fig.legend(handles, labels, loc="outside upper center", ncols=4)
    return fig


def table_of_shares(results: Sequence[Run], counts: Counts) -> pd.DataFrame | None:
    """Accurate / incomplete / hallucinated in per cent by category, the last with its interval; None without results.

    The interval of a tool is Wilson's. Runs that hold means alone have neither categories nor intervals.
    """
    if not results:
        return None
    rows = {}
    for tool, count in counts.items():
        ends = evidence.wilson(count[2], sum(count))
        rows[f"{tool} (paper)"] = {"all": _three([c / sum(count) for c in count], *ends)}
    for name in (*SYSTEMS, "search engine, all"):
        rows[name] = {category: _of_category(results, name, category) for category in CATEGORIES}
    table = pd.DataFrame(rows).T.fillna("")
    return table.loc[:, (table != "").any()]


def _of_category(results, name, category):
    """One cell of a system; "" where the runs hold nothing of the category."""
    among = None if category == "all" else category
    found = [evidence.contrast(results, label, name, among=among, bounds=(0, 1)) for label in list(COLOURS)[:3]]
    last = found[-1]
    ends = (last.low, last.high) if last.items > 1 else (math.nan, math.nan)
    return _three([each.mean for each in found], *ends) if last.seeds else ""


def _three(shares, low, high):
    """Three shares in per cent, and the interval of the last; without it where it is NaN."""
    text = " / ".join(f"{100 * share:.0f}" for share in shares)
    return text if math.isnan(low) else f"{text} [{100 * low:.0f}-{100 * high:.0f}]"


def risk_by_coverage(results: Sequence[Run], counts: Counts) -> Figure:
    """Risk against coverage: a line a system and seed, from the curves that runs kept; a square a tool.

    A line counts an incomplete answer that says something as answered, a square does not.
    """
    fig, ax = plt.subplots(figsize=(8, 4))
    for name, colour in RISKS.items():
        for n, run in enumerate(results):
            coverage, risk = (xs[4:] for xs in run.kept["curves"][name])
            ax.plot(coverage, risk, color=PALETTE[colour], alpha=0.7, label=name if not n else None)
    for tool, (right, _, wrong) in counts.items():
        at = (right + wrong) / sum(counts[tool]), wrong / (right + wrong)
        ax.plot(*at, "ks", markersize=6)
        ax.annotate(tool, at, xytext=(-4, 6), textcoords="offset points", ha="right", fontsize=10)
    ax.set(xlim=(0, 1), ylim=(0, 0.8))
    ax.set(xlabel="coverage: share of questions answered", ylabel="risk: hallucinated, of those")
    if results:
        fig.legend(loc="outside right upper")
    return fig
