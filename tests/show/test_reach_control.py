"""The reach control of the TransformerFAM chapter: both faces say the same, and count right."""

import json
import re

import pytest
from ipywidgets import HTML, SelectionSlider, Stack
from ipywidgets.widgets.widget_link import Link

from paperwalk.papers.transformer_fam import controls

LENGTHS, SEGMENTS, FAMS = [1, 3, 9], [0, 2], [0, 4]
WIDGET = "application/vnd.jupyter.widget-view+json"


def control(start=(9, 2, 4), alt='what a "token" <reaches>'):
    return controls.reach_control(LENGTHS, SEGMENTS, FAMS, 3, start, alt)._repr_mimebundle_()


def counted(picture):
    """Blocks of each colour in a picture."""
    kinds = re.findall(r'<b(?: class="(\w+)")?></b>', picture)
    return {kind: kinds.count(kind) for kind in ("", "memory", "fam", "own")}


@pytest.mark.parametrize(
    ("blocks", "M", "fam", "expected"),
    [
        (1, 2, 4, {"": 0, "memory": 0, "fam": 0, "own": 1}),
        (9, 0, 0, {"": 8, "memory": 0, "fam": 0, "own": 1}),
        (9, 2, 0, {"": 2, "memory": 6, "fam": 0, "own": 1}),  # two segments in each of three layers
        (9, 2, 4, {"": 0, "memory": 6, "fam": 2, "own": 1}),
        (3, 2, 4, {"": 0, "memory": 2, "fam": 0, "own": 1}),
    ],
)
def test_every_block_is_counted_once_and_by_its_nearest_way(blocks, M, fam, expected):
    picture = controls.reach(blocks, M, fam, 3)
    assert counted(picture) == expected
    assert f"through memory segments: {expected['memory']}" in picture
    assert f": {expected['fam'] + expected['']}</p>" in picture


def test_page_holds_all_pictures_and_shows_the_first_without_script():
    page = control()["text/html"]
    data, _ = json.JSONDecoder().raw_decode(page[page.index('{"id"') :])
    frames = data["frames"]
    assert [len(frames), len(frames[0]), len(frames[0][0])] == [3, 2, 2]
    assert frames[2][1][1] == controls.reach(9, 2, 4, 3) and frames[2][1][1] in page
    assert 'aria-label="what a &#34;token&#34; &lt;reaches&gt;"' in page and page.count('type="range"') == 3


def test_live_sliders_choose_the_picture_without_a_kernel():
    bundle = control()
    from ipywidgets import Widget
    from ipywidgets.widgets.widget import _instances

    box = _instances[bundle[WIDGET]["model_id"]]
    assert isinstance(box, Widget)
    sliders = [child for child in box.children if isinstance(child, SelectionSlider)]
    assert [slider.value for slider in sliders] == [9, 2, 4]
    links = [each for each in _instances.values() if type(each) is Link and each.source[0] in sliders]
    assert len(links) == 1 + 3 + 6
    shown = next(child for child in box.children if isinstance(child, Stack))
    for slider, value in zip(sliders, (3, 0, 0), strict=True):
        slider.value = value
        for link in links:  # as the browser does
            if link.source[0] is slider:
                setattr(link.target[0], link.target[1], slider.index)
    while isinstance(shown, Stack):
        shown = shown.children[shown.selected_index]
    assert isinstance(shown, HTML) and controls.reach(3, 0, 0, 3) in shown.value


@pytest.mark.browser
def test_in_a_browser_a_slider_changes_the_picture(browser):
    page = browser.new_page()
    page.set_content(f"<!doctype html>{control()['text/html']}")
    picture, (length, segments, fam) = page.locator(".pw-picture"), page.get_by_role("slider").all()
    assert picture.inner_html() == controls.reach(9, 2, 4, 3)
    length.press("ArrowLeft")
    segments.press("Home")
    fam.press("Home")
    assert picture.inner_html() == controls.reach(3, 0, 0, 3)
    assert page.locator("output").all_text_contents() == ["3", "0", "0"]
    page.close()


def test_a_start_that_is_not_offered_is_refused():
    with pytest.raises(ValueError, match="memory segments = 1: must be one of"):
        control(start=(9, 1, 4))
