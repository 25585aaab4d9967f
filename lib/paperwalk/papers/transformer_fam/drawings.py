"""The chapter's figures over the runs that `evidence.shown` gives; where there are none, the axes stay empty."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperwalk import evidence
from paperwalk.evidence import Run
from paperwalk.show import figures
from paperwalk.show.palette import PALETTE

HUE = {"fam": "green", "full": "black", "rmt": "purple", "bswa-4": "blue", "bswa-1": "sky"}
HUE |= {"bswa-0": "orange", "xl": "vermillion"}
ABLATIONS = ["shared", "segment", "no-residual", "separate", "stop-gradient", "static-query"]
ABLATIONS += ["no-penalty", "rsp", "rsp-always"]
MARKS = {32: "␣", 10: "¶", 256: "KEY"}  # beyond the mark: symbols of keys


def seeds_at(results: Sequence[Run], arm: str, multiples: Sequence[int]) -> np.ndarray:
    """Shares of keys that the arm named in texts of so many times the longest training length, (seeds, multiples)."""
    return np.transpose([evidence.values(results, f"key_named_x{n}.{arm}") for n in multiples])


def keys_named(results: Sequence[Run]) -> Figure:
    """Keys named over the length of the test text, and over the updates of training, a line each arm."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    axes[0].set(xscale="log", xlabel="blocks of the test text", ylabel="keys named in full", ylim=(-0.03, 1.05))
    axes[1].set(xlabel="updates", ylim=(-0.03, 1.05))
    if not results:
        return fig
    p = results[0].parameters
    axes[0].axvline(p["longest"], color="grey", linestyle="--")
    for arm, colour in HUE.items():
        multiples = p["multiples"][: None if arm == "fam" else 4]
        blocks = np.array(multiples) * p["longest"]
        figures.curve(axes[0], blocks, seeds_at(results, arm, multiples), arm, PALETTE[colour])
        steps_seen = [step for step, _ in results[0].kept["curves"][arm]]
        learned = [[y for _, y in run.kept["curves"][arm]] for run in results]
        figures.curve(axes[1], steps_seen, learned, arm, PALETTE[colour])
    axes[1].legend(fontsize="small")
    return fig


def ablations(results: Sequence[Run]) -> Figure:
    """Bars of keys named at the longest training length and at five times that, a row each ablation."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.4))
    if not results:
        return fig
    p = results[0].parameters
    shown = [*ABLATIONS, *(f"length-{n}" for n in p["fam_lengths"])]
    for ax, n, colour in zip(axes, (1, 5), ("sky", "orange")):
        figures.bars(ax, shown, evidence.by_arm(results, f"key_named_x{n}", shown), PALETTE[colour])
        ax.set(xlabel=f"keys named, {n * p['longest']} blocks", xlim=(0, 1.05))
    axes[1].set(yticklabels=[])
    return fig


def inside(results: Sequence[Run]) -> Figure:
    """With and without the penalty: norms by block and gradients by distance; and what the first seed's FAM reads."""
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), gridspec_kw={"width_ratios": (1, 1, 1.8)})
    for ax, key in zip(axes, ("norms", "gradients")):
        for arm, colour in (("fam", "green"), ("no-penalty", "orange")) if results else ():
            seen = [run.kept["inside"][arm][key] for run in results]
            figures.curve(ax, range(1, len(seen[0]) + 1), seen, arm, PALETTE[colour])
    if results:
        axes[0].legend()
        _reading(axes[2], results[0].kept["inside"]["fam"]["example"])
    axes[0].set(xlabel="blocks read", ylabel="norm of a FAM vector")
    axes[1].set(yscale="log", xlabel="blocks before the question", ylabel="norm of the gradient")
    return fig


def _reading(ax: Axes, example: dict) -> None:
    """The weights of each layer's FAM vectors, a row each, on the tokens of a block."""
    spell = lambda i: "key" if i > 257 else MARKS.get(i, chr(i) if 32 < i < 127 else "·")
    shares = np.array(example["weights"]).reshape(-1, len(example["ids"]))  # (layers F, b)
    ax.imshow(shares, cmap="viridis", aspect="auto", vmin=0, vmax=1)
    rows = [f"layer {i + 1}" for i in range(len(shares))]
    ax.set(xticks=range(len(example["ids"])), yticks=range(len(shares)), yticklabels=rows)
    ax.set_xticklabels(map(spell, example["ids"]), fontsize="small")
    ax.grid(visible=False)


def book_gains(results: Sequence[Run]) -> Figure:
    """What FAM gains in loss by block of the passage, without and with a memory segment."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    for M, colour in ((0, "green"), (1, "blue")) if results else ():
        by_block = [run.kept["by_block"] for run in results]
        gain = [np.subtract(loss[f"book-bswa-{M}"], loss[f"book-fam-{M}"]) for loss in by_block]
        figures.curve(ax, range(1, len(gain[0]) + 1), gain, f"M = {M}", PALETTE[colour])
    ax.axhline(0, color="grey", linestyle="--")
    ax.set(xlabel="block of the passage", ylabel="gained by FAM, nats a byte")
    if results:
        ax.axvline(results[0].parameters["book_blocks"] + 0.5, color="grey", linestyle=":")
        ax.legend()
    return fig
