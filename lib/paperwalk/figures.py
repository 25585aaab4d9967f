"""Figures of the book: palette and style, plots over seeds, pictures with alt text, and the live controls.

Figures have an opaque white background, so that they read the same on light and dark pages.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from paperwalk.evidence import summarise

try:
    import ipywidgets as widgets
    from ipywidgets.widgets.widget_description import DescriptionStyle
    from ipywidgets.widgets.widget_link import Link
    from ipywidgets.widgets.widget_string import HTMLStyle
except ImportError:  # a bare machine without Jupyter: a control has the page's face alone
    widgets = None

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
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    page = f'<figure class="pw-figure" style="margin:0">{_image(fig, text)}{below}</figure>'
    return Display({"text/html": page, "text/plain": text})


def card(chapter, title, paper, fig, text, claimed, found) -> str:
    """A chapter's card for `cards`: a figure (closed afterwards), what the paper claims and what we found.

    text: what the figure shows, for readers who do not see it. Raises ValueError where it is empty.
    """
    title, paper, claimed, found = map(html.escape, (title, paper, claimed, found))
    return (
        f'<article><h3><a href="{chapter}.html">{title}</a></h3><p>{paper}</p>{_image(fig, text)}'
        f"<p><b>Claimed:</b> {claimed}</p><p><b>Found:</b> {found}</p></article>"
    )


def cards(made) -> Display:
    """Show cards beside each other."""
    page = f'<div class="pw-cards pw-figure"><style>{_CARDS_CSS}</style>{"".join(made)}</div>'
    return Display({"text/html": page, "text/plain": f"{len(made)} chapters"})


_CARDS_CSS = """
.pw-cards { display: grid; gap: 1.2em; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17em), 1fr)); }
.pw-cards article { border: 1px solid #8886; border-radius: .5em; padding: .9em 1em; }
.pw-cards h3 { font-size: 1.15em; margin: 0; }
.pw-cards p { margin: .5em 0 0; font-size: .9em; line-height: 1.45; }
.pw-cards img { display: block; margin: .7em 0 0; border-radius: .3em; }
"""


def _image(fig, text: str) -> str:
    """The figure as an <img>, closed; raises ValueError for an empty text alternative."""
    if not text.strip():
        raise ValueError("text = '': must say what the figure shows")
    data = base64.b64encode(_png(fig)).decode()
    plt.close(fig)
    width = round(100 * fig.get_figwidth())  # CSS pixels
    return (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(text)}" width="{width}" '
        'style="max-width:100%;height:auto">'
    )


def _png(fig) -> bytes:
    """The figure as PNG of 256 colours, a third of the size of one of all colours."""
    drawn, png = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=160)
    few = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 2, "dither": Image.Dither.NONE}  # rare colours live on
    Image.open(drawn).convert("RGB").quantize(256, **few).save(png, "PNG", optimize=True)
    return png.getvalue()


# The live controls: one display object with an ipywidget for a live kernel and inline HTML for the rendered page.


def _control(widget, page, *content) -> Display:
    """Both faces of a control (where ipywidgets is missing, the page's) and its text alternative, the last of content.

    widget and page are called with a digest of the JSON-like content, from which their ids come, and the content.
    """
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    faces = {"text/html": page(digest, *content), "text/plain": content[-1]}
    if widgets is not None:
        view = {"version_major": 2, "version_minor": 0, "model_id": widget(digest, *content).model_id}
        faces = {"application/vnd.jupyter.widget-view+json": view} | faces
    return Display(faces)


def _maker(digest):
    """A function that makes widgets whose ids repeat from run to run."""
    ids = (f"{digest}{number:016x}" for number in itertools.count())

    def make(kind, *args, **traits):
        return kind(*args, model_id=next(ids), **traits)

    return make


def _json(data: dict) -> str:
    """The data as JSON in which no text can end the script around it."""
    return json.dumps(data).replace("<", "\\u003c")


# The mask control. Both faces show the same paragraph, in which <s> marks the dropped tokens.

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
    return _control(_widget, _page, *content)


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
    data = {"id": f"pw-mask-{digest}", "tokens": tokens, "ks": ks, "hs": hs, "masks": bits}
    script = _SCRIPT.replace("DATA", _json(data))
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
    """The control as widgets, whose links need no kernel."""
    make = _maker(digest)
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


# The search player. Both faces show the same board; after t events a node is in the state of its latest event.

_SEARCH_CSS = (
    f"""
.pw-search {{ --create: {PALETTE["orange"]}; --close: {PALETTE["sky"]}; --path: {PALETTE["yellow"]};
  --slider: {PALETTE["blue"]}; }}
"""
    + """
.pw-search { --ink: #1b1f24; --free: #f6f7f9; --line: #d3d9e0; --wall: #3a434f; --page: white; margin: 0; }
html[data-theme="dark"] .pw-search, body[data-jp-theme-light="false"] .pw-search {
  --ink: #eef1f5; --free: #2d343e; --line: #414b58; --wall: #07090c; --page: #14181e; --slider: var(--close);
}
.pw-search svg { display: block; width: 100%; height: auto; user-select: none; }
.pw-search svg text { font: 10px system-ui, sans-serif; text-anchor: middle; fill: black; }
.pw-search .pw-axis text { font-size: 12px; fill: var(--ink); opacity: .65; }
.pw-search .pw-free { fill: var(--free); stroke: var(--line); }
.pw-search .pw-wall { fill: var(--wall); stroke: var(--wall); }
.pw-search .pw-nodes rect { width: 36px; height: 36px; fill: none; }
.pw-search .pw-nodes .create { fill: var(--create); rx: 18px; }
.pw-search .pw-nodes .close { fill: var(--close); rx: 3px; }
.pw-search .pw-costs text { font-size: 15px; font-weight: bold; }
.pw-search tspan { font-size: 9.5px; font-weight: normal; }
.pw-search polyline { fill: none; stroke: black; stroke-width: 33px; stroke-linecap: round; stroke-linejoin: round; }
.pw-search polyline + polyline { stroke: var(--path); stroke-width: 30px; }
.pw-search .pw-now { width: 38px; height: 38px; rx: 4px; fill: none; stroke: var(--ink); stroke-width: 4px; }
.pw-search .pw-rings rect { fill: var(--free); stroke: var(--ink); stroke-width: 2px; stroke-dasharray: 5 3; }
.pw-search circle { fill: var(--ink); stroke: var(--page); }
.pw-search .pw-ends text { font-size: 11px; font-weight: bold; fill: var(--page); }
.pw-search .pw-controls, .pw-search p, .pw-search figcaption {
  display: flex; flex-wrap: wrap; align-items: center; gap: .2em .9em; margin: .5em 0;
  font-variant-numeric: tabular-nums;
}
.pw-search button { min-width: 5em; padding: .25em .7em; font: inherit; color: inherit; cursor: pointer;
  background: none; border: 1px solid currentColor; border-radius: .3em; }
.pw-search input { flex: 1; min-width: 0; accent-color: var(--slider); }
.pw-search code { min-width: 20ch; }
.pw-search code:empty { visibility: hidden; }
.pw-search figcaption { font-size: .9em; }
.pw-search i { display: inline-block; box-sizing: border-box; width: 1em; height: 1em; margin-right: .4em;
  vertical-align: -.12em; }
.pw-search [hidden] { display: none; }
@media (prefers-reduced-motion: no-preference) { .pw-search .pw-nodes rect { transition: fill .15s, rx .15s; } }
"""
)

_SEARCH_SCRIPT = """
(() => {
  const { name, events } = DATA, last = events.length;
  const controls = document.querySelector(`.${name} > [hidden]`), root = controls.parentElement;
  const button = root.querySelector("button"), slider = root.querySelector("input");
  const rects = root.querySelectorAll(".pw-nodes rect"), costs = root.querySelectorAll(".pw-costs text");
  const now = root.querySelector(".pw-now"), path = root.querySelector(".pw-path");
  const [tokens, counts] = root.querySelectorAll("p > *");
  const cellOf = ([, x, y]) => `${x} ${y}`, cells = [...new Set(events.map(cellOf))];
  let timer = 0;
  function show() {
    const t = +slider.value, past = events.slice(0, t), present = past.at(-1);
    const states = new Map(past.map(event => [cellOf(event), event]));
    cells.forEach((cell, i) => {
      const [kind = "", , , g, h] = states.get(cell) ?? [];
      rects[i].setAttribute("class", kind);
      costs[i].firstChild.data = kind && g + h;
      costs[i].lastChild.textContent = kind && `${g}+${h}`;
    });
    now.toggleAttribute("hidden", !t);
    path.toggleAttribute("hidden", t < last);
    tokens.textContent = "";
    if (t) {
      const [kind, x, y, g, h] = present, rect = rects[cells.indexOf(cellOf(present))];
      tokens.textContent = `${kind} ${x} ${y} c${g} c${h}`;
      for (const side of ["x", "y"]) now.setAttribute(side, rect.getAttribute(side) - 1);
    }
    const created = past.filter(([kind]) => kind === "create").length;
    counts.textContent = `step ${t} of ${last}: ${created} created, ${t - created} closed`;
    slider.setAttribute("aria-valuetext", `${counts.textContent}. ${tokens.textContent}`);
  }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => move(+slider.value + 1), Math.min(400, 20000 / last)) : 0;
    button.textContent = on ? "Pause" : "Play";
  }
  function move(t) {
    slider.value = t;
    if (t >= last) play(false);
    show();
  }
  button.addEventListener("click", () => {
    play(!timer);
    if (timer && +slider.value === last) move(0);
  });
  slider.addEventListener("input", () => {
    play(false);
    show();
  });
  controls.hidden = false;
  show();
})();
"""

_SEARCH_KEY = (
    '<figcaption><span><i style="background:var(--create);border-radius:50%"></i>open (frontier)</span>'
    '<span><i style="background:var(--close);border-radius:2px"></i>closed</span>'
    '<span><i style="border:3px solid var(--ink);border-radius:2px"></i>present event</span>'
    '<span><i style="background:var(--path);border:1px solid black;border-radius:.4em;height:.7em;width:1.6em"></i>'
    "path</span><span>in a node: f, below it g+h</span></figcaption>"
)


def search_player(width, height, start, goal, walls, events, plan) -> Display:
    """Show a search on a maze event by event, with a slider over the steps and a play button.

    start, goal and each of walls and plan: a cell (x, y) with 0 <= x < width and 0 <= y < height, drawn with y
    upwards; events: the search's log, ("create" or "close", x, y, g, h) in its order, where the cost f = g + h;
    plan: the path's cells, start included; may be empty. Step t shows the search after t events, the latest in the
    tokens of Lehnert et al. (arXiv 2402.14083): a node is open after a create and closed after a close. The path
    stands at the last step.
    In a live kernel it is an ipywidget; in a rendered page inline HTML that needs no network and without
    JavaScript shows the last step. Raises ValueError for an empty log, an unknown kind of event and a cell outside
    the grid or on a wall.
    """
    size = (int(width), int(height))
    start, goal = ((int(x), int(y)) for x, y in (start, goal))
    walls = tuple(sorted({(int(x), int(y)) for x, y in walls}))
    events = tuple((kind, int(x), int(y), int(g), int(h)) for kind, x, y, g, h in events)
    plan = tuple((int(x), int(y)) for x, y in plan)
    if not events:
        raise ValueError("events = []: must hold at least one event")
    for i, (kind, x, y, _, _) in enumerate(events):
        if kind not in ("create", "close"):
            raise ValueError(f"events[{i}] = {events[i]}: must be a 'create' or a 'close'")
        _check_cell(f"events[{i}] = {events[i]}", (x, y), size, walls)
    for name, cell in [("start", start), ("goal", goal), *((f"plan[{i}]", cell) for i, cell in enumerate(plan))]:
        _check_cell(f"{name} = {cell}", cell, size, walls)
    for cell in walls:
        _check_cell(f"walls: {cell}", cell, size, ())
    states = {(x, y): kind for kind, x, y, _, _ in events}
    closed = list(states.values()).count("close")
    alt = (
        f"A search of a maze of {size[0]} by {size[1]} cells, {len(walls)} of them walls, from S at {start} to G at "
        f"{goal}, x to the right and y upwards: the open and closed nodes with their costs after each of "
        f"{len(events)} events; at the end {closed} nodes are closed and {len(states) - closed} open, and "
        + (f"the path of {len(plan)} cells is drawn." if plan else "there is no path.")
    )
    return _control(_search_widget, _search_page, size, start, goal, walls, events, plan, alt)


def _check_cell(what, cell, size, walls) -> None:
    if not all(0 <= at < n for at, n in zip(cell, size)):
        raise ValueError(f"{what}: must be in the grid of {size[0]} x {size[1]} cells")
    if cell in walls:
        raise ValueError(f"{what}: must not be on a wall")


def _board(size, start, goal, walls, events, t, plan, alt) -> str:
    """The maze after t events as SVG, 40 units a cell."""
    width, height = size

    def corner(cell):  # top left, as y points up in the maze and down in SVG
        return 40 * cell[0], 40 * (height - 1 - cell[1])

    def centre(cell):
        return tuple(at + 20 for at in corner(cell))

    states = {(x, y): (kind, g, h) for kind, x, y, g, h in events[:t]}
    lines = [f"M0 {40 * y}h{40 * width}" for y in range(height + 1)] + [
        f"M{40 * x} 0v{40 * height}" for x in range(width + 1)
    ]
    axes = [f'<text x="{40 * x + 20}" y="{40 * height + 15}">{x}</text>' for x in range(width)] + [
        f'<text x="-12" y="{40 * (height - y) - 16}">{y}</text>' for y in range(height)
    ]
    nodes, costs = [], []
    for cell, (kind, g, h) in states.items():
        (left, top), (x, y) = corner(cell), centre(cell)
        nodes.append(f'<rect class="{kind}" x="{left + 2}" y="{top + 2}"/>')
        costs.append(f'<text x="{x}" y="{y + 1}">{g + h}<tspan x="{x}" dy="10">{g}+{h}</tspan></text>')
    left, top = corner(events[max(t, 1) - 1][1:3])
    path = f'<polyline points="{" ".join("{},{}".format(*centre(cell)) for cell in plan)}"/>'
    ends = [
        f'<circle cx="{x + 4}" cy="{y + 4}" r="8"/><text x="{x + 4}" y="{y + 8}">{letter}</text>'
        for letter, (x, y) in (("S", corner(start)), ("G", corner(goal)))
    ]
    rings = ['<rect x="{}" y="{}" width="40" height="40"/>'.format(*corner(cell)) for cell in (start, goal)]
    hidden = ("", " hidden")
    return (
        f'<svg viewBox="-24 -5 {40 * width + 28} {40 * height + 27}" role="img" aria-label="{html.escape(alt)}" '
        f'style="max-width:{48 * width + 40}px">'
        f'<path class="pw-free" d="M0 0h{40 * width}v{40 * height}h-{40 * width}z{"".join(lines)}"/>'
        f'<path class="pw-wall" d="{"".join("M{} {}h40v40h-40z".format(*corner(cell)) for cell in walls)}"/>'
        f'<g class="pw-axis">{"".join(axes)}</g><g class="pw-rings">{"".join(rings)}</g>'
        f'<g class="pw-nodes">{"".join(nodes)}</g>'
        f'<g class="pw-path"{hidden[t < len(events)]}>{path}{path}</g><g class="pw-costs">{"".join(costs)}</g>'
        f'<rect class="pw-now"{hidden[t == 0]} x="{left + 1}" y="{top + 1}"/>'
        f'<g class="pw-ends">{"".join(ends)}</g></svg>'
    )


def _progress(events, t) -> str:
    """The event of step t in the paper's tokens, and the counts."""
    created = sum(kind == "create" for kind, *_ in events[:t])
    tokens = "{} {} {} c{} c{}".format(*events[t - 1]) if t else ""
    counts = f"step {t} of {len(events)}: {created} created, {t - created} closed"
    return f"<p><code>{tokens}</code><span>{counts}</span></p>"


def _search_page(digest, size, start, goal, walls, events, plan, alt) -> str:
    """The player as HTML with its events and script inside."""
    name, last = f"pw-search-{digest}", len(events)
    script = _SEARCH_SCRIPT.replace("DATA", _json({"name": name, "events": events}))
    return (  # a class for an id, so that the same search may stand on a page twice
        f'<figure class="pw-figure pw-search {name} tex2jax_ignore mathjax_ignore" '
        f'style="max-width:max(30em, {48 * size[0] + 40}px)"><style>{_SEARCH_CSS}</style>'
        '<div class="pw-controls" hidden><button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" step="1" value="{last}" aria-label="step of the search"></div>'
        f"{_progress(events, last)}{_board(size, start, goal, walls, events, last, plan, alt)}{_SEARCH_KEY}"
        f"<script>{script}</script></figure>"
    )


@cache
def _search_widget(digest, size, start, goal, walls, events, plan, alt) -> widgets.VBox:
    """The player as widgets, whose links need no kernel."""
    make, last = _maker(digest), len(events)
    layout = make(widgets.Layout, width="auto")
    style = make(HTMLStyle)

    def page(inner):
        inner = f'<figure class="pw-search">{inner}</figure>'
        return make(widgets.HTML, value=inner, layout=layout, style=style)

    frames = [
        page(_progress(events, t) + _board(size, start, goal, walls, events, t, plan, alt)) for t in range(last + 1)
    ]
    film = make(widgets.Stack, children=frames, selected_index=last, layout=layout)
    steps = {"min": 0, "max": last, "value": last, "layout": layout}
    play = make(widgets.Play, interval=min(400, 20_000 // last), style=make(DescriptionStyle), **steps)
    slider = make(widgets.IntSlider, description="step", style=make(widgets.SliderStyle), **steps)
    make(Link, (play, "value"), (slider, "value"))
    make(Link, (slider, "value"), (film, "selected_index"))
    controls = make(widgets.HBox, children=[play, slider], layout=layout)
    return make(
        widgets.VBox, children=[page(f"<style>{_SEARCH_CSS}</style>"), controls, film, page(_SEARCH_KEY)], layout=layout
    )


# Controls with sliders over pictures that are HTML: the picture of every choice is made beforehand.

_SLIDERS_CSS = """
.pw-sliders { margin: 0; }
.pw-sliders label { display: flex; flex-wrap: wrap; align-items: center; gap: .2em .8em; margin: .3em 0; }
.pw-sliders input { flex: 1 1 12em; max-width: 24em; min-width: 0; }
.pw-sliders .pw-name { flex: 0 1 17em; }
.pw-sliders output { font-variant-numeric: tabular-nums; font-weight: bold; }
.pw-sliders p { margin: .4em 0; font-variant-numeric: tabular-nums; }
.pw-sliders [hidden] { display: none; }
"""

_SLIDERS_SCRIPT = """
(() => {
  const { id, values, frames } = DATA, root = document.getElementById(id);
  const inputs = [...root.querySelectorAll("input")], outputs = [...root.querySelectorAll("output")];
  const picture = root.querySelector(".pw-picture");
  function show() {
    const chosen = inputs.map((input) => Number(input.value));
    chosen.forEach((at, i) => {
      outputs[i].textContent = values[i][at];
      inputs[i].setAttribute("aria-valuetext", values[i][at]);
    });
    picture.innerHTML = chosen.reduce((inner, at) => inner[at], frames);
  }
  for (const input of inputs) input.addEventListener("input", show);
  root.querySelector("[hidden]").hidden = false;
  show();
})();
"""


def _sliders(kind, css, names, values, start, picture, legend, alt) -> Display:
    """A control with a slider for each name over its values; picture(*chosen) is the HTML of a choice.

    kind: class of the control, to which css belongs; start: values shown first; legend: HTML below the picture.
    Raises ValueError for a start that is not among the values.
    """
    for name, allowed, value in zip(names, values, start, strict=True):
        if value not in allowed:
            raise ValueError(f"start: {name} = {value!r}: must be one of {list(allowed)}")

    def frames(chosen=()):
        rest = values[len(chosen)]
        inner = picture if len(chosen) + 1 == len(values) else lambda *chosen: frames(chosen)
        return tuple(inner(*chosen, value) for value in rest)

    places = tuple(allowed.index(value) for allowed, value in zip(values, start, strict=True))
    values = tuple(tuple(allowed) for allowed in values)
    return _control(_sliders_widget, _sliders_page, kind, css, tuple(names), values, places, frames(), legend, alt)


def _chosen(frames, places):
    for place in places:
        frames = frames[place]
    return frames


def _sliders_page(digest, kind, css, names, values, start, frames, legend, alt) -> str:
    """The control as HTML with its pictures and script inside."""
    data = {"id": f"{kind}-{digest}", "values": values, "frames": frames}
    sliders = "".join(
        f'<label><span class="pw-name">{name}</span><input type="range" min="0" max="{len(allowed) - 1}" step="1" '
        f'value="{place}"><output></output></label>'
        for name, allowed, place in zip(names, values, start, strict=True)
    )
    return (
        f'<div class="pw-sliders {kind}" id="{kind}-{digest}" role="group" aria-label="{html.escape(alt)}">'
        f"<style>{_SLIDERS_CSS}{css}</style><div hidden>{sliders}</div>"
        f'<div class="pw-picture" aria-live="polite">{_chosen(frames, start)}</div>{legend}'
        f"<script>{_SLIDERS_SCRIPT.replace('DATA', _json(data))}</script></div>"
    )


@cache
def _sliders_widget(digest, kind, css, names, values, start, frames, legend, alt) -> widgets.VBox:
    """The control as widgets, whose links need no kernel."""
    make = _maker(digest)
    full = {"layout": make(widgets.Layout, width="auto")}
    plain = {**full, "style": make(HTMLStyle)}
    named = {**full, "style": make(widgets.SliderStyle, description_width="17em")}
    links = tuple([] for _ in names)

    def stack(frames, depth=0):
        """A picture when all sliders are set, else a stack over the next slider's values."""
        if depth == len(names):
            return make(widgets.HTML, value=f'<div class="pw-sliders {kind}">{frames}</div>', **plain)
        children = [stack(inner, depth + 1) for inner in frames]
        made = make(widgets.Stack, children=children, selected_index=start[depth], **full)
        links[depth].append(made)
        return made

    sliders = [
        make(widgets.SelectionSlider, description=name, options=allowed, value=allowed[place], **named)
        for name, allowed, place in zip(names, values, start, strict=True)
    ]
    picture = stack(frames)
    for slider, targets in zip(sliders, links, strict=True):
        for target in targets:
            make(Link, (slider, "index"), (target, "selected_index"))
    head = f'<style>{_SLIDERS_CSS}{css}</style><div class="pw-sliders {kind}">{legend}</div>'
    return make(widgets.VBox, children=[make(widgets.HTML, value=head, **plain), *sliders, picture], **full)


# The reach control: a row of blocks, the last of which asks.

_REACH_CSS = (
    f"""
.pw-reach {{ --own: {PALETTE["orange"]}; --memory: {PALETTE["sky"]}; --fam: {PALETTE["green"]}; --none: #e4e8ed; }}
"""
    + """
html[data-theme="dark"] .pw-reach, body[data-jp-theme-light="false"] .pw-reach { --none: #333c47; }
.pw-reach .pw-blocks { display: flex; flex-wrap: wrap; gap: 3px; margin: .6em 0; }
.pw-reach .pw-blocks b { width: 1.35em; height: 1.35em; border-radius: .2em; background: var(--none); }
.pw-reach .own { background: var(--own) !important; }
.pw-reach .memory { background: var(--memory) !important; }
.pw-reach .fam { background: var(--fam) !important; }
.pw-reach i { display: inline-block; width: 1em; height: 1em; margin: 0 .4em 0 .9em; border-radius: .2em;
  vertical-align: -.12em; }
"""
)

_REACH_NAMES = ("blocks read so far", "M: memory segments", "F: vectors of the FAM")

_REACH_LEGEND = (
    '<p><i class="own"></i>own block<i class="memory"></i>memory segments, M a layer'
    '<i class="fam"></i>FAM<i style="background: var(--none)"></i>out of reach</p>'
)


def reach_control(lengths, segments, fams, n_layers, start, alt) -> Display:
    """Show which blocks the last token of a text can draw on, with sliders for length, M and F.

    lengths: numbers of blocks; segments: values of M; fams: values of F, of which only 0 and not 0 differ; n_layers:
    M segments in each of so many layers reach n_layers * M blocks back. start: (length, M, F) shown first; alt:
    says what the control shows. Raises ValueError for a start that is not among the values.
    """
    values = lengths, segments, fams
    picture = lambda blocks, memory, fam: _reach(blocks, memory, fam, n_layers)
    return _sliders("pw-reach", _REACH_CSS, _REACH_NAMES, values, start, picture, _REACH_LEGEND, alt)


def _reach(blocks, memory, fam, n_layers) -> str:
    """One picture: the blocks in a row, coloured by the way that leads to them, and a line of counts."""
    reached = min(memory * n_layers, blocks - 1)
    rest = blocks - 1 - reached
    kinds = ["fam" if fam else ""] * rest + ["memory"] * reached + ["own"]
    row = "".join(f'<b class="{kind}"></b>' if kind else "<b></b>" for kind in kinds)
    lost = "remembered through the FAM" if fam else "out of reach"
    counts = f"own block: 1; through memory segments: {reached}; {lost}: {rest}"
    return f'<div class="pw-blocks" aria-hidden="true">{row}</div><p>{counts}</p>'


# The filter control: translations of a sentence, of which those above a threshold pass.

_FILTER_CSS = """
.pw-filter table { width: 100%; border-collapse: collapse; margin: .4em 0; }
.pw-filter td, .pw-filter th { padding: .15em .5em; text-align: left; vertical-align: top; }
.pw-filter td + td + td, .pw-filter th + th + th { text-align: right; font-variant-numeric: tabular-nums; }
.pw-filter .out { opacity: .72; }
.pw-filter .out td:nth-child(2) { text-decoration: line-through; }
"""


def filter_control(sentences, taus, start, alt) -> Display:
    """Show which translations of a sentence pass a threshold, with sliders for the sentence, the reward and tau.

    sentences: dicts of `source`, `texts` (its translations), `human` (which of them are a person's), `rewards`
    (name -> one number each) and `gold` (one number each: chrF against the person's). taus: thresholds. start:
    (number of the sentence from 1, name of the reward, tau); alt: says what the control shows. Raises ValueError for
    a start that is not among the values.
    """
    values = range(1, len(sentences) + 1), list(sentences[0]["rewards"]), taus
    picture = lambda number, reward, tau: _filtered(sentences[number - 1], reward, tau)
    return _sliders("pw-filter", _FILTER_CSS, ("sentence", "reward", "τ"), values, start, picture, "", alt)


def _filtered(sentence, reward, tau) -> str:
    """One picture: the translations by falling reward, struck out where they do not lie strictly above tau."""
    rewards, gold = sentence["rewards"][reward], sentence["gold"]
    lines, passed = [], []
    for i in sorted(range(len(rewards)), key=lambda i: -rewards[i]):
        passes = rewards[i] > tau
        passed += [gold[i]] * (passes and not sentence["human"][i])
        text = html.escape(sentence["texts"][i])
        who, score = ("person", "") if sentence["human"][i] else ("sample", f"{gold[i]:.0f}")
        cells = f"<td>{who}</td><td>{text}</td><td>{rewards[i]:.2f}</td><td>{score}</td>"
        lines.append(f'<tr class="{"in" if passes else "out"}">{cells}</tr>')
    drawn = [score for score, human in zip(gold, sentence["human"], strict=True) if not human]
    mean = f", mean chrF {sum(passed) / len(passed):.0f}" if passed else ""
    said = f"{len(passed)} of {len(drawn)} samples pass{mean}; all samples: {sum(drawn) / len(drawn):.0f}"
    head = "<tr><th>by</th><th>translation</th><th>reward</th><th>chrF</th></tr>"
    return f"<p><em>{html.escape(sentence['source'])}</em></p><table>{head}{''.join(lines)}</table><p>{said}</p>"


# The answers control: what each system retrieved, said and cited on a question, and how that was graded.

_ANSWERS_CSS = (
    f"""
.pw-answers {{ --accurate: {PALETTE["green"]}; --incomplete: {PALETTE["orange"]};
  --hallucinated: {PALETTE["vermillion"]}; --human: {PALETTE["purple"]}; }}
"""
    + """
.pw-answers dl { margin: .5em 0; }
.pw-answers dt { margin-top: .7em; border-left: .35em solid var(--grade); padding-left: .6em; }
.pw-answers dd { margin: 0; padding-left: .6em; border-left: .35em solid var(--grade); }
.pw-answers dd + dd { font-size: .88em; opacity: .85; }
.pw-answers b { font-weight: 600; }
"""
)

_SIGNS = {"accurate": "✔", "incomplete": "◐", "hallucinated": "✘", "human": "?"}


def answers_control(questions, start, alt) -> Display:
    """Show what systems answered to a question, and their grades, with a slider for the question.

    questions: dicts of `question`, `key` and `said`, a list of dicts of `system`, `text`, `label` (one of the signs'
    names), `why`, and lists of titles `cites` and `retrieved`. start: number of the question shown first, from 1;
    alt: says what the control shows. Raises ValueError for a start that is not among them.
    """
    values = (tuple(range(1, len(questions) + 1)),)
    picture = lambda number: _answered(questions[number - 1])
    return _sliders("pw-answers", _ANSWERS_CSS, ("question",), values, (start,), picture, "", alt)


def _answered(asked) -> str:
    """One picture: the question, its key, and each system's answer with its grade."""
    lines = []
    for said in asked["said"]:
        name, text, why = (html.escape(said[field]) for field in ("system", "text", "why"))
        label = "needs a human" if said["label"] == "human" else said["label"]
        cites, retrieved = (html.escape("; ".join(said[field])) or "nothing" for field in ("cites", "retrieved"))
        style = f'style="--grade: var(--{said["label"]})"'
        lines.append(f"<dt {style}><b>{name}</b>: {_SIGNS[said['label']]} {label} ({why})</dt>")
        lines.append(f"<dd {style}>{text or '(no answer)'}</dd>")
        lines.append(f"<dd {style}>cites: {cites}; retrieved: {retrieved}</dd>")
    head = f"<p><em>{html.escape(asked['question'])}</em></p><p>Key: {html.escape(asked['key'])}</p>"
    return f"{head}<dl>{''.join(lines)}</dl>"
