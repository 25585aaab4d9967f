"""Figures of the book: palette and style, plots over seeds, pictures with alt text, and the live mask control.

Figures have an opaque white background, so that they read the same on light and dark pages.
"""

import base64
import hashlib
import html
import io
import itertools
import json
from functools import cache

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets.widgets.widget_link import Link
from ipywidgets.widgets.widget_string import HTMLStyle

from paperwalk.evidence import summarise

# Okabe and Ito's colours, distinguishable with colour-blindness; yellow is last since it is weak on white.
PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",
}


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


def curve(ax, x, runs, label=None, color=None) -> None:
    """Draw the mean over seeds as a line, the 95 % interval as a band and every seed as a point.

    x: (P,) positions; runs: (seeds, P) values. One seed gives a line without a band. Raises ValueError for
    other shapes.
    """
    runs = np.asarray(runs, dtype=float)
    if runs.ndim != 2 or runs.shape[1] != len(x) or not len(runs):
        raise ValueError(f"runs of shape {runs.shape}: must be (seeds, {len(x)}), a column for each x")
    over_seeds = [summarise(column) for column in runs.T]
    (line,) = ax.plot(x, [s.mean for s in over_seeds], label=label, color=color)
    ax.plot(x, runs.T, ".", color=line.get_color(), alpha=0.6)
    if len(runs) > 1:
        low, high = [s.low for s in over_seeds], [s.high for s in over_seeds]
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)


def bars(ax, labels, runs, color=PALETTE["sky"]) -> None:
    """Draw one horizontal bar a label (first on top): the mean, its 95 % interval and every seed as a point.

    runs: one sequence of values over seeds for each label. Raises ValueError where their numbers differ.
    """
    if len(labels) != len(runs):
        raise ValueError(f"{len(runs)} runs for {len(labels)} labels: must be one sequence for each label")
    for row, values in enumerate(runs):
        over_seeds = summarise(values)
        ax.barh(row, over_seeds.mean, height=0.6, color=color, alpha=0.6)
        if over_seeds.n > 1:
            ax.hlines(row, over_seeds.low, over_seeds.high, color="black", linewidth=2)
        ax.plot(values, [row] * len(values), "o", color="black", markerfacecolor="white", markersize=5)
    ax.set_yticks(range(len(labels)), labels)
    if not ax.yaxis_inverted():  # axes that share it turn together
        ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


class Display:
    """A display object made of its faces: {MIME type: content}."""

    def __init__(self, faces: dict):
        self.faces = faces

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.faces


def alt(fig, text: str, caption: str = "") -> Display:
    """Show a matplotlib figure with a text alternative, and close it.

    text: what the figure shows, for readers who do not see it; caption: plain text below the figure.
    Raises ValueError for an empty text.
    """
    if not text.strip():
        raise ValueError("text = '': must say what the figure shows")
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=160, metadata={"Software": None})
    plt.close(fig)
    data = base64.b64encode(png.getvalue()).decode()
    width = round(100 * fig.get_figwidth())  # CSS pixels
    image = (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(text)}" width="{width}" '
        'style="max-width:100%;height:auto">'
    )
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    page = f'<figure class="pw-figure" style="margin:0">{image}{below}</figure>'
    return Display({"text/html": page, "text/plain": text})


# The live control. Both faces show the same paragraph, in which <s> marks the dropped tokens.

_CSS = """
.pw-mask p { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.8; margin: .5em 0; }
.pw-mask s { background: rgba(230, 159, 0, .35); border-radius: .2em; text-decoration-thickness: .12em; }
.pw-mask .pw-share { font-variant-numeric: tabular-nums; font-size: .9em; }
.pw-mask label { display: flex; flex-wrap: wrap; align-items: center; gap: .2em .8em; margin: .3em 0; }
.pw-mask input { flex: 1 1 12em; max-width: 24em; min-width: 0; }
.pw-mask .pw-name { flex: 0 1 17em; }
.pw-mask output { font-variant-numeric: tabular-nums; font-weight: bold; }
.pw-mask [hidden] { display: none; }
"""

_SCRIPT = """
(() => {
  const { id, tokens, ks, hs, masks } = DATA, root = document.getElementById(id);
  const [kInput, hInput] = root.querySelectorAll("input"), [kOut, hOut] = root.querySelectorAll("output");
  const text = root.querySelector(".pw-text"), share = root.querySelector(".pw-share");
  function show() {
    const k = ks[kInput.value], h = hs[hInput.value], mask = masks[kInput.value][hInput.value];
    text.replaceChildren(...tokens.map((token, i) => {
      if (mask[i] === "1") return token;
      const dropped = document.createElement("s");
      dropped.textContent = token;
      return dropped;
    }));
    kInput.setAttribute("aria-valuetext", kOut.textContent = `k = ${k}`);
    hInput.setAttribute("aria-valuetext", hOut.textContent = `h = ${h}`);
    const n = mask.split("0").length - 1, percent = (100 * n / mask.length).toFixed(1);
    share.textContent = `k = ${k}, h = ${h}: ${n} of ${mask.length} targets dropped (${percent} %)`;
  }
  kInput.addEventListener("input", show);
  hInput.addEventListener("input", show);
  root.querySelector("[hidden]").hidden = false;
  show();
})();
"""

_K_NAME = "k: one target in k is dropped"
_H_NAME = "h: tokens that the hash sees"


def token_mask_control(tokens, masks, ks, hs, k0, h0, alt) -> Display:
    """Show which targets a mask drops, with one slider for k and one for h.

    tokens: T strings that joined give the text; masks: {(k, h): T booleans, True where the target is kept} for
    every k of ks and h of hs; k0, h0: the values shown first; alt: says what the control shows.
    In a live kernel it is an ipywidget; in a rendered page inline HTML that needs no network and without
    JavaScript shows the mask of k0, h0. Raises ValueError for a missing mask or one of another length.
    """
    if k0 not in ks:
        raise ValueError(f"k0 = {k0}: must be one of ks = {list(ks)}")
    if h0 not in hs:
        raise ValueError(f"h0 = {h0}: must be one of hs = {list(hs)}")
    for pair in itertools.product(ks, hs):
        if len(masks.get(pair, ())) != len(tokens):
            raise ValueError(f"masks[{pair}]: must hold {len(tokens)} booleans, one a token")
    bits = tuple(tuple("".join("01"[bool(kept)] for kept in masks[k, h]) for h in hs) for k in ks)
    content = (tuple(tokens), bits, tuple(map(int, ks)), tuple(map(int, hs)), int(k0), int(h0), alt)
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return Display(
        {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": _widget(digest, *content).model_id,
            },
            "text/html": _page(digest, *content),
            "text/plain": alt,
        }
    )


def _text(tokens, mask: str) -> str:
    """The tokens as HTML, those dropped in <s>."""
    return "".join(
        html.escape(token) if bit == "1" else f"<s>{html.escape(token)}</s>"
        for token, bit in zip(tokens, mask, strict=True)
    )


def _share(mask: str, k: int, h: int) -> str:
    n = mask.count("0")
    return f"k = {k}, h = {h}: {n} of {len(mask)} targets dropped ({100 * n / len(mask):.1f} %)"


def _page(digest, tokens, bits, ks, hs, k0, h0, alt) -> str:
    """The control as HTML with its masks and script inside."""
    mask = bits[ks.index(k0)][hs.index(h0)]
    data = json.dumps({"id": f"pw-mask-{digest}", "tokens": tokens, "ks": ks, "hs": hs, "masks": bits})
    script = _SCRIPT.replace("DATA", data.replace("<", "\\u003c"))  # no token can end the script
    slider = (
        '<label><span class="pw-name">{name}</span>'
        '<input type="range" min="0" max="{last}" step="1" value="{start}"><output></output></label>'
    )
    sliders = [
        slider.format(name=_K_NAME, last=len(ks) - 1, start=ks.index(k0)),
        slider.format(name=_H_NAME, last=len(hs) - 1, start=hs.index(h0)),
    ]
    return (
        f'<div class="pw-mask tex2jax_ignore mathjax_ignore" id="pw-mask-{digest}" role="group" '
        f'aria-label="{html.escape(alt)}"><style>{_CSS}</style><div hidden>{"".join(sliders)}</div>'
        f'<p class="pw-text">{_text(tokens, mask)}</p>'
        f'<p class="pw-share" aria-live="polite">{_share(mask, k0, h0)}</p>'
        f"<script>{script}</script></div>"
    )


@cache  # a cell that runs again shows the same widget: its ids come from the content and must not be given twice
def _widget(digest, tokens, bits, ks, hs, k0, h0, alt) -> widgets.VBox:
    """The control as widgets, whose links need no kernel. Their ids repeat from run to run."""
    ids = (f"{digest}{number:016x}" for number in itertools.count())

    def make(kind, *args, **traits):
        return kind(*args, model_id=next(ids), **traits)

    full = {"layout": make(widgets.Layout, width="auto")}
    plain = {**full, "style": make(HTMLStyle)}
    named = {**full, "style": make(widgets.SliderStyle, description_width="17em")}

    def page(mask, k, h):
        inner = f'<p>{_text(tokens, mask)}</p><p class="pw-share">{_share(mask, k, h)}</p>'
        return make(widgets.HTML, value=f'<div class="pw-mask">{inner}</div>', **plain)

    def stack(pages, start):
        return make(widgets.Stack, children=pages, selected_index=start, **full)

    k_slider = make(widgets.SelectionSlider, description=_K_NAME, options=ks, value=k0, **named)
    h_slider = make(widgets.SelectionSlider, description=_H_NAME, options=hs, value=h0, **named)
    rows = [
        stack([page(mask, k, h) for mask, h in zip(row, hs, strict=True)], hs.index(h0))
        for row, k in zip(bits, ks, strict=True)
    ]
    text = stack(rows, ks.index(k0))
    for slider, target in [(k_slider, text), *((h_slider, row) for row in rows)]:
        make(Link, (slider, "index"), (target, "selected_index"))
    css = make(widgets.HTML, value=f"<style>{_CSS}</style>", **plain)
    return make(widgets.VBox, children=[css, k_slider, h_slider, text], **full)
