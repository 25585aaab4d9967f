"""The mask control of the goldfish chapter: both faces strike out the same tokens, and say how many."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from ipywidgets import HTML, SelectionSlider, Stack
from ipywidgets.widgets.widget_link import Link

from paperwalk.papers.goldfish import controls

TOKENS = ["The", " <b>x", "</script>", " &amp;", " \"q'", "\n", " DATA", " é𝄞", " end"]  # T = 9
KS, HS = [2, 3, 7], [1, 5]
WIDGET = "application/vnd.jupyter.widget-view+json"


def random_masks(seed=0):
    rng = np.random.default_rng(seed)
    return {(k, h): list(rng.random(len(TOKENS)) < 0.6) for k in KS for h in HS}


def control(masks=None, tokens=TOKENS, ks=KS, hs=HS, k0=3, h0=5, alt='A "text" & its <mask>'):
    return controls.token_mask_control(tokens, masks or random_masks(), ks, hs, k0, h0, alt)._repr_mimebundle_()


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
    assert (data["tokens"], data["values"]) == (TOKENS, [["k = 2", "k = 3", "k = 7"], ["h = 1", "h = 5"]])
    for i, k in enumerate(KS):
        for j, h in enumerate(HS):
            assert [bit == "1" for bit in data["masks"][i][j]] == masks[k, h]
    assert script.rstrip().endswith("});")


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
        ({"k0": 4}, "one target in k is dropped = 4: must be one of [2, 3, 7]"),
        ({"h0": 2}, "tokens that the hash sees = 2: must be one of [1, 5]"),
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


@pytest.mark.browser
def test_in_a_browser_every_choice_shows_its_mask(browser):
    masks = random_masks()
    page = browser.new_page()
    page.set_content(f"<!doctype html>{control(masks)['text/html']}")
    k_slider, h_slider = page.get_by_role("slider").all()
    k_slider.press("Home")
    for k in KS:
        h_slider.press("Home")
        for h in HS:
            n = masks[k, h].count(False)
            said = f"k = {k}, h = {h}: {n} of 9 targets dropped ({100 * n / 9:.1f} %)"
            assert page.locator("[aria-live]").all_text_contents() == [said]
            dropped = [token for token, kept in zip(TOKENS, masks[k, h]) if not kept]
            assert page.locator(".pw-text s").all_text_contents() == dropped
            assert page.locator(".pw-text").text_content() == "".join(TOKENS)
            assert page.locator("output").all_text_contents() == [f"k = {k}", f"h = {h}"]
            assert h_slider.get_attribute("aria-valuetext") == f"h = {h}"
            h_slider.press("ArrowRight")
        k_slider.press("ArrowRight")
    page.close()
