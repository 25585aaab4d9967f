"""The page "Library": every name of the library that a chapter's code imports has its place there."""

import ast
import importlib

import pytest
import yaml

from paperwalk import runs
from paperwalk.runs.files import code_cells

PAGE = (runs.ROOT / "book" / "library.md").read_text(encoding="utf-8")
MODULES = [line.split(":: ")[1] for line in PAGE.splitlines() if line.startswith(".. automodule:: ")]


def imported(chapter):
    """(module, name) of what the chapter's code cells import from the library."""
    for cell in code_cells(runs.notebook_path(chapter)):
        for node in ast.walk(ast.parse(cell["source"])):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "paperwalk":
                yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("chapter", runs.chapters())
def test_every_imported_name_has_its_place(chapter):
    for module, name in imported(chapter):
        if f"{module}.{name}" in MODULES:
            continue
        assert module in MODULES, f"{module} is not on the page: {name} would be no link"
        thing = getattr(importlib.import_module(module), name)
        assert not callable(thing) or thing.__doc__, f"{module}.{name} has no docstring"


def test_the_page_lists_modules_that_exist_once():
    assert len(set(MODULES)) == len(MODULES) > 30
    for module in MODULES:
        importlib.import_module(module)


def test_the_page_is_in_the_book():
    toc = yaml.safe_load((runs.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert "book/library" in [entry["file"] for entry in toc["chapters"]]
