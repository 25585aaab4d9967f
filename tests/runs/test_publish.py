"""The public address reaches the buttons, the citation and the chapters, and nothing that was measured goes stale."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from paperwalk import runs
from paperwalk.book import publish

URL = "https://github.com/someone/paperwalk"


@pytest.fixture
def copy(tmp_path):
    """The book without its results, and what the build needs."""
    shutil.copytree(runs.ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("results"))
    shutil.copytree(runs.ROOT / "deploy", tmp_path / "deploy")
    for name in ("_config.yml", "_toc.yml", "CITATION.cff"):
        shutil.copy(runs.ROOT / name, tmp_path / name)
    return tmp_path


def test_chapters_get_a_cell_that_measures_nothing_and_can_be_set_anew(copy):
    before = {chapter: runs.measured_hash(copy / "book" / f"{chapter}.ipynb") for chapter in runs.chapters(copy)}
    assert len(before) >= 5
    publish.publish("https://github.com/other/name", root=copy)
    publish.publish(f"{URL}.git/", branch="trunk", root=copy)
    assert publish.publish(URL, branch="trunk", root=copy) == []
    for chapter, measured in before.items():
        file = copy / "book" / f"{chapter}.ipynb"
        assert runs.measured_hash(file) == measured
        code = [cell for cell in json.loads(file.read_text("utf8"))["cells"] if cell["cell_type"] == "code"]
        assert f"--branch trunk {URL} paperwalk" in "".join(code[0]["source"])
        assert "other/name" not in file.read_text("utf8")
    assert yaml.safe_load((copy / "CITATION.cff").read_text("utf8"))["repository-code"] == URL
    options = yaml.safe_load((copy / "_config.yml").read_text("utf8"))["sphinx"]["config"]["html_theme_options"]
    assert (options["repository_url"], options["repository_branch"]) == (URL, "trunk")


@pytest.mark.full
def test_buttons_lead_to_the_chapter(copy):
    publish.publish(URL, root=copy)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-W", "--keep-going", "--quiet"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, encoding="utf8")
    assert done.returncode == 0, done.stderr[-3000:]
    page = (copy / "_build/html/book/goldfish.html").read_text("utf8")
    links = re.findall(r'href="(https://(?:colab|mybinder)[^"]*)"', page)
    assert links == [
        "https://mybinder.org/v2/gh/someone/paperwalk/main?urlpath=lab/tree/book/goldfish.ipynb",
        "https://colab.research.google.com/github/someone/paperwalk/blob/main/book/goldfish.ipynb",
    ]
    asked = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', page)  # the buttons' logos are the book's own
    assert asked == []


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "http://github.com/a/b", "https://github.com/a", "https://a/b/c d"]
)
def test_another_address_is_refused(copy, url):
    before = (copy / "_config.yml").read_bytes()
    with pytest.raises(runs.ParameterError, match=r"url = .*: must be like"):
        publish.publish(url, root=copy)
    assert (copy / "_config.yml").read_bytes() == before


def test_the_fetching_cell_does_nothing_where_the_book_is(monkeypatch):
    code = publish.SOURCE.format(url=URL, branch="main").replace("!git", "raise AssertionError #").replace("%pip", "#")
    exec(compile(code, "cell", "exec"), {})
