"""A new chapter in a copy of the repository: it runs, builds, stands on the scoreboard, and goes without a trace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paperwalk import evidence, runs
from paperwalk.book import freshness, new

pytestmark = pytest.mark.full

NEW = "made_by_a_test_under_the_longest_slug_ok"  # not "demo": a reader of CONTRIBUTING.md may have one just now


def run(root, *command):
    """Runs a command in the copy; its output."""
    environment = os.environ | {"PAPERWALK_ROOT": str(root), "PYTHONPATH": str(root / "lib")}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf8", env=environment)
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository's files, committed to a repository of its own."""
    root = tmp_path_factory.mktemp("copy")
    listed = run(runs.ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in filter(None, listed):
        if (runs.ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(runs.ROOT / name, root / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    run(root, "git", "init", "-q")
    run(root, "git", "add", "-A")
    run(root, *git, "commit", "-qm", "copy")
    return root


def state(root):
    return run(root, "git", "status", "--porcelain", "--untracked-files=all")


def remove(root, *slugs):
    """As CONTRIBUTING.md says; nothing stays."""
    for slug in slugs:
        run(root, "bash", "-c", f"rm -r book/{slug} book/{slug}.ipynb book/_static/ideas/{slug}.svg")
        run(root, "rm", "-rf", f"_runs/{slug}")
    run(root, "git", "restore", "_toc.yml", "book")
    assert state(root) == ""


def test_a_new_chapter_runs_builds_is_not_measured_and_can_be_removed(copy):
    paperwalk = [sys.executable, "-m", "paperwalk"]
    made = run(copy, *paperwalk, "new", NEW).splitlines()[:-1]
    assert sorted(line[3:] for line in state(copy).splitlines()) == sorted(made)
    for profile in runs.PROFILES:
        values = runs.profile_values(NEW, profile, copy)
        runs.check(NEW, values | {"device": "auto"}, root=copy)
    assert set(runs.defaults(NEW, copy)) == set(runs.schema(NEW, copy))
    run(copy, *paperwalk, "run", NEW, "--profile", "ci")
    run(copy, *paperwalk, "run", NEW)  # laptop: the notebook now holds its outputs
    assert freshness.stale(f"book/{NEW}.ipynb", copy) is None
    board = evidence.scoreboard(copy)
    assert set(board[board["chapter"] == NEW]["verdict"]) == {"not measured"}
    new.make("second", copy)  # whose placeholder of a reference looks the same
    run(copy, Path(sys.executable).with_name("jupyter-book"), "build", ".", "--all", "-W", "--keep-going", "--quiet")
    page = (copy / f"_build/html/book/{NEW}.html").read_text("utf8")
    assert "measures nothing yet" in page and "pw-self-test" in page and "Last, 2026" in page
    assert f'href="{NEW}.html#what-is-left-out"' in (copy / "_build/html/book/scoreboard.html").read_text("utf8")
    remove(copy, NEW, "second")


@pytest.mark.parametrize("slug", ["aa", "made_by_a_test", NEW])
def test_a_name_of_any_length_makes_a_clean_notebook(copy, slug):
    new.make(slug, copy)
    run(copy, sys.executable, "-m", "ruff", "check", "book")
    run(copy, sys.executable, "-m", "ruff", "format", "--check", "book")
    remove(copy, slug)


@pytest.mark.parametrize("slug", ["", "a", "Demo", "de-mo", "../demo", "1demo", "demo.ipynb", "a" * 41])
def test_a_bad_name_is_refused(copy, slug):
    with pytest.raises(runs.ParameterError, match=r"slug = .*: must be 2 to 40 of a-z"):
        new.make(slug, copy)
    assert state(copy) == ""


@pytest.mark.parametrize("slug", ["goldfish", "intro", "notation", "glossary", "hans2024goldfish"])
def test_a_name_that_is_taken_is_refused(copy, slug):
    with pytest.raises(runs.ParameterError, match=r"must be a new name, .* (exists|has it)"):
        new.make(slug, copy)
    assert state(copy) == ""


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_a_failure_leaves_nothing_half_made(copy, monkeypatch, fails_at):
    written, write = [], new.write_atomically

    def fail_once(file, text):
        written.append(file)
        if len(written) == fails_at:
            raise OSError("disk full")
        write(file, text)

    monkeypatch.setattr(new, "write_atomically", fail_once)
    with pytest.raises(OSError, match="disk full"):
        new.make(NEW, copy)
    assert state(copy) == "" and not (copy / "book" / NEW).exists()


def test_the_command_line_says_in_one_line_what_is_wrong(tmp_path):
    done = subprocess.run([sys.executable, "-m", "paperwalk", "new", "De mo"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "slug = 'De mo'" in done.stderr
    assert not list(Path(runs.ROOT / "book").glob("De*"))
