"""The templates, styles and scripts of the pages: each is well-formed, reaches no network, and is used."""

import re
from pathlib import Path

import pytest
import tinycss2
from playwright.sync_api import Error

import paperwalk
from paperwalk.show import templates

LIBRARY = Path(paperwalk.__file__).parent
ASSETS = sorted(file for file in LIBRARY.glob("**/assets/*") if file.is_file())


def of_kind(suffix):
    files = [file for file in ASSETS if file.suffix == suffix]
    return pytest.mark.parametrize("file", files, ids=[file.relative_to(LIBRARY).as_posix() for file in files])


def kind(browser, script):
    """What a script is the expression of, in words of JavaScript; raises playwright's Error where it does not parse."""
    page = browser.new_page()
    try:
        return page.evaluate("script => typeof eval(`(${script})`)", script)
    finally:
        page.close()


def problems(css):
    """What a parser finds wrong in a style sheet, nested rules included."""
    left = tinycss2.parse_stylesheet(f"{css}\nlast {{}}", skip_comments=True, skip_whitespace=True)
    found = [] if tinycss2.serialize(left[-1:]) == "last {}" else ["a block is not closed"]
    while left:
        node = left.pop()
        if node.type == "error":
            found.append(f"{node.source_line}: {node.message}")
        elif node.type == "at-rule" and node.content is not None:
            left += tinycss2.parse_rule_list(node.content, skip_comments=True, skip_whitespace=True)
        elif node.type == "qualified-rule":
            left += tinycss2.parse_blocks_contents(node.content, skip_comments=True, skip_whitespace=True)
    return found


def test_there_are_assets_of_each_kind_and_no_other():
    assert {file.suffix for file in ASSETS} == {".css", ".html", ".js"}


@pytest.mark.browser
@of_kind(".js")
def test_a_script_is_a_function(browser, file):
    """An arrow function without a semicolon, which a template calls."""
    assert kind(browser, file.read_text("utf8")) == "function"


@pytest.mark.browser
@pytest.mark.parametrize("script", ["() => { const a = }", "() => {", "() => {};", "function ("])
def test_a_broken_script_is_found(browser, script):
    with pytest.raises(Error, match="SyntaxError"):
        kind(browser, script)


@of_kind(".css")
def test_a_style_sheet_parses(file):
    css = templates.environment(file.parent).get_template(file.name).render()
    assert problems(css) == []


@pytest.mark.parametrize("css", ["a { b c }", "a { b: c", "a { b: c; } }", "@media x { a { b } }", "a"])
def test_a_broken_style_sheet_is_found(css):
    assert problems(css)


@pytest.mark.parametrize("file", ASSETS, ids=[file.relative_to(LIBRARY).as_posix() for file in ASSETS])
def test_an_asset_reaches_no_network_and_is_used(file):
    assert not re.search(r"https?://|@import|\burl\(", file.read_text("utf8"))
    room = file.parents[1]
    sources = [other.read_text("utf8") for other in [*room.glob("*.py"), *room.glob("assets/*.html")]]
    assert any(f'"{file.name}"' in source for source in sources)
