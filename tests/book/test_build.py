"""The Sphinx extension on a page of its own: definitions beside their terms, and only the scripts that are used."""

import pytest
from sphinx.application import Sphinx

PAGE = """
Demo
====

A :term:`canary`, two :term:`canaries <canary>`, and :term:`loss`.

.. glossary::

   canary
      A text that is repeated *on purpose*; see :term:`loss` and :math:`k`.

      A second paragraph.

   loss
      What training makes small.
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{name of a page: its HTML} of a book with a formula on one page and none on the other."""
    root = tmp_path_factory.mktemp("sphinx")
    (root / "index.rst").write_text(PAGE + "\n.. toctree::\n\n   plain\n", encoding="utf8")
    (root / "plain.rst").write_text("Plain\n=====\n\nA :term:`canary` on another page.\n", encoding="utf8")
    settings = {"extensions": ["sphinx.ext.mathjax", "paperwalk.book.extension"], "keep_warnings": True}
    app = Sphinx(
        root, None, root / "out", root / "tree", "html", confoverrides=settings, status=None, warningiserror=True
    )
    app.build()
    return {name: (root / "out" / f"{name}.html").read_text("utf8") for name in ("index", "plain")}


def test_each_link_has_its_definition_and_names_it(built):
    page = built["index"]
    for number in (1, 2, 3):
        assert page.count(f'aria-describedby="definition-{number}"') == page.count(f'id="definition-{number}"') == 1
    assert page.count("repeated <em>on purpose</em>; see") == 3  # twice beside a link, once in the glossary
    assert page.count("A second paragraph.") == 1
    beside = page.partition('id="definition-1">')[2].partition("</p>")[0]
    assert "<a" not in beside.partition('class="pw-term"')[0]


def test_a_link_from_another_page_leads_to_the_glossary(built):
    assert 'href="index.html#term-canary" aria-describedby="definition-1"' in built["plain"]


def test_formulas_bring_their_script_and_pages_without_do_not(built):
    assert "mathjax/startup.js" in built["index"]
    assert "mathjax/startup.js" in built["plain"]  # the definition that stands there has a formula


def test_a_page_without_a_formula_loads_no_mathjax(tmp_path):
    (tmp_path / "index.rst").write_text("A\n=\n\nText.\n\n.. toctree::\n\n   b\n", encoding="utf8")
    (tmp_path / "b.rst").write_text("B\n=\n\n:math:`k`\n", encoding="utf8")
    settings = {"extensions": ["sphinx.ext.mathjax", "paperwalk.book.extension"]}
    Sphinx(tmp_path, None, tmp_path / "out", tmp_path / "tree", "html", confoverrides=settings, status=None).build()
    assert "mathjax" not in (tmp_path / "out/index.html").read_text(
        "utf8"
    )  # Sphinx alone would load it for its child's
    assert "mathjax" in (tmp_path / "out/b.html").read_text("utf8")
