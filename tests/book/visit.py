"""One visit to a page of the rendered book: a browser context of its own, in which the page is loaded once."""

import contextlib
import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from axe_playwright_python.base import AXE_SCRIPT
from filelock import FileLock

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
PHONE, LAPTOP, PAPER = (dict(width=width, height=height) for width, height in ((390, 844), (1280, 844), (794, 1123)))

# What a loaded page says of itself. `prose`: text in which roles and directives must not stand.
COLLECT = """() => {
  const prose = document.querySelector("article").cloneNode(true);
  prose.querySelectorAll("pre, code, script, style, mjx-container, .cell_input").forEach(node => node.remove());
  return {
    title: document.title,
    prose: prose.textContent,
    outputs: [...document.querySelectorAll(".cell_output")].map(node => node.textContent).join("\\n"),
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    mute: [...document.images].filter(image => !image.alt.trim()).map(image => image.src.slice(0, 100)),
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src.slice(0, 100)),
    formulas: document.querySelectorAll("mjx-container").length,
    formula_sources: document.querySelectorAll(".math").length,
    formula_errors: document.querySelectorAll("mjx-merror").length,
    painted: performance.getEntriesByName("first-contentful-paint").length > 0,
  };
}"""
# Takes focus and scrolling back. Is the page as on paper, or dark?
REST = """() => {
  document.activeElement.blur();
  window.scrollTo({ top: 0, behavior: "instant" });
  return matchMedia("print").matches || matchMedia("(prefers-color-scheme: dark)").matches;
}"""
# Waits until the theme has followed the system.
LIGHT = """async () => {
  for (let i = 0; i < 60 && document.documentElement.dataset.theme !== "light"; i++)
    await new Promise(requestAnimationFrame);
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
# Violations of axe-core's rules that it calls serious or critical. MathJax's own markup is left to MathJax. Contrast is
# slow to judge, so of texts that look alike the three longest stand for the rest.
AXE = """async (options) => {
  const moving = document.getAnimations().filter((each) => each instanceof CSSTransition);
  await Promise.allSettled(moving.map((each) => each.finished));
  const behind = new Map(), alike = new Map();
  for (const node of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(node);
    const own = [style.backgroundColor, style.backgroundImage, style.opacity].join();
    const above = behind.get(node.parentElement) ?? "";
    behind.set(node, own === "rgba(0, 0, 0, 0),none,1" ? above : `${above};${own}`);
    const text = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE).map((child) => child.data);
    const length = text.join("").trim().length || Number(node.matches("input, select, textarea"));
    if (!length || node.matches(":disabled, mjx-container *") || !node.checkVisibility()) continue;
    const { color, fontSize, fontWeight, textShadow } = style;
    const look = [node.tagName, color, fontSize, fontWeight, textShadow, behind.get(node)].join();
    alike.set(look, [...(alike.get(look) ?? []), { node, length }].sort((a, b) => b.length - a.length).slice(0, 3));
  }
  const chosen = [...alike.values()].flat().map(({ node }) => node);
  chosen.forEach((node) => node.setAttribute("data-judge", "contrast"));
  axe.configure({ rules: [{ id: "color-contrast", selector: "[data-judge]" }] });
  const context = { exclude: [["mjx-container"]] };
  const found = await axe.run(context, { ...options, resultTypes: ["violations"], preload: false });
  chosen.forEach((node) => node.removeAttribute("data-judge"));
  return found.violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .flatMap(({ id, nodes }) => nodes.map(({ target, html }) => `${id}: ${target.join(" ")}: ${html.slice(0, 120)}`));
}"""


class Visit:
    """A page that was loaded, and all that it asked for and complained of since; it reaches nothing but the site.

    A context manager, which closes the page. `found`: what the page held and weighed when its formulas were set;
    `seconds` that the processor took until its document was complete with all deferred scripts.
    """

    def __init__(self, browser, site: str, name: str, scripts: bool = True):
        self.browser, self.site, self.name = browser, site, name
        self.errors, self.requested, self.failed, self.finished = [], [], [], []
        self.page = browser.new_page(viewport=LAPTOP, color_scheme="light", java_script_enabled=scripts)
        self.page.route(re.compile(f"^(?!{self._local})"), lambda route: route.abort())
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("requestfailed", lambda request: self.failed.append(f"{request.url}: {request.failure}"))
        self.page.on("requestfinished", lambda request: self.finished.append(request))
        self.page.on("response", lambda response: self.failed.append(response.url) if response.status >= 400 else None)
        process = self.page.context.new_cdp_session(self.page)
        process.send("Performance.enable")
        self.page.goto(f"{site}/{name}.html", wait_until="domcontentloaded")
        metrics = {each["name"]: each["value"] for each in process.send("Performance.getMetrics")["metrics"]}
        self.page.wait_for_load_state("networkidle" if scripts else "load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        self.found = self.page.evaluate(COLLECT) | {"bytes": self._weight(), "seconds": metrics["ProcessTime"]}

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *failure) -> None:
        self.page.close()

    def __repr__(self) -> str:
        return f"<visit to {self.name}>"

    def again(self, scripts: bool = True) -> "Visit":
        """Another visit to the same page, as a new reader."""
        return Visit(self.browser, self.site, self.name, scripts)

    def rest(self) -> None:
        """Takes back what a check does to the window: its size, theme, scrolling, focus, and where the mouse is."""
        if self.page.viewport_size != LAPTOP:
            self.page.set_viewport_size(LAPTOP)
        self.page.mouse.move(0, 0)
        if self.page.evaluate(REST):
            self.page.emulate_media(media="screen", color_scheme="light")
            self.page.evaluate(LIGHT)

    def violations(self, **options) -> list[str]:
        """What axe-core finds in the page as it is shown now."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE_SCRIPT)
        return self.page.evaluate(AXE, options)

    def foreign(self) -> list[str]:
        """Addresses of other machines that the page has asked for something."""
        return [url for url in self.requested if not re.match(self._local, url)]

    def _weight(self):
        sizes = [request.sizes() for request in self.finished if request.url.startswith(self.site)]
        return sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)

    @property
    def _local(self):
        return f"{re.escape(self.site)}/|data:|blob:"


def build() -> Path:
    """The folder of rendered pages, built if a source is newer; by one process at a time."""
    index = HTML / "index.html"
    HTML.parent.mkdir(exist_ok=True)
    with FileLock(HTML.with_suffix(".lock")):
        sources = [ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "book").rglob("*")]
        if not index.exists() or index.stat().st_mtime < max(file.stat().st_mtime for file in sources):
            command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-W", "--keep-going"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf8")
            assert done.returncode == 0, done.stderr[-4000:]
            index.touch()  # jupyter-book writes it only once
    return HTML


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a local server of the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
