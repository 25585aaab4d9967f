"""figures: plots over seeds, alt text, and both faces of the live mask control."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from ipywidgets import HTML, SelectionSlider, Stack
from ipywidgets.widgets.widget_link import Link
from PIL import Image

from paperwalk import figures

TOKENS = ["The", " <b>x", "</script>", " &amp;", " \"q'", "\n", " DATA", " é𝄞", " end"]  # T = 9
KS, HS = [2, 3, 7], [1, 5]
WIDGET = "application/vnd.jupyter.widget-view+json"


def random_masks(seed=0):
    rng = np.random.default_rng(seed)
    return {(k, h): list(rng.random(len(TOKENS)) < 0.6) for k in KS for h in HS}


def control(masks=None, tokens=TOKENS, ks=KS, hs=HS, k0=3, h0=5, alt='A "text" & its <mask>'):
    return figures.token_mask_control(tokens, masks or random_masks(), ks, hs, k0, h0, alt)._repr_mimebundle_()


class Page(HTMLParser):
    """The parts of an HTML fragment that the tests look at."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.tokens, self.script, self.inside, self.dropping = [], [], "", None, False
        self.feed(markup)
        self.close()
        self.text = "".join(text for text, _ in self.tokens)
        self.dropped = [text for text, dropped in self.tokens if dropped]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("p", "script"):
            self.inside = dict(attrs).get("class", tag)
        self.dropping = tag == "s"

    def handle_endtag(self, tag):
        if tag in ("p", "script"):
            self.inside = None
        self.dropping = False

    def handle_data(self, data):
        if self.inside == "script":
            self.script += data
        elif self.inside in ("pw-text", "p"):
            self.tokens.append((data, self.dropping))

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def descendants(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from descendants(child)


def live(faces):
    """The widgets of a control's live face."""
    from ipywidgets.widgets.widget import _instances

    return list(descendants(_instances[faces[WIDGET]["model_id"]]))


def test_page_shows_all_tokens_and_strikes_the_dropped_ones():
    masks = random_masks()
    page = Page(control(masks)["text/html"])
    assert page.text == "".join(TOKENS)
    assert page.dropped == [token for token, kept in zip(TOKENS, masks[3, 5]) if not kept]
    assert page.dropped
    assert {tag for tag, _ in page.tags} == {"div", "style", "label", "span", "input", "output", "p", "s", "script"}


def test_page_script_holds_every_mask():
    masks = random_masks()
    script = Page(control(masks)["text/html"]).script
    data, _ = json.JSONDecoder().raw_decode(script[script.index('{"id"') :])
    assert (data["tokens"], data["ks"], data["hs"]) == (TOKENS, KS, HS)
    for i, k in enumerate(KS):
        for j, h in enumerate(HS):
            assert [bit == "1" for bit in data["masks"][i][j]] == masks[k, h]
    assert script.rstrip().endswith("})();")


def test_page_is_named_and_says_the_share_dropped():
    masks = random_masks()
    markup = control(masks)["text/html"]
    page = Page(markup)
    root, sliders = page.find("div")[0], page.find("input")
    assert root["role"] == "group"
    assert root["aria-label"] == 'A "text" & its <mask>'
    assert [(s["min"], s["max"], s["value"]) for s in sliders] == [("0", "2", "1"), ("0", "1", "1")]
    n = masks[3, 5].count(False)
    assert f"k = 3, h = 5: {n} of 9 targets dropped ({100 * n / 9:.1f} %)" in markup


def test_ids_follow_the_content_only():
    first, again, other = control(), control(), control(random_masks(1))
    assert first == again
    ids = [Page(faces["text/html"]).find("div")[0]["id"] for faces in (first, other)]
    assert ids[0] != ids[1]
    assert first[WIDGET]["model_id"] != other[WIDGET]["model_id"]
    assert control(alt="Other words")[WIDGET]["model_id"] != first[WIDGET]["model_id"]


def test_live_sliders_choose_the_mask():
    masks = random_masks()
    parts = live(control(masks))
    k_slider, h_slider = (part for part in parts if isinstance(part, SelectionSlider))
    outer, *rows = (part for part in parts if isinstance(part, Stack))
    assert (k_slider.value, h_slider.value) == (3, 5)
    assert (k_slider.options, h_slider.options) == (tuple(KS), tuple(HS))
    assert (outer.selected_index, [row.selected_index for row in rows]) == (1, [1, 1, 1])
    assert outer.children == tuple(rows)
    for k, row in zip(KS, rows, strict=True):
        for h, shown in zip(HS, row.children, strict=True):
            assert isinstance(shown, HTML)
            page = Page(shown.value.partition('<p class="pw-share"')[0])
            assert page.text == "".join(TOKENS)
            assert page.dropped == [token for token, kept in zip(TOKENS, masks[k, h]) if not kept]
            assert f"k = {k}, h = {h}: " in shown.value


def test_live_links_need_no_kernel():
    from ipywidgets.widgets.widget import _instances

    parts = live(control())
    sliders = [part for part in parts if isinstance(part, SelectionSlider)]
    stacks = [part for part in parts if isinstance(part, Stack)]
    ids = {part.model_id for part in parts}
    links = [w for w in _instances.values() if isinstance(w, Link) and w.source[0].model_id in ids]
    linked = {(link.source, link.target) for link in links}
    index, selected = "index", "selected_index"
    assert linked == {((sliders[0], index), (stacks[0], selected))} | {
        ((sliders[1], index), (row, selected)) for row in stacks[1:]
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k0": 4}, "k0 = 4: must be one of ks = [2, 3, 7]"),
        ({"h0": 2}, "h0 = 2: must be one of hs = [1, 5]"),
        ({"ks": [2, 3, 8]}, "masks[(8, 1)]: must hold 9 booleans"),
        ({"tokens": TOKENS[:-1]}, "masks[(2, 1)]: must hold 8 booleans"),
    ],
)
def test_control_refuses_what_it_cannot_show(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        control(**change)


def test_control_of_numpy_values():
    masks = {pair: np.array(mask) for pair, mask in random_masks().items()}
    assert control(masks, ks=np.array(KS), hs=np.array(HS), k0=np.int64(3)) == control()


def test_alt_text_stands_on_the_image():
    fig, ax = plt.subplots(figsize=(6, 3))
    ax.plot([1, 2])
    faces = figures.alt(fig, 'Rises to "2" & <ends>', "A <caption>")._repr_mimebundle_()
    (image,) = Page(faces["text/html"]).find("img")
    assert image["alt"] == faces["text/plain"] == 'Rises to "2" & <ends>'
    assert image["width"] == "600"
    assert "<figcaption>A &lt;caption&gt;</figcaption>" in faces["text/html"]
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not plt.fignum_exists(fig.number)


def test_alt_repeats_byte_for_byte():
    def picture():
        fig, ax = plt.subplots()
        ax.plot([3, 1, 2])
        return figures.alt(fig, "Three values.")._repr_mimebundle_()

    assert picture() == picture()


def test_alt_refuses_an_empty_text():
    with pytest.raises(ValueError, match="must say what the figure shows"):
        figures.alt(plt.figure(), " ")
    plt.close("all")


def test_curve_draws_mean_interval_and_seeds():
    runs = np.array([[1.0, 2.0, 4.0], [3.0, 2.5, 5.0], [2.0, 6.0, 0.0]])  # (seeds, P)
    fig, ax = plt.subplots()
    figures.curve(ax, [3, 4, 8], runs, "hashed")
    mean, *seeds = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), runs.mean(0))
    np.testing.assert_allclose([line.get_ydata() for line in seeds], runs)
    band = ax.collections[0].get_paths()[0].vertices
    half = 4.302653 * runs.std(0, ddof=1) / np.sqrt(3)  # Student's t, 2 degrees of freedom
    for x, low, high in zip([3, 4, 8], runs.mean(0) - half, runs.mean(0) + half):
        at = band[band[:, 0] == x, 1]
        np.testing.assert_allclose([at.min(), at.max()], [low, high], rtol=1e-5)
    assert ax.get_legend_handles_labels()[1] == ["hashed"]
    plt.close(fig)


def test_curve_of_one_seed_has_no_band():
    fig, ax = plt.subplots()
    figures.curve(ax, [1, 2], [[5.0, 6.0]])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [5, 6])
    assert not ax.collections
    plt.close(fig)


@pytest.mark.parametrize("runs", [[1.0, 2.0], [[1.0], [2.0]], np.zeros((0, 2))])
def test_curve_refuses_other_shapes(runs):
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match=re.escape("must be (seeds, 2)")):
        figures.curve(ax, [1, 2], runs)
    plt.close(fig)


def test_bars_draw_mean_interval_and_seeds():
    fig, ax = plt.subplots()
    figures.bars(ax, ["standard", "hash", "one"], [[0.4, 0.5, 0.9], [0.0, 0.0], [0.2]])
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.6, 0.0, 0.2])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0.4, 0.5, 0.9])
    (low, _), (high, _) = ax.collections[0].get_segments()[0]
    half = 4.302653 * np.std([0.4, 0.5, 0.9], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([low, high], [0.6 - half, 0.6 + half], rtol=1e-5)
    assert len(ax.collections) == 2  # a single seed has no interval
    assert [label.get_text() for label in ax.get_yticklabels()] == ["standard", "hash", "one"]
    assert ax.yaxis_inverted()
    plt.close(fig)


def test_bars_refuse_unequal_numbers():
    fig, ax = plt.subplots()
    with pytest.raises(ValueError, match="1 runs for 2 labels"):
        figures.bars(ax, ["a", "b"], [[1.0]])
    plt.close(fig)


def test_style_keeps_figures_opaque_and_colours_apart():
    with matplotlib.rc_context():
        figures.style()
        assert plt.rcParams["savefig.facecolor"] == "white"
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(colours)) == 7
    assert figures.PALETTE["yellow"] not in colours


def test_few_colours_keep_the_palette_apart():
    """Even where a colour is rare, as a thin line beside large areas and bands is."""
    figures.style()
    fig, ax = plt.subplots(figsize=(6, 3))
    ax.pcolormesh(np.linspace(0, 4, 21), np.linspace(0, 4, 21), np.linspace(0, 1, 400).reshape(20, 20), cmap="viridis")
    for number, colour in enumerate(figures.PALETTE.values()):
        ax.plot([5, 9], [number / 2] * 2, color=colour, linewidth=1)
        ax.fill_between([5, 9], [number / 2] * 2, [number / 2 + 0.3] * 2, color=colour, alpha=0.2, linewidth=0)
    figures._png(fig)  # the layout settles when a figure is drawn first
    full = io.BytesIO()
    fig.savefig(full, format="png", dpi=160)
    wanted = np.asarray(Image.open(full).convert("RGB")).astype(int)
    few = Image.open(io.BytesIO(figures._png(fig)))
    plt.close(fig)
    assert few.mode == "P" and len(few.getcolors()) <= 256
    assert np.abs(np.asarray(few.convert("RGB")) - wanted).max() < 32


def test_cards_link_to_their_chapters_and_escape_what_they_say():
    fig, _ = plt.subplots()
    card = figures.card("demo", "A < B", "Last, 2026", fig, "a chart", "x & y", "z")
    assert '<a href="demo.html">A &lt; B</a>' in card and "x &amp; y" in card and 'alt="a chart"' in card
    assert not plt.fignum_exists(fig.number)
    assert figures.cards([card, card])._repr_mimebundle_()["text/html"].count("<article>") == 2
    with pytest.raises(ValueError, match="must say what the figure shows"):
        figures.card("demo", "A", "B", plt.figure(), " ", "x", "z")
    plt.close("all")
