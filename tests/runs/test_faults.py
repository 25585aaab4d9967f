"""Faults injected into runs and the book's notebooks: nothing is lost, nothing is half-written."""

import os
import random
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from paperwalk.book import freshness

REPEATS = 20 if os.environ.get("PAPERWALK_FAULTS") == "full" else 3

WRITE_FOR_EVER = """
import sys, nbformat
from paperwalk.runs.files import save_notebook
notebooks = [nbformat.read(file, as_version=4) for file in sys.argv[2:]]
print("ready", flush=True)
while True:
    for notebook in notebooks:
        save_notebook(notebook, sys.argv[1], "/nowhere")
"""


def start(book, *command):
    env = os.environ | {"PAPERWALK_ROOT": str(book)}
    return subprocess.Popen([sys.executable, *command], env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.fault("a profile file with code in it", "refused in one line before anything runs; the code is not run")
@pytest.mark.parametrize("command", ["run", "plan"])
def test_code_in_a_profile_is_refused(book, command):
    trap = book / "sprung"
    profile = f"profile: laptop\nsteps: !!python/object/apply:os.mkdir ['{trap}']\n"
    (book / "book/demo/profiles/laptop.yml").write_text(profile)
    env = os.environ | {"PAPERWALK_ROOT": str(book)}
    arguments = [sys.executable, "-m", "paperwalk", command, "demo", "--profile", "laptop"]
    done = subprocess.run(arguments, env=env, text=True, capture_output=True, timeout=120)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("laptop.yml: is no valid YAML: could not determine a constructor")
    assert not trap.exists() and not (book / "_runs").exists()


@pytest.mark.fault("kill -9 while a notebook is written", "the file is the old notebook or the new one, whole")
def test_kill_while_a_notebook_is_written(tmp_path):
    target, sources = tmp_path / "page.ipynb", [tmp_path / "one.ipynb", tmp_path / "two.ipynb"]
    for source, text in zip(sources, ("one", "two")):
        cell = nbformat.v4.new_markdown_cell(text * 2_000_000)  # long enough to be caught within a write
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), source)
    wait, cut_short = random.Random(0), 0
    for _ in range(REPEATS):
        target.write_bytes(sources[0].read_bytes())
        writer = start(tmp_path, "-c", WRITE_FOR_EVER, str(target), *map(str, sources))
        assert writer.stdout.readline() == "ready\n"
        time.sleep(wait.uniform(0.01, 0.3))
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        (cell,) = nbformat.read(target, as_version=4).cells
        assert cell.source in ("one" * 2_000_000, "two" * 2_000_000)
        left = list(tmp_path.glob(".page.ipynb.*.tmp"))
        cut_short += len(left)
        for file in left:
            file.unlink()
    assert cut_short > 0 or REPEATS < 20  # some kills did come within a write


@pytest.mark.fault("kill -9 of `refresh`", "the page stays as it was; the next `refresh` brings it up to date")
def test_kill_of_refresh(book):
    page, reached = book / "book/scoreboard.ipynb", book / "reached"
    notebook = nbformat.read(page, as_version=4)
    notebook.cells[1].source = f"runs.ROOT.joinpath('reached').touch(); time.sleep(1)\n{notebook.cells[1].source}"
    nbformat.write(notebook, page)
    before, refresh = page.read_bytes(), "from paperwalk.book.freshness import refresh as r; r('book/scoreboard.ipynb')"
    wait = random.Random(1)
    for _ in range(REPEATS // 3):
        killed = start(book, "-c", refresh)
        while not reached.exists():
            assert killed.poll() is None
            time.sleep(0.02)
        time.sleep(wait.uniform(0, 0.9))
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        killed.stdout.close()
        reached.unlink()
        assert page.read_bytes() == before and freshness.stale(page, book) == "reported"
    with start(book, "-c", refresh) as done:
        done.communicate(timeout=120)
    assert done.returncode == 0 and freshness.stale(page, book) is None
    assert nbformat.read(page, as_version=4).cells[1].outputs
