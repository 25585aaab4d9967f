"""Figures of the book: their style, plots over seeds, and pictures with alt text.

Figures have an opaque white background, so that they read the same on light and dark pages.
"""

import base64
import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from paperwalk.evidence import Estimate, estimate
from paperwalk.show.palette import PALETTE
from paperwalk.show.templates import macros

_HTML = macros("figures.html")


def style() -> None:
    """Set matplotlib's defaults for the book's figures (of this process)."""
    plt.rcParams.update(
        {
            "axes.grid": True,
            "axes.prop_cycle": plt.cycler(color=list(PALETTE.values())[:7]),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.figsize": (6, 3.6),
            "font.size": 12,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "savefig.facecolor": "white",
        }
    )


def curve(ax: Axes, x: Sequence[float], runs: ArrayLike, label: str | None = None, color: str | None = None) -> None:
    """Draw the mean over seeds as a line, the 95 % interval as a band and every seed as a point.

    x: (P,) positions; runs: (seeds, P) values. One seed gives a line without a band. Raises ValueError for
    other shapes.
    """
    runs = np.asarray(runs, dtype=float)
    if runs.ndim != 2 or runs.shape[1] != len(x) or not len(runs):
        raise ValueError(f"runs of shape {runs.shape}: must be (seeds, {len(x)}), a column for each x")
    estimates = [over_seeds(column) for column in runs.T]
    (line,) = ax.plot(x, [e.mean for e in estimates], label=label, color=color)
    ax.plot(x, runs.T, ".", color=line.get_color(), alpha=0.6)
    if len(runs) > 1:
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def bars(ax: Axes, labels: Sequence[str], runs: Sequence, color: str = PALETTE["sky"]) -> None:
    """Draw one horizontal bar a label (first on top): the mean, its 95 % interval and every seed as a point.

    runs: one sequence of values over seeds for each label. Raises ValueError where their numbers differ.
    """
    if len(labels) != len(runs):
        raise ValueError(f"{len(runs)} runs for {len(labels)} labels: must be one sequence for each label")
    for row, values in enumerate(runs):
        mean = over_seeds(values)
        ax.barh(row, mean.mean, height=0.6, color=color, alpha=0.6)
        if mean.seeds > 1:
            ax.hlines(row, mean.low, mean.high, color="black", linewidth=2)
        ax.plot(values, [row] * len(values), "o", color="black", markerfacecolor="white", markersize=5)
    ax.set_yticks(range(len(labels)), labels)
    if not ax.yaxis_inverted():  # axes that share it turn together
        ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one value a seed, and Student's 95 % interval over seeds; no interval for fewer than two."""
    return estimate(np.reshape(values, (-1, 1)), rate=False)


class Display:
    """A display object made of its faces: {MIME type: content}."""

    def __init__(self, faces: dict):
        self.faces = faces

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        return self.faces


def alt(fig: Figure, text: str, caption: str = "") -> Display:
    """Show a matplotlib figure with a text alternative, and close it.

    text: what the figure shows, for readers who do not see it; caption: plain text below the figure.
    Raises ValueError for an empty text.
    """
    return Display({"text/html": str(_HTML.figure(_image(fig, text), caption)), "text/plain": text})


def card(chapter: str, title: str, paper: str, fig: Figure, text: str, claimed: str, found: str) -> Markup:
    """A chapter's card for `cards`: a figure (closed afterwards), what the paper claims and what we found.

    text: what the figure shows, for readers who do not see it. Raises ValueError where it is empty.
    """
    return _HTML.card(chapter, title, paper, _image(fig, text), claimed, found)


def cards(made: Sequence[Markup]) -> Display:
    """Show cards beside each other."""
    return Display({"text/html": str(_HTML.cards(made)), "text/plain": f"{len(made)} chapters"})


def _image(fig: Figure, text: str) -> Markup:
    """The figure as an <img>, closed; raises ValueError for an empty text alternative."""
    if not text.strip():
        raise ValueError("text = '': must say what the figure shows")
    data = base64.b64encode(_png(fig)).decode()
    plt.close(fig)
    return _HTML.image(data, text, round(100 * fig.get_figwidth()))  # CSS pixels


def _png(fig: Figure) -> bytes:
    """The figure as PNG of 256 colours, a third of the size of one of all colours."""
    drawn, png = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=160)
    full = Image.open(drawn).convert("RGB")
    few = full.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)  # rare colours live on
    few.save(png, "PNG", optimize=True)
    return png.getvalue()
