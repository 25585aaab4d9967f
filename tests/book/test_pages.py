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

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
PAGES = [TOC["root"], *(chapter["file"] for chapter in TOC["chapters"])]
WIDTHS = (390, 1280)  # CSS pixels: a phone and a laptop

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

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
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


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
        page.goto(f"{site}/{name}.html", wait_until="networkidle")
        page.evaluate("() => window.MathJax?.startup?.promise")
        found[name] = page.evaluate(COLLECT)
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
