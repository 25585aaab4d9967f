"""Figures: plots over seeds, pictures with alt text, and cards."""

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from paperwalk.show import figures


def image_of(markup):
    """Attributes of the one <img> of an HTML fragment."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.extend([dict(attrs)] * (tag == "img"))
    parser.feed(markup)
    (image,) = found
    return image


def test_alt_text_stands_on_the_image():
    fig, ax = plt.subplots(figsize=(6, 3))
    ax.plot([1, 2])
    faces = figures.alt(fig, 'Rises to "2" & <ends>', "A <caption>")._repr_mimebundle_()
    image = image_of(faces["text/html"])
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
