"""The rendered pages in a real browser: every page of the table of contents, wide and narrow, with no network."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml

from paperwalk import evidence, runs, self_test

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
PAGES = [TOC["root"], *(chapter["file"] for chapter in TOC["chapters"])]
WIDTHS = (390, 1280)  # CSS pixels: a phone and a laptop
MAX_BYTES = 3_000_000  # what a page and all that it asks for weigh on the wire
MAX_SECONDS = 2.0  # until a page is painted and its scripts have run

# What a loaded page says of itself. `markup`: text in which roles and directives must not stand.
COLLECT = """() => {
  const prose = document.querySelector("article").cloneNode(true);
  prose.querySelectorAll("pre, code, script, style, mjx-container, .cell_input").forEach(node => node.remove());
  return {
    title: document.title,
    prose: prose.textContent,
    outputs: [...document.querySelectorAll(".cell_output")].map(node => node.textContent).join("\\n"),
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    ids: [...document.querySelectorAll("[id]")].map(node => node.id),
    mute: [...document.images].filter(image => !image.alt.trim()).map(image => image.src.slice(0, 100)),
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src.slice(0, 100)),
    formulas: document.querySelectorAll("mjx-container").length,
    formula_sources: document.querySelectorAll(".math").length,
    formula_errors: document.querySelectorAll("mjx-merror").length,
  };
}"""
# How far the page reaches beyond the window once it has stopped moving: the theme's columns slide after a resize.
OVERFLOW = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const reach = () => document.scrollingElement.scrollWidth - window.innerWidth;
  let last, same = 0;
  for (let i = 0; i < 300 && same < 20; i++) {
    await frame();
    const now = reach();
    same = now === last ? same + 1 : 0;
    last = now;
  }
  return last;
}"""

# Seconds from the request until the page is painted and its document is complete with all deferred scripts.
USABLE = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const painted = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  return Math.max(page.domContentLoadedEventEnd, painted) / 1000;
}"""
# Violations of axe-core's rules that it calls serious or critical. MathJax's own markup is left to MathJax; of the
# code, where every word has a colour, the first block of a page stands for the rest.
AXE = """async (options) => {
  const code = [...document.querySelectorAll(".highlight")].slice(1);
  code.forEach((block) => block.classList.add("axe-passed-over"));
  const found = await axe.run({ exclude: [["mjx-container"], [".axe-passed-over"]] }, options);
  return found.violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .flatMap(({ id, nodes }) => nodes.map(({ target, html }) => `${id}: ${target.join(" ")}: ${html.slice(0, 120)}`));
}"""

pytestmark = pytest.mark.browser


def is_local(url: str, site: str) -> bool:
    return url.startswith((f"{site}/", "data:", "blob:"))


@pytest.fixture(scope="session")
def book() -> Path:
    """The folder of rendered pages, built if a source is newer."""
    index = HTML / "index.html"
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "book").rglob("*")]
    if not index.exists() or index.stat().st_mtime < max(file.stat().st_mtime for file in sources):
        command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-W", "--keep-going"]
        build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf8")
        assert build.returncode == 0, build.stderr[-4000:]
    return HTML


@pytest.fixture(scope="session")
def site(book):
    """The address of a local server of the rendered pages."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def open_page(browser, site):
    """A function that makes an empty page in a fresh session; the page reaches nothing but the site."""

    def open_page(**options):
        page = browser.new_page(**options)
        page.route(lambda url: not is_local(url, site), lambda route: route.abort())
        return page

    return open_page


@pytest.fixture(scope="session")
def visits(open_page, site) -> dict[str, dict]:
    """{page: what it holds and what went wrong on it}, each loaded once."""
    found = {}
    for name in PAGES:
        page, errors, requests, failed = open_page(), [], [], []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.on("console", lambda said, errors=errors: errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request, requests=requests: requests.append(request.url))
        page.on("requestfailed", lambda request, failed=failed: failed.append(request.url))
        page.on(
            "response",
            lambda response, failed=failed: failed.append(response.url) if response.status >= 400 else None,
        )
        page.on("requestfinished", lambda request, finished=(finished := []): finished.append(request))
        page.goto(f"{site}/{name}.html", wait_until="networkidle")
        page.evaluate("() => window.MathJax?.startup?.promise")
        found[name] = page.evaluate(COLLECT)
        sizes = [request.sizes() for request in finished if request.url.startswith(site)]
        found[name]["bytes"] = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)
        overflow = {}
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 844})
            overflow[width] = page.evaluate(OVERFLOW)
        foreign = [url for url in requests if not is_local(url, site)]
        found[name] |= {"errors": errors, "foreign": foreign, "failed": failed, "overflow": overflow}
        page.close()
    return found


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_without_errors(visits, name):
    assert visits[name]["title"]
    assert visits[name]["errors"] == []
    assert visits[name]["failed"] == []


@pytest.mark.parametrize("name", PAGES)
def test_page_asks_no_other_machine(visits, name):
    assert visits[name]["foreign"] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_resolve(visits, site, name):
    ids = {f"{site}/{page}.html": visit["ids"] for page, visit in visits.items()}
    dead = []
    for link in visits[name]["links"]:
        address, anchor = urldefrag(link)
        if not address.startswith(f"{site}/"):
            continue
        lacks_anchor = anchor and unquote(anchor) not in ids.get(address, [unquote(anchor)])
        if lacks_anchor or not (HTML / unquote(urlsplit(address).path).lstrip("/")).exists():
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", PAGES)
def test_images_are_shown_and_have_alt_text(visits, name):
    assert visits[name]["mute"] == []
    assert visits[name]["broken"] == []


@pytest.mark.parametrize("name", PAGES)
def test_page_weighs_little(visits, name):
    assert 10_000 < visits[name]["bytes"] <= MAX_BYTES


@pytest.mark.parametrize("name", PAGES)
def test_page_is_usable_soon(open_page, site, name):
    """At the best of three tries, since a machine that runs tests may be busy."""
    seconds = []
    while len(seconds) < 3 and min(seconds, default=MAX_SECONDS) >= MAX_SECONDS:
        page = open_page()
        page.goto(f"{site}/{name}.html")
        page.locator("article h1").wait_for()
        seconds.append(page.evaluate(USABLE))
        page.close()
    assert 0 < min(seconds) < MAX_SECONDS, seconds


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(open_page, site, name, theme):
    """All rules in the light theme; in the dark one what depends on it, the contrast."""
    from axe_playwright_python.base import AXE_SCRIPT

    page = open_page(color_scheme=theme)
    page.goto(f"{site}/{name}.html", wait_until="networkidle")
    assert page.locator("html").get_attribute("data-theme") == theme
    page.evaluate(AXE_SCRIPT)
    assert page.evaluate(AXE, {"runOnly": ["color-contrast"]} if theme == "dark" else {}) == []
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_page_does_not_scroll_sideways(visits, name, width):
    assert visits[name]["overflow"][width] <= 0


@pytest.mark.parametrize("name", PAGES)
def test_no_markup_is_left_unrendered(visits, name):
    prose, outputs = visits[name]["prose"], visits[name]["outputs"]
    for raw in ("{eval-rst}", "{glue", "{cite", "{ref}", "{eq}", "{bibliography}", ":::", "```", "](", "$$"):
        assert raw not in prose
    assert "Traceback" not in outputs


@pytest.mark.parametrize("name", PAGES)
def test_formulas_are_rendered(visits, name):
    visit = visits[name]
    assert visit["formulas"] == visit["formula_sources"]
    assert visit["formula_errors"] == 0


def test_goldfish_has_formulas(visits):
    assert visits["book/goldfish"]["formulas"] > 0


@pytest.mark.parametrize("chapter", runs.chapters())
def test_chapter_greets_the_reader(open_page, site, chapter):
    """A picture of the idea in the first screen, the facts box, and a summary in two languages."""
    page = open_page(viewport={"width": 1280, "height": 844})
    page.goto(f"{site}/book/{chapter}.html")
    idea = page.locator("article figure img").first.bounding_box()
    assert idea["y"] + idea["height"] / 2 < 844
    assert page.locator(".pw-facts dt").all_inner_texts() == ["Reading time", "Run time", "You should know"]
    english, russian = page.locator(".sd-tab-content").all()[:2]
    assert english.is_visible() and not russian.is_visible()
    page.locator(".sd-tab-set input").first.press("ArrowRight")
    assert russian.is_visible() and not english.is_visible()
    assert re.search("[а-я]{4}", russian.inner_text()) and page.locator('.sd-tab-content [lang="ru"]').count() == 1
    page.close()


@pytest.mark.parametrize("chapter", runs.chapters())
def test_definition_shows_on_focus_and_on_hover(open_page, site, chapter):
    page = open_page()
    page.goto(f"{site}/book/{chapter}.html")
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
    page.close()


@pytest.mark.parametrize("chapter", runs.chapters())
def test_solutions_are_folded(open_page, site, chapter):
    page = open_page()
    page.goto(f"{site}/book/{chapter}.html")
    exercises, solutions = page.locator(".exercise"), page.locator(".solution")
    assert exercises.count() == solutions.count() >= 1
    text = solutions.first.locator("section")
    assert not text.is_visible()
    solutions.first.locator("button.toggle-button").press("Enter")
    assert text.is_visible()
    page.close()


@pytest.mark.parametrize("chapter", runs.chapters())
def test_self_test_tells_right_from_wrong(open_page, site, chapter):
    page = open_page()
    page.goto(f"{site}/book/{chapter}.html")
    fields = page.locator(".pw-self-test fieldset").all()
    questions = self_test.read(chapter)
    assert len(fields) == len(questions) >= 1
    for field, question in zip(fields, questions, strict=True):
        options, said = field.get_by_role("radio").all(), field.get_by_role("status")
        assert not field.locator("details").is_visible()
        for number, option in enumerate(options):
            option.press("Space")
            assert said.inner_text() == ""
            field.get_by_role("button").press("Enter")
            assert ("Right" in said.inner_text()) == (number == question["answer"])
    page.close()


def test_scoreboard_filters_and_sorts_by_keyboard(open_page, site):
    page = open_page()
    page.goto(f"{site}/book/scoreboard.html")
    board = page.locator(".pw-table:has(select)")
    rows, said = board.locator("tbody tr"), board.get_by_role("status")
    column = lambda number: board.locator(f"tbody tr:not([hidden]) td:nth-child({number})").all_inner_texts()
    total = rows.count()
    assert said.inner_text() == f"{total} of {total} rows"
    for label, number in {"chapter": 1, "scale": 5, "verdict": 6}.items():
        choose = board.get_by_label(label)
        wanted = choose.locator("option").nth(1).inner_text()
        choose.press("ArrowDown")
        kept = column(number)
        assert 0 < len(kept) < total and all(wanted in text for text in kept)
        assert said.inner_text() == f"{len(kept)} of {total} rows"
        choose.select_option("")
        assert len(column(number)) == total
    for label, number in {"chapter": 1, "scale": 5}.items():
        before = column(number)
        head = board.get_by_role("button", name=label)
        head.press("Enter")
        first = column(number)
        head.press("Enter")
        second = column(number)
        assert sorted(first) == sorted(second) == sorted(before) and first[0] == second[-1] != first[-1] == second[0]
        assert board.locator("th[aria-sort]").all_inner_texts()[0].startswith(label)
    page.close()


@pytest.mark.parametrize("name", ["scoreboard", "reliability", "performance", *runs.chapters()])
def test_long_tables_stack_on_a_phone(open_page, site, name):
    page = open_page(viewport={"width": 390, "height": 844})
    page.goto(f"{site}/book/{name}.html")
    table = page.locator(".pw-stacks").first
    heads = table.locator("th").all_text_contents()
    told = "row => [...row.cells].slice(1).map(cell => getComputedStyle(cell, '::before').content)"
    assert table.locator("tbody tr").first.evaluate(told) == [f'"{head}: "' for head in heads[1:]]
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")
    page.close()


def test_scoreboard_stands_without_scripts(open_page, site):
    page = open_page(java_script_enabled=False)
    page.goto(f"{site}/book/scoreboard.html")
    board = page.locator(".pw-table:has(select)")
    assert not board.get_by_label("verdict").is_visible()
    assert board.locator("tbody tr").count() == len(evidence.scoreboard())
    page.close()


def test_every_claim_links_to_where_it_is_measured(visits, site):
    """That the anchors exist is tested with all links."""
    links = [link for link in visits["book/scoreboard"]["links"] if urldefrag(link)[1]]
    sections = [entry.get("section") for chapter in runs.chapters() for entry in evidence.claims(chapter)]
    assert all(sections)
    assert {urldefrag(link)[1] for link in links} >= set(sections)


def test_front_page_has_a_card_a_chapter(visits, open_page, site):
    page = open_page()
    page.goto(f"{site}/{TOC['root']}.html")
    cards = page.locator(".pw-cards article").all()
    linked = {card.get_by_role("link").get_attribute("href") for card in cards}
    assert linked == {f"{chapter}.html" for chapter in runs.chapters() if evidence.load(chapter, "laptop")}
    for card in cards:
        assert card.locator("img").count() == 1 and "nan" not in card.inner_text()
        assert "Claimed:" in card.inner_text() and "Found:" in card.inner_text()
    page.close()


def test_theme_switch_turns_the_page_dark(open_page, site):
    page = open_page(color_scheme="light")
    page.goto(f"{site}/{TOC['root']}.html")
    colour = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    light, seen = colour(), set()
    for _ in range(3):  # auto, light, dark
        page.locator("button.theme-switch-button").first.press("Enter")
        seen.add((page.locator("html").get_attribute("data-theme"), colour()))
    assert ("light", light) in seen and {theme for theme, _ in seen} == {"light", "dark"} and len(seen) == 2
    page.close()


@pytest.mark.parametrize("chapter", runs.chapters())
def test_chapter_prints_its_text_in_both_languages(open_page, site, chapter):
    page = open_page(viewport={"width": 794, "height": 1123})  # A4
    page.goto(f"{site}/book/{chapter}.html")
    page.emulate_media(media="print")
    assert all(text.is_visible() for text in page.locator(".sd-tab-content").all())
    assert not page.locator(".bd-sidebar-primary, .bd-header-article, .pw-self-test button").first.is_visible()
    assert page.evaluate(OVERFLOW) <= 0
    assert page.pdf().startswith(b"%PDF")
    page.close()


@pytest.mark.parametrize("notebook", runs.notebooks(), ids=lambda path: path.stem)
def test_notebook_can_be_downloaded(open_page, site, book, notebook):
    page = open_page()
    page.goto(f"{site}/book/{notebook.stem}.html")
    link = page.locator("a.btn-download-source-button").get_attribute("href")
    assert (book / "book" / link).resolve().read_bytes() == notebook.read_bytes()
    page.close()


@pytest.mark.parametrize("slider", [0, 1], ids=["k", "h"])
def test_goldfish_control_moves_by_keyboard(open_page, site, slider):
    page = open_page()
    page.goto(f"{site}/book/goldfish.html")
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
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_goldfish_control_shades_and_strikes_dropped_tokens(open_page, site, theme, scripts):
    page = open_page(color_scheme=theme, java_script_enabled=scripts)
    page.goto(f"{site}/book/goldfish.html")
    control = page.locator(".pw-mask").first
    share = re.search(r"(\d+) of (\d+) targets dropped", control.inner_text())
    dropped = control.locator(".pw-text s")
    assert 0 < dropped.count() == int(share[1]) < int(share[2])
    line, shade = dropped.first.evaluate(
        "node => [getComputedStyle(node).textDecorationLine, getComputedStyle(node).backgroundColor]"
    )
    assert line == "line-through"
    assert shade not in ("transparent", "rgba(0, 0, 0, 0)")
    assert control.get_by_role("slider").count() == (2 if scripts else 0)
    page.close()


def test_searchformer_player_plays_steps_and_ends(open_page, site):
    page = open_page()
    page.clock.install(time=0)
    page.goto(f"{site}/book/searchformer.html")
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
    page.close()


def test_reach_control_follows_its_sliders(open_page, site):
    page = open_page()
    page.goto(f"{site}/book/transformer_fam.html")
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
    page.close()


def test_filter_control_strikes_out_what_does_not_pass(open_page, site):
    page = open_page()
    page.goto(f"{site}/book/rest.html")
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
    page.close()


def test_answers_control_shows_every_system_on_every_question(open_page, site):
    page = open_page()
    page.goto(f"{site}/book/legal_rag.html")
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
    page.close()
