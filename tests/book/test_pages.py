"""The rendered pages in a real browser: every page of the table of contents, wide and narrow, with no network.

A page is loaded once. Its checks follow, each a subtest, in the order of this file: each finds the window at rest
(Visit.rest), but what it did to the page's controls stays. What a check may ask for by name, as of a fixture: `visit`,
its `page`, and what the page held as it was loaded, `found`.
"""

import functools
import html
import inspect
import itertools
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from playwright.sync_api import expect

from book.visit import HTML, LAPTOP, OVERFLOW, PAPER, PHONE, ROOT, Visit, build, serve
from paperwalk import evidence, runs
from paperwalk.book import freshness
from paperwalk.show import self_test

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
FRONT = TOC["root"]
PAGES = [FRONT, *(chapter["file"] for chapter in TOC["chapters"])]
CHAPTERS = [f"book/{chapter}" for chapter in runs.chapters()]
NOTEBOOKS = [f"book/{notebook.stem}" for notebook in freshness.notebooks()]
THEMES = ("light", "dark")
MAX_BYTES = 3_000_000  # what a page and all that it asks for weigh on the wire
MAX_SECONDS = 2.0  # of one core until a page's document is complete and its scripts have run

pytestmark = pytest.mark.browser

CHECKS = []  # (function, its further arguments, the pages)


def on(*names: str, **choices):
    """Makes a function a check of these pages, once for each combination of the choices."""
    assert set(names) <= set(PAGES)

    def add(check):
        for chosen in itertools.product(*choices.values()):
            CHECKS.append((check, dict(zip(choices, chosen)), names))
        return check

    return add


@pytest.fixture(scope="session")
def site():
    """The address of the rendered pages on a local server."""
    with serve(build()) as address:
        yield address


def visited(browser, site, subtests, name):
    with Visit(browser, site, name) as visit:
        offered = {"visit": visit, "page": visit.page, "found": visit.found}
        for check, chosen, names in CHECKS:
            if name in names:
                asked = {each: offered[each] for each in inspect.signature(check).parameters if each in offered}
                with subtests.test(check.__name__, **chosen):
                    if "page" in asked:
                        visit.rest()
                    check(**asked, **chosen)


class TestChapters:
    @pytest.mark.parametrize("name", CHAPTERS)
    def test_page(self, browser, site, subtests, name):
        visited(browser, site, subtests, name)


class TestOtherPages:  # a class of its own, so that another process may take it
    @pytest.mark.parametrize("name", [page for page in PAGES if page not in CHAPTERS])
    def test_page(self, browser, site, subtests, name):
        visited(browser, site, subtests, name)


@functools.cache
def anchors(file: Path) -> set[str]:
    """The ids in a rendered page."""
    return set(map(html.unescape, re.findall(r'\sid="([^"]*)"', file.read_text("utf8"))))


@on(*PAGES)
def page_loads_without_errors(visit, found):
    assert found["title"]
    assert visit.errors == []
    assert visit.failed == []


@on(*PAGES)
def page_asks_no_other_machine(visit):
    assert visit.foreign() == []


@on(*PAGES)
def page_is_usable_soon(visit, found):
    """In the processor's time, since a machine that runs tests may be busy; at the best of three tries."""
    seconds = [found["seconds"]]
    while len(seconds) < 3 and min(seconds) >= MAX_SECONDS:
        with visit.again() as another:
            seconds.append(another.found["seconds"])
    assert 0 < min(seconds) < MAX_SECONDS, seconds
    assert found["painted"]


@on(*PAGES)
def page_weighs_little(found):
    assert 10_000 < found["bytes"] <= MAX_BYTES


@on(*PAGES)
def links_and_anchors_resolve(visit, found):
    dead = []
    for link in found["links"]:
        address, anchor = urldefrag(link)
        if not address.startswith(f"{visit.site}/"):
            continue
        file = HTML / unquote(urlsplit(address).path).lstrip("/")
        lacks_anchor = anchor and file.suffix == ".html" and file.exists() and unquote(anchor) not in anchors(file)
        if lacks_anchor or not file.exists():
            dead.append(link)
    assert dead == []


@on(*PAGES)
def images_are_shown_and_have_alt_text(found):
    assert found["mute"] == []
    assert found["broken"] == []


@on(*PAGES)
def no_markup_is_left_unrendered(found):
    for raw in ("{eval-rst}", "{glue", "{cite", "{ref}", "{eq}", "{bibliography}", ":::", "```", "](", "$$"):
        assert raw not in found["prose"]
    assert "Traceback" not in found["outputs"]


@on(*PAGES)
def formulas_are_rendered(found):
    assert found["formulas"] == found["formula_sources"]
    assert found["formula_errors"] == 0


@on("book/goldfish")
def goldfish_has_formulas(found):
    assert found["formulas"] > 0


@on(*PAGES, theme=THEMES)
def page_is_accessible(visit, page, theme):
    """All rules in the light theme; in the dark one what depends on it, the contrast."""
    page.emulate_media(color_scheme=theme)
    expect(page.locator("html")).to_have_attribute("data-theme", theme, timeout=30_000)  # a long page, a busy machine
    assert visit.violations(**{"runOnly": ["color-contrast"]} if theme == "dark" else {}) == []


@on(*PAGES, width=(PHONE["width"], LAPTOP["width"]))
def page_does_not_scroll_sideways(page, width):
    page.set_viewport_size(LAPTOP | {"width": width})
    assert page.evaluate(OVERFLOW) <= 0


@on("book/scoreboard", "book/reliability", "book/performance", *CHAPTERS)
def long_tables_stack_on_a_phone(page):
    page.set_viewport_size(PHONE)
    table = page.locator(".pw-stacks").first
    heads = table.locator("th").all_text_contents()
    told = "row => [...row.cells].slice(1).map(cell => getComputedStyle(cell, '::before').content)"
    assert table.locator("tbody tr").first.evaluate(told) == [f'"{head}: "' for head in heads[1:]]
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")


@on(*CHAPTERS)
def chapter_greets_the_reader(page):
    """A picture of the idea in the first screen, the facts box, and a summary in two languages."""
    idea = page.locator("article figure img").first.bounding_box()
    assert idea["y"] + idea["height"] / 2 < LAPTOP["height"]
    assert page.locator(".pw-facts dt").all_inner_texts() == ["Reading time", "Run time", "You should know"]
    english, russian = page.locator(".sd-tab-content").all()[:2]
    assert english.is_visible() and not russian.is_visible()
    page.locator(".sd-tab-set input").first.press("ArrowRight")
    assert russian.is_visible() and not english.is_visible()
    assert re.search("[а-я]{4}", russian.inner_text()) and page.locator('.sd-tab-content [lang="ru"]').count() == 1


@on(*CHAPTERS)
def definition_shows_on_focus_and_on_hover(page):
    word = page.locator("article .pw-term").first
    link, definition = word.get_by_role("link"), word.locator('[role="tooltip"]')
    assert not definition.is_visible()
    link.focus()
    assert definition.is_visible() and len(definition.inner_text()) > 20
    assert link.get_attribute("aria-describedby") == definition.get_attribute("id")
    link.blur()
    assert not definition.is_visible()
    link.hover()
    assert definition.is_visible()


@on(*CHAPTERS)
def solutions_are_folded(page):
    exercises, solutions = page.locator(".exercise"), page.locator(".solution")
    assert exercises.count() == solutions.count() >= 1
    text = solutions.first.locator("section")
    assert not text.is_visible()
    solutions.first.locator("button.toggle-button").press("Enter")
    assert text.is_visible()


@on(*CHAPTERS)
def self_test_tells_right_from_wrong(visit, page):
    fields = page.locator(".pw-self-test fieldset").all()
    questions = self_test.read(Path(visit.name).name)
    assert len(fields) == len(questions) >= 1
    for field, question in zip(fields, questions, strict=True):
        options, said = field.get_by_role("radio").all(), field.get_by_role("status")
        assert not field.locator("details").is_visible()
        for number, option in enumerate(options):
            option.press("Space")
            assert said.inner_text() == ""
            field.get_by_role("button").press("Enter")
            assert ("Right" in said.inner_text()) == (number == question["answer"])


@on(*CHAPTERS)
def chapter_prints_its_text_in_both_languages(page):
    page.set_viewport_size(PAPER)
    page.emulate_media(media="print")
    assert all(text.is_visible() for text in page.locator(".sd-tab-content").all())
    assert not page.locator(".bd-sidebar-primary, .bd-header-article, .pw-self-test button").first.is_visible()
    assert page.evaluate(OVERFLOW) <= 0
    assert page.pdf().startswith(b"%PDF")


@on(*NOTEBOOKS)
def notebook_can_be_downloaded(visit, page):
    link = page.locator("a.btn-download-source-button").get_attribute("href")
    source = (ROOT / visit.name).with_suffix(".ipynb")
    assert (HTML / "book" / link).resolve().read_bytes() == source.read_bytes()


@on("book/scoreboard")
def scoreboard_stands_without_scripts(visit):
    claims = [entry for chapter in runs.chapters() for entry in evidence.claims(chapter)]
    with visit.again(scripts=False) as plain:
        board = plain.page.locator(".pw-table:has(select)")
        assert not board.get_by_label("verdict").is_visible()
        assert board.locator("tbody tr").count() == len(claims)


@on("book/scoreboard")
def every_claim_links_to_where_it_is_measured(found):
    """That the anchors exist is tested with all links."""
    links = [link for link in found["links"] if urldefrag(link)[1]]
    sections = [entry.get("section") for chapter in runs.chapters() for entry in evidence.claims(chapter)]
    assert all(sections)
    assert {urldefrag(link)[1] for link in links} >= set(sections)


@on("book/scoreboard")
def scoreboard_filters_by_keyboard_and_by_words_and_the_address_keeps_it(page):
    board = page.locator(".pw-table:has(select)")
    rows, said = board.locator("tbody tr"), board.get_by_role("status")
    shown = lambda: board.locator("tbody tr:not([hidden])").count()
    total = rows.count()
    assert said.inner_text() == f"{total} of {total} rows"
    claims = [entry | {"chapter": chapter} for chapter in runs.chapters() for entry in evidence.claims(chapter)]
    for label in ("chapter", "source"):
        choose = board.get_by_label(label)
        wanted = choose.locator("option").nth(1).inner_text()
        choose.press("ArrowDown")
        assert shown() == sum(claim[label] == wanted for claim in claims) < total
        assert said.inner_text() == f"{shown()} of {total} rows" and f"{label}={wanted}" in page.url
        choose.select_option("")
    board.get_by_label("headline").select_option(label="headline")
    assert shown() == sum(claim.get("headline", False) for claim in claims)
    board.get_by_label("words").fill("goldfish")
    assert 0 < shown() == sum(claim.get("headline", False) and claim["chapter"] == "goldfish" for claim in claims)
    kept, address = shown(), page.url
    page.goto("about:blank")
    page.goto(address)
    assert board.get_by_label("words").input_value() == "goldfish" and shown() == kept


@on("book/scoreboard")
def scoreboard_sorts_by_verdict(page):
    board = page.locator(".pw-table:has(select)")
    order = lambda: [int(row.get_attribute("data-2")) for row in board.locator("tbody tr").all()]
    for press in range(2):
        board.get_by_role("button", name="verdict").press("Enter")
        assert order() == sorted(order(), reverse=bool(press))
        assert board.locator("th[aria-sort]").count() == 1


@on("book/scoreboard")
def scoreboard_is_short_on_a_phone_until_all_is_asked_for(page):
    address = page.url.partition("#")[0]
    page.goto("about:blank")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    board = page.locator(".pw-table:has(select)")
    whole = board.get_by_role("button", name="Show all rows")
    assert page.evaluate("document.documentElement.scrollHeight") <= 6 * 844
    assert board.locator("tbody tr:not([hidden])").count() == 8
    whole.press("Enter")
    assert board.locator("tbody tr[hidden]").count() == 0 and not whole.is_visible()


@on(FRONT)
def front_page_has_a_card_a_chapter(page):
    cards = page.locator(".pw-cards article").all()
    linked = {card.get_by_role("link").get_attribute("href") for card in cards}
    assert linked == {f"{chapter}.html" for chapter in runs.chapters() if evidence.shown(chapter)}
    for card in cards:
        assert card.locator("img").count() == 1 and "nan" not in card.inner_text()
        assert "Claimed:" in card.inner_text() and "Found:" in card.inner_text()


@on(FRONT)
def theme_switch_turns_the_page_dark(page):
    colour = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    light, seen = colour(), set()
    for _ in range(3):  # auto, light, dark
        page.locator("button.theme-switch-button").first.press("Enter")
        seen.add((page.locator("html").get_attribute("data-theme"), colour()))
    assert ("light", light) in seen and {theme for theme, _ in seen} == {"light", "dark"} and len(seen) == 2


@on(FRONT)
def page_opens_in_the_theme_of_the_system(page):
    """The one that is loaded anew: all pages have this from the theme."""
    for theme in reversed(THEMES):
        page.emulate_media(color_scheme=theme)
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == theme


@on("book/goldfish", slider=[0, 1])
def goldfish_control_moves_by_keyboard(page, slider):
    control = page.locator(".pw-mask").first
    read_out, text = control.locator("output").nth(slider), control.locator(".pw-text")

    def shown():
        return read_out.inner_text(), control.locator(".pw-share").inner_text(), text.inner_html()

    words, before = text.inner_text(), shown()
    handle = control.get_by_role("slider").nth(slider)
    key = "ArrowLeft" if handle.input_value() == handle.get_attribute("max") else "ArrowRight"
    handle.press(key)
    after = shown()
    assert all(old != new for old, new in zip(before, after, strict=True)), (before, after)
    assert handle.get_attribute("aria-valuetext") == after[0]
    assert text.inner_text() == words
    handle.press("ArrowRight" if key == "ArrowLeft" else "ArrowLeft")
    assert shown() == before


def shades_and_strikes_dropped_tokens(page, theme):
    """Checks the control of a page with or without scripts, and returns it."""
    page.emulate_media(color_scheme=theme)
    control = page.locator(".pw-mask").first
    share = re.search(r"(\d+) of (\d+) targets dropped", control.inner_text())
    dropped = control.locator(".pw-text s")
    assert 0 < dropped.count() == int(share[1]) < int(share[2])
    line, shade = dropped.first.evaluate(
        "node => [getComputedStyle(node).textDecorationLine, getComputedStyle(node).backgroundColor]"
    )
    assert line == "line-through"
    assert shade not in ("transparent", "rgba(0, 0, 0, 0)")
    return control


@on("book/goldfish", theme=THEMES)
def goldfish_control_shows_what_is_dropped(page, theme):
    assert shades_and_strikes_dropped_tokens(page, theme).get_by_role("slider").count() == 2


@on("book/goldfish")
def goldfish_control_shows_what_is_dropped_without_scripts(visit):
    with visit.again(scripts=False) as plain:
        for theme in THEMES:
            assert shades_and_strikes_dropped_tokens(plain.page, theme).get_by_role("slider").count() == 0


@on("book/transformer_fam")
def reach_control_follows_its_sliders(page):
    control = page.locator(".pw-reach").first
    length, segments, fam = control.get_by_role("slider").all()
    reached = lambda: [control.locator(f".pw-blocks b{kind}").count() for kind in ("", ".memory", ".fam")]
    assert reached() == [24, 2, 21]  # two layers with one segment each, and what only the FAM carries
    fam.press("Home")
    assert reached() == [24, 2, 0]
    segments.press("End")
    assert reached() == [24, 8, 0]
    length.press("Home")
    assert reached() == [2, 1, 0]


@on("book/rest")
def filter_control_strikes_out_what_does_not_pass(page):
    control = page.locator(".pw-filter").first
    sentence, reward, tau = control.get_by_role("slider").all()
    struck = lambda: [control.locator(f"tr.{kind}").count() for kind in ("in", "out")]
    start, source = struck(), control.locator("em").inner_text()
    assert sum(start) > 5 and start[1] > 0
    tau.press("Home")
    low = struck()
    tau.press("End")
    high = struck()
    assert low[0] > start[0] > high[0] and sum(low) == sum(high) == sum(start)
    reward.press("End")
    assert sum(struck()) == sum(start)  # other rewards of the same translations
    sentence.press("End")
    assert control.locator("em").inner_text() != source


@on("book/legal_rag")
def answers_control_shows_every_system_on_every_question(page):
    control = page.locator(".pw-answers").first
    (number,) = control.get_by_role("slider").all()
    seen = set()
    number.press("Home")
    for _ in range(1 + int(number.get_attribute("max"))):
        assert control.locator("dt").count() >= 6 and control.locator("dd").count() == 2 * control.locator("dt").count()
        assert all(any(sign in said for sign in "✔◐✘?") for said in control.locator("dt").all_inner_texts())
        seen.add(control.locator("em").inner_text())
        number.press("ArrowRight")
    assert len(seen) > 5


@on("book/searchformer")
def searchformer_player_plays_steps_and_ends(page):
    """The last on its page, whose clock it takes over."""
    page.clock.install(time=0)
    player = page.locator(".pw-search").first
    slider, button = player.get_by_role("slider"), player.get_by_role("button")

    def shown():
        """Step, cells opened or closed so far, and whether the path is drawn."""
        cells = player.locator(".pw-nodes .create, .pw-nodes .close")
        return int(slider.input_value()), cells.count(), player.locator(".pw-path").is_visible()

    last, cells, path = shown()
    assert last > 20 and cells > 10 and path  # without a touch the page shows the finished search
    slider.press("Home")
    assert shown() == (0, 0, False)
    slider.press("ArrowRight")
    assert shown() == (1, 1, False)  # the start is opened
    button.click()
    page.clock.run_for(5000)
    now = shown()
    assert 1 < now[0] and now[1] > 1
    page.clock.run_for(120_000)
    assert shown() == (last, cells, path) and button.inner_text() == "Play"


@on(*PAGES)
def nothing_failed_while_the_page_was_used(visit):
    """After all other checks."""
    assert visit.errors == []
    assert visit.failed == []
    assert visit.foreign() == []
