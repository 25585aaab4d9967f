"""The search player of the Searchformer chapter: what both of its faces show at every step."""

import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import numpy as np
import pytest
from ipywidgets import HTML, IntSlider, Play, Stack
from ipywidgets.embed import dependency_state
from ipywidgets.widgets.widget import _instances
from ipywidgets.widgets.widget_link import Link

from paperwalk.papers.searchformer import controls

WIDGET = "application/vnd.jupyter.widget-view+json"

# Figure 1 of Lehnert et al. (arXiv 2402.14083).
PAPER = {
    "width": 3,
    "height": 3,
    "start": (0, 2),
    "goal": (1, 0),
    "walls": [(1, 2), (2, 0)],
    "events": [
        ("create", 0, 2, 0, 3),
        ("close", 0, 2, 0, 3),
        ("create", 0, 1, 1, 2),
        ("close", 0, 1, 1, 2),
        ("create", 0, 0, 2, 1),
        ("create", 1, 1, 2, 1),
        ("close", 0, 0, 2, 1),
        ("create", 1, 0, 3, 0),
        ("close", 1, 0, 3, 0),
    ],
    "plan": [(0, 2), (0, 1), (0, 0), (1, 0)],
}


def random_log(width, height, steps, seed):
    """A log that is no search: nodes are created again at another cost, closed, and opened again."""
    rng = np.random.default_rng(seed)
    cells = [(int(i) % width, int(i) // width) for i in rng.permutation(width * height)]
    walls, free = cells[: len(cells) // 3], cells[len(cells) // 3 :]
    events, is_open = [], set()
    for _ in range(steps):
        cell = free[rng.integers(len(free))]
        kind = "close" if cell in is_open and rng.random() < 0.6 else "create"
        (is_open.discard if kind == "close" else is_open.add)(cell)
        events.append((kind, *cell, int(rng.integers(60)), int(rng.integers(60))))
    start, goal, *plan = free[:4]
    return dict(width=width, height=height, start=start, goal=goal, walls=walls, events=events, plan=plan)


LOGS = {"paper": PAPER, "wide": random_log(12, 4, 60, 0), "tall": random_log(3, 6, 25, 1)}


def faces(**search):
    return controls.search_player(**search)._repr_mimebundle_()


def expected(search, t):
    """What step t must show; positions are (column, row from the top)."""
    frontier, closed = {}, {}
    for kind, x, y, g, h in search["events"][:t]:
        node = (x, search["height"] - 1 - y)
        if kind == "create":
            closed.pop(node, None)
            frontier[node] = (str(g + h), f"{g}+{h}")
        else:
            frontier.pop(node, None)
            closed[node] = (str(g + h), f"{g}+{h}")
    kinds = [event[0] for event in search["events"][:t]]
    created, closings = kinds.count("create"), kinds.count("close")
    kind, x, y, g, h = search["events"][t - 1]
    return {
        "open": frontier,
        "closed": closed,
        "now": (x, search["height"] - 1 - y) if t else None,
        "path": t == len(search["events"]),
        "tokens": f"{kind} {x} {y} c{g} c{h}" if t else "",
        "counts": f"step {t} of {len(search['events'])}: {created} created, {closings} closed",
    }


class Parts(HTMLParser):
    """Every element of a fragment: (tag, classes of the elements around it, its attributes, its own text)."""

    def __init__(self, markup):
        super().__init__()
        self.parts, self.around = [], []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag != "input":
            self.around.append((dict(attrs).get("class", ""), self.parts[-1]))

    def handle_startendtag(self, tag, attrs):
        self.parts.append((tag, " ".join(name for name, _ in self.around), dict(attrs), []))

    def handle_endtag(self, tag):
        self.around.pop()

    def handle_data(self, data):
        if self.around:
            self.around[-1][1][3].append(data)

    def find(self, tag, around=""):
        return [(attrs, "".join(text)) for name, inside, attrs, text in self.parts if name == tag and around in inside]


def cell_at(attrs):
    return int(attrs["x"]) // 40, int(attrs["y"]) // 40


def shown(markup):
    """What a static picture shows, in the form of `expected`."""
    parts = Parts(markup)
    totals = {cell_at(attrs): text for attrs, text in parts.find("text", "pw-costs")}
    sums = [text for _, text in parts.find("tspan", "pw-costs")]
    costs = dict(zip(totals, zip(totals.values(), sums, strict=True), strict=True))
    nodes = {cell_at(attrs): attrs["class"] for attrs, _ in parts.find("rect", "pw-nodes")}
    assert nodes.keys() == costs.keys()
    (now,) = (attrs for attrs, _ in parts.find("rect") if attrs.get("class") == "pw-now")
    (path,) = (attrs for attrs, _ in parts.find("g") if attrs.get("class") == "pw-path")
    return {
        "open": {cell: costs[cell] for cell, kind in nodes.items() if kind == "create"},
        "closed": {cell: costs[cell] for cell, kind in nodes.items() if kind == "close"},
        "now": None if "hidden" in now else cell_at(now),
        "path": "hidden" not in path,
        "tokens": parts.find("code")[0][1],
        "counts": next(text for _, text in parts.find("span") if text.startswith("step ")),
    }


def descendants(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from descendants(child)


def live(search, kind):
    """The one part of that kind of a player's live face."""
    (part,) = (part for part in descendants(_instances[faces(**search)[WIDGET]["model_id"]]) if isinstance(part, kind))
    return part


@pytest.mark.parametrize("name", LOGS)
def test_static_page_shows_the_last_step(name):
    search = LOGS[name]
    assert shown(faces(**search)["text/html"]) == expected(search, len(search["events"]))


@pytest.mark.parametrize("name", LOGS)
def test_live_frames_show_every_step(name):
    search = LOGS[name]
    film = live(search, Stack)
    assert len(film.children) == len(search["events"]) + 1
    assert film.selected_index == len(search["events"])
    for t, frame in enumerate(film.children):
        assert isinstance(frame, HTML)
        assert shown(frame.value) == expected(search, t), t


def test_live_links_need_no_kernel():
    play, slider, film = (live(PAPER, kind) for kind in (Play, IntSlider, Stack))
    assert (play.min, play.max, play.value) == (slider.min, slider.max, slider.value) == (0, 9, 9)
    linked = [
        (w.source, w.target) for w in _instances.values() if isinstance(w, Link) and w.source[0] in (play, slider)
    ]
    assert len(linked) == 2
    assert ((play, "value"), (slider, "value")) in linked
    assert ((slider, "value"), (film, "selected_index")) in linked


def test_board_has_walls_path_and_both_ends_with_y_upwards():
    parts = Parts(faces(**PAPER)["text/html"])
    (wall,) = (attrs["d"] for attrs, _ in parts.find("path") if attrs["class"] == "pw-wall")
    assert sorted(re.findall(r"M(\d+) (\d+)", wall)) == [("40", "0"), ("80", "80")]  # (1, 2) is in the top row
    assert {attrs["points"] for attrs, _ in parts.find("polyline")} == {"20,20 20,60 20,100 60,100"}
    ends = {text: (int(attrs["x"]) // 40, int(attrs["y"]) // 40) for attrs, text in parts.find("text", "pw-ends")}
    assert ends == {"S": (0, 0), "G": (1, 2)}
    labels = [(text, int(attrs["x"]) // 40, int(attrs["y"]) // 40) for attrs, text in parts.find("text", "pw-axis")]
    assert labels == [("0", 0, 3), ("1", 1, 3), ("2", 2, 3), ("0", -1, 2), ("1", -1, 1), ("2", -1, 0)]


def test_board_is_described():
    page = faces(**PAPER)
    (image,) = (attrs for attrs, _ in Parts(page["text/html"]).find("svg"))
    assert image["role"] == "img"
    assert image["aria-label"] == page["text/plain"]
    for words in (
        "3 by 3 cells, 2 of them walls",
        "S at (0, 2)",
        "G at (1, 0)",
        "9 events",
        "4 nodes are closed and 1 open",
    ):
        assert words in image["aria-label"]
    assert "path of 4 cells" in image["aria-label"]
    assert "there is no path" in faces(**PAPER | {"plan": []})["text/plain"]


def test_page_is_small_and_reaches_nothing():
    search = random_log(10, 10, 300, 2)
    page = faces(**search)["text/html"]
    assert len(page) < 30_000
    assert not re.search(r"//|@import|\burl\(|\bsrc=|\bid=", page)


def test_ids_follow_the_content_only():
    first = faces(**PAPER)
    assert faces(**PAPER) == first
    assert faces(**PAPER | {"walls": PAPER["walls"][::-1] * 2}) == first  # a set of cells
    for change in ({"plan": []}, {"events": PAPER["events"][:-1]}, {"goal": (1, 1)}, {"walls": []}, {"width": 4}):
        other = faces(**PAPER | change)
        assert other[WIDGET]["model_id"] != first[WIDGET]["model_id"]
        names = [re.search(r"pw-search-\w+", page["text/html"])[0] for page in (first, other)]
        assert names[0] != names[1]


def test_widget_ids_repeat_from_run_to_run():
    root = faces(**PAPER)[WIDGET]["model_id"]
    state = dependency_state(_instances[root])
    assert len(state) > 20  # with layouts, styles and links
    assert all(name.startswith(root[:16]) for name in state)


def test_player_of_numpy_values():
    values = {
        "width": np.int64(3), "height": np.int32(3), "start": np.array([0, 2]), "goal": np.array([1, 0]),
        "walls": np.array(PAPER["walls"]), "plan": np.array(PAPER["plan"]),
        "events": [(kind, *np.array(numbers)) for kind, *numbers in PAPER["events"]],
    }  # fmt: skip
    assert faces(**values) == faces(**PAPER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": []}, "events = []: must hold at least one event"),
        ({"events": [*PAPER["events"], ("open", 0, 1, 1, 2)]}, "events[9] = ('open', 0, 1, 1, 2): must be a 'create'"),
        ({"events": [("create", 3, 0, 1, 2)]}, "events[0] = ('create', 3, 0, 1, 2): must be in the grid of 3 x 3"),
        ({"events": [("close", 0, -1, 1, 2)]}, "events[0] = ('close', 0, -1, 1, 2): must be in the grid of 3 x 3"),
        ({"events": [("create", 1, 2, 1, 2)]}, "events[0] = ('create', 1, 2, 1, 2): must not be on a wall"),
        ({"start": (0, 3)}, "start = (0, 3): must be in the grid of 3 x 3 cells"),
        ({"goal": (2, 0)}, "goal = (2, 0): must not be on a wall"),
        ({"plan": [(0, 2), (1, 2)]}, "plan[1] = (1, 2): must not be on a wall"),
        ({"walls": [(2, 5)]}, "walls: (2, 5): must be in the grid of 3 x 3 cells"),
    ],
)
def test_player_refuses_what_it_cannot_show(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        controls.search_player(**PAPER | change)


# In a browser. Every page is visited once; the tests look at what was seen.

SEEN = """root => {
  const at = (node, name) => Math.floor(node.getAttribute(name) / 40);
  const cell = node => [at(node, "x"), at(node, "y")];
  const visible = node => getComputedStyle(node).display !== "none", now = root.querySelector(".pw-now");
  const costs = [...root.querySelectorAll(".pw-costs text")];
  const nodes = [...root.querySelectorAll(".pw-nodes rect")].map((rect, i) => [
    rect.getAttribute("class"), cell(rect), cell(costs[i]), [costs[i].firstChild.data, costs[i].lastChild.textContent],
  ]);
  const [tokens, counts] = [...root.querySelectorAll("p > *")].map(node => node.textContent);
  const path = visible(root.querySelector(".pw-path"));
  return { nodes, tokens, counts, path, now: visible(now) ? cell(now) : null };
}"""
COLOURS = """root => {
  const style = (selector, name) => getComputedStyle(root.querySelector(selector))[name];
  return {
    text: style(".pw-costs text", "fill"), create: style(".create", "fill"), close: style(".close", "fill"),
    path: style("polyline + polyline", "stroke"), ink: style(".pw-now", "stroke"), free: style(".pw-free", "fill"),
    wall: style(".pw-wall", "fill"), radii: [style(".create", "rx"), style(".close", "rx")],
    page: getComputedStyle(document.body).backgroundColor,
  };
}"""
LOADED = ["wide", "paper", "wide"]  # the third is the first again


def seen(player):
    """What a player in the browser shows, in the form of `expected`."""
    found = player.evaluate(SEEN)
    states = {"create": {}, "close": {}, "": {}}
    for kind, cell, cost_cell, costs in found.pop("nodes"):
        assert cell == cost_cell
        states[kind][tuple(cell)] = tuple(costs)
    assert set(states[""].values()) <= {("", "")}
    now = found["now"] and tuple(found["now"])
    return found | {"open": states["create"], "closed": states["close"], "now": now}


def document(theme="light"):
    page = {"light": "white", "dark": "#121212"}[theme]
    players = "".join(faces(**LOGS[name])["text/html"] for name in LOADED)
    return (
        f'<!doctype html><html lang="en" data-theme="{theme}"><meta charset="utf-8"><title>Players</title>'
        f'<meta name="viewport" content="width=device-width"><body style="background:{page}">{players}'
    )


def visit(executable, folder):
    """Visit the players in all ways and return what was seen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        facts = {"errors": [], "requests": []}

        def load(theme="light", **options):
            file = folder / f"{theme}.html"
            file.write_text(document(theme), "utf8")
            page = browser.new_page(**options)
            page.on("pageerror", lambda error: facts["errors"].append(str(error)))
            page.on("request", lambda request: facts["requests"].append(request.url))
            page.clock.install(time=0)
            page.clock.pause_at(1)  # time passes in run_for only
            page.goto(file.as_uri())
            return page, page.locator(".pw-search").all()

        page, players = load()
        facts["buttons"] = [player.get_by_role("button").inner_text() for player in players]
        facts["loaded"] = [seen(player) for player in players]
        page.clock.run_for(60_000)
        facts["left alone"] = [seen(player) for player in players]
        slider = players[1].get_by_role("slider", name="step of the search")
        slider.press("Home")
        facts["by keyboard"], facts["spoken"] = [], []
        for _ in range(len(PAPER["events"]) + 1):
            facts["by keyboard"].append(seen(players[1]))
            facts["spoken"].append(slider.get_attribute("aria-valuetext"))
            slider.press("ArrowRight")
        slider.press("Home")
        facts["neighbours"] = [seen(players[0]), seen(players[2])]

        def dragged(player, t):
            player.get_by_role("slider").evaluate(
                "(node, t) => { node.value = t; node.dispatchEvent(new Event('input')) }", t
            )
            return seen(player)

        facts["dragged"] = [dragged(players[0], t) for t in range(len(LOGS["wide"]["events"]) + 1)]
        facts["twins"] = (seen(players[2]), dragged(players[2], 4), seen(players[0]))

        button = players[1].get_by_role("button")
        dragged(players[1], len(PAPER["events"]))
        button.press("Enter")
        facts["played"] = [(button.inner_text(), seen(players[1]))]
        for _ in range(len(PAPER["events"]) + 2):
            page.clock.run_for(400)
            facts["played"].append((button.inner_text(), seen(players[1])))
        dragged(players[1], 2)
        button.press("Enter")
        page.clock.run_for(1000)
        button.press("Enter")
        page.clock.run_for(5000)
        facts["paused"] = (button.inner_text(), seen(players[1]))
        button.press("Enter")
        facts["seized"] = (dragged(players[1], 5), page.clock.run_for(5000), seen(players[1]), button.inner_text())
        page.close()

        page, players = load(java_script_enabled=False)
        facts["no scripts"] = (players[0].get_by_role("slider").count(), players[0].get_by_role("button").count())
        page.close()

        for theme in ("light", "dark"):
            page, players = load(theme, reduced_motion="reduce")
            dragged(players[0], len(LOGS["wide"]["events"]))
            facts[theme] = players[0].evaluate(COLOURS)
            page.close()

        page, players = load(viewport={"width": 390, "height": 844})
        facts["overflow"] = page.evaluate("() => document.scrollingElement.scrollWidth - window.innerWidth")
        facts["board"] = players[0].locator("svg").bounding_box()
        page.close()
        browser.close()
        return facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory, chromium):
    """What a Chromium of this machine shows."""
    with ThreadPoolExecutor(1) as thread:  # Playwright runs once a thread, and the book's tests may hold one open
        return thread.submit(visit, chromium, tmp_path_factory.mktemp("players")).result()


def last_step(name):
    return expected(LOGS[name], len(LOGS[name]["events"]))


@pytest.mark.browser
def test_browser_starts_at_the_last_step_and_never_by_itself(facts):
    assert facts["loaded"] == [last_step(name) for name in LOADED]
    assert facts["left alone"] == facts["loaded"]
    assert facts["buttons"] == ["Play"] * len(LOADED)
    assert facts["errors"] == []


@pytest.mark.browser
def test_browser_reaches_no_other_file(facts):
    assert {url.rpartition("/")[2] for url in facts["requests"]} == {"light.html", "dark.html"}


@pytest.mark.browser
def test_browser_steps_by_keyboard_and_says_where_it_is(facts):
    steps = [expected(PAPER, t) for t in range(len(PAPER["events"]) + 1)]
    assert facts["by keyboard"] == steps
    assert facts["spoken"] == [f"{step['counts']}. {step['tokens']}" for step in steps]


@pytest.mark.browser
def test_browser_shows_every_step_of_a_log_with_repeats(facts):
    assert facts["dragged"] == [expected(LOGS["wide"], t) for t in range(len(LOGS["wide"]["events"]) + 1)]


@pytest.mark.browser
def test_browser_keeps_players_apart(facts):
    assert facts["neighbours"] == [last_step("wide")] * 2
    assert facts["twins"] == (last_step("wide"), expected(LOGS["wide"], 4), last_step("wide"))


@pytest.mark.browser
def test_browser_plays_from_the_start_to_the_end_and_stops(facts):
    last = len(PAPER["events"])
    steps = [*range(last + 1), last, last]
    assert [state for _, state in facts["played"]] == [expected(PAPER, t) for t in steps]
    assert [name for name, _ in facts["played"]] == ["Pause"] * last + ["Play"] * 3


@pytest.mark.browser
def test_browser_pauses_by_button_and_by_slider(facts):
    assert facts["paused"] == ("Play", expected(PAPER, 4))
    before, _, after, name = facts["seized"]
    assert before == after == expected(PAPER, 5)
    assert name == "Play"


@pytest.mark.browser
def test_browser_without_scripts_has_no_dead_controls(facts):
    assert facts["no scripts"] == (0, 0)


def luminance(colour):
    channels = np.array([int(c) for c in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    """WCAG 2's contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_browser_colours_are_legible_and_not_the_only_sign(facts, theme):
    colours = facts[theme]
    for ground in ("create", "close", "path"):
        assert contrast(colours["text"], colours[ground]) > 4.5
    for node in ("create", "close"):
        assert contrast(colours[node], colours["wall"]) > 3
    assert contrast(colours["ink"], colours["free"]) > 4.5
    assert contrast(colours["ink"], colours["page"]) > 4.5
    assert contrast(colours["free"], colours["wall"]) > 1.5
    assert colours["radii"][0] != colours["radii"][1]  # open nodes are round, closed ones square


@pytest.mark.browser
def test_browser_board_fits_a_phone(facts):
    assert facts["overflow"] <= 0
    assert 300 < facts["board"]["width"] < 390
