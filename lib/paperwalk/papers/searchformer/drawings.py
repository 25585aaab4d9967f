"""The chapter's figures. `results` are runs, one a seed; where there are none, the axes stay empty."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperwalk import evidence
from paperwalk.show import figures
from paperwalk.show.palette import PALETTE

HUE = {"plan": "blue", "trace": "green", "swapped": "vermillion", "coin": "purple"}
TASKS = {"6": "6 x 6", "10": "10 x 10", "20": "20 x 20", "sokoban": "Sokoban"}
KINDS_OF_ASTAR = {
    "best": ("luckiest of 64", "blue"),
    "low_h": ("low-h ties", "green"),
    "perfect": ("knows the map, low-h ties", "orange"),
}
TURNS = ["coin", "round-1", "round-2", "round-3", "only-valid-3", "more-3", "lucky-3"]
VALIDITY = {"valid": ("valid", "o", "blue"), "faulty": ("not valid", "X", "vermillion")}


def headroom(results: Sequence[evidence.Run]) -> Figure:
    """Bars of search length relative to the mean over tie-breaks, a group of three kinds of A* for each task."""
    fig, ax = plt.subplots(figsize=(8, 3.2))
    for i, (kind, (label, colour)) in enumerate(KINDS_OF_ASTAR.items()):
        found = [figures.over_seeds(v) for v in evidence.by_arm(results, "headroom", [f"{kind}-{n}" for n in TASKS])]
        x = np.arange(len(TASKS)) + 0.25 * (i - 1)
        half = [e.high - e.mean for e in found]
        ax.bar(x, [e.mean for e in found], 0.23, yerr=half, label=label, color=PALETTE[colour])
    ax.axhline(1, color="grey", linestyle="--")
    ax.axhline(1 - 0.268, color=PALETTE["vermillion"], linestyle=":", label="the paper, Sokoban")
    ax.set(xticks=range(len(TASKS)), xticklabels=TASKS.values(), ylabel="events / mean of A*", ylim=(0, 1.4))
    ax.legend(loc="upper right", ncols=2, fontsize="small")
    return fig


def optimal_plans(results: Sequence[evidence.Run]) -> Figure:
    """Share of optimal plans over training mazes, over the model's width and over updates."""
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True)
    if results:
        _over_mazes(axes[0], results)
        _over_widths(axes[1], results)
    for arm, colour in HUE.items() if results else ():
        curves = [run.kept[f"arms/{arm}"]["curve"] for run in results]
        steps_seen, *_ = zip(*curves[0])
        over_seeds = [[optimal for _, optimal, _ in curve] for curve in curves]
        figures.curve(axes[2], steps_seen, over_seeds, arm, PALETTE[colour])
    axes[0].set(xlabel="mazes learned from", xscale="log", ylabel="optimal, greedy", ylim=(0, 1.05))
    axes[1].set(xlabel="width of the model", xscale="log", xticks=(16, 32, 64), xticklabels=(16, 32, 64))
    axes[1].minorticks_off()
    axes[2].set(xlabel="updates")
    axes[2].legend(fontsize="small", loc="lower right")
    return fig


def _over_mazes(ax: Axes, results: Sequence[evidence.Run]) -> None:
    for kind in ("plan", "trace", "swapped"):
        sizes = ["-fewest", "-few", ""][kind == "swapped" :]
        x = [results[0].parameters[f"{name}mazes"] for name in ("fewest_", "few_", "")][-len(sizes) :]
        optimal = np.transpose(evidence.by_arm(results, "optimal", [kind + size for size in sizes]))
        figures.curve(ax, x, optimal, kind, PALETTE[HUE[kind]])


def _over_widths(ax: Axes, results: Sequence[evidence.Run]) -> None:
    for kind in ("plan", "trace"):
        x = [results[0].parameters[f"{name}d_model"] for name in ("smallest_", "small_", "")]
        optimal = np.transpose(evidence.by_arm(results, "optimal", [f"{kind}-smallest", f"{kind}-small", kind]))
        figures.curve(ax, x, optimal, kind, PALETTE[HUE[kind]])


def forced_traces(results: Sequence[evidence.Run]) -> Figure:
    """Share of optimal plans after a given trace, left that of the maze, right another maze's."""
    asked = ["trace", "coin", "round-3", "swapped"]
    fig, axes = plt.subplots(1, 2, figsize=(9, 2.4))
    for ax, whose, colour in zip(axes, ("own", "foreign"), ("green", "vermillion")):
        arms = [f"{name}, {whose} trace" for name in asked]
        figures.bars(ax, asked, evidence.by_arm(results, "optimal_after_trace", arms), PALETTE[colour])
        of_what = "the maze" if whose == "own" else "another maze"
        ax.set(xlabel=f"optimal plans after the trace of {of_what}", xlim=(0, 1.05))
    axes[1].set(yticklabels=[])
    return fig


def bootstrapping(results: Sequence[evidence.Run]) -> Figure:
    """Lengths and validity before bootstrapping, after its rounds and after those of its controls, a row each."""
    fig, axes = plt.subplots(1, 3, figsize=(10, 4), sharey=True)
    for ax, measure in zip(axes, ("length_ratio", "valid")):
        figures.bars(ax, TURNS, evidence.by_arm(results, measure, TURNS))
        ax.set(xlim=(0, 1.1))
    for kind, (label, marker, colour) in VALIDITY.items():
        found = [figures.over_seeds(v) for v in evidence.by_arm(results, f"length_ratio_{kind}", TURNS)]
        means, half = [e.mean for e in found], [e.high - e.mean for e in found]
        axes[2].errorbar(means, range(len(TURNS)), xerr=half, fmt=marker, color=PALETTE[colour], label=label)
    fig.legend(*axes[2].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    for ax in (axes[0], axes[2]):
        ax.axvline(1, color="grey", linestyle="--")
    axes[0].set(xlabel="length / mean of A*", title="all traces")
    axes[1].set(xlabel="share of traces", title="valid searches")
    axes[2].set(xlabel="length / mean of A*", title="valid or not")
    return fig
