"""A throw-away book of one chapter that measures next to nothing, from a checkpoint where it finds one."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
import yaml

from paperwalk import evidence, runs

full_only = pytest.mark.skipif(
    os.environ.get("PAPERWALK_FAULTS") != "full", reason="only with PAPERWALK_FAULTS=full (make test-faults)"
)
PARAMETERS = {
    "profile": {"type": "str", "choices": list(runs.PROFILES), "help": "scale"},
    "seed": {"type": "int", "min": 0, "help": "of everything random"},
    "device": {"type": "str", "choices": ["cpu", "cuda"], "help": "where"},
    "workers": {"type": "int", "min": 1, "help": "cores"},
    "k": {"type": "int", "min": 1, "max": 99, "help": "what a sweep changes"},
    "ks": {"type": ["int"], "min": 1, "help": "a list"},
    "lr": {"type": "float", "min": 0, "help": "any number"},
    "steps": {"type": "int", "min": 1, "help": "updates"},
    "pause": {"type": "float", "min": 0, "help": "seconds between them"},
    "log": {"type": "str", "help": "file that each start and step is told to"},
    "fail": {"type": "str", "choices": ["never", "error"], "help": "how to fail"},
}
DEFAULTS = {"profile": "laptop", "seed": 0, "device": "cpu", "workers": 1, "k": 3, "ks": [3, 4], "lr": 0.1}
DEFAULTS |= {"steps": 4, "pause": 0.0, "log": os.devnull, "fail": "never"}
MEASURE = """def told(what):
    with open(p.log, "a") as file:
        file.write(f"{p.seed} {p.k} {what} {os.getpid()}\\n")

folder = experiment.folder
state = {"n": 0, "value": p.seed}
if (folder / "state.json").exists():
    state = json.loads((folder / "state.json").read_text())
told(f"from {state['n']}")
for n in runs.progress(range(state["n"], p.steps), p.steps - state["n"], "demo steps"):
    told(f"step {n}")
    time.sleep(p.pause)
    if p.fail == "error" and n == 2:
        raise ValueError("the sky fell")
    state = {"n": n + 1, "value": (state["value"] * 1103515245 + 12345 + p.k) % 2**31}
    runs.write_atomically(folder / "state.json", json.dumps(state))
"""
WRITE = """experiment.record("value", "demo", None, state["value"])
experiment.write()
told("written")
"""


def make(root: Path) -> Path:
    """Writes the book below root and returns root."""
    folder = root / "book"
    (folder / "demo/profiles").mkdir(parents=True)
    imports = "import json, os, time\nfrom paperwalk import runs\nfrom paperwalk.experiment import Experiment"
    check = 'experiment = Experiment("demo", globals())\np = experiment.p'
    assigned = "\n".join(f"{name} = {value!r}" for name, value in DEFAULTS.items())
    cells = [(imports, "setup"), (assigned, "parameters"), (check, ""), (MEASURE, ""), ("between = 1", ""), (WRITE, "")]
    made = [nbformat.v4.new_code_cell(code, metadata={"tags": [tag]} if tag else {}) for code, tag in cells]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), folder / "demo.ipynb")
    (folder / "demo/parameters.yml").write_text(yaml.safe_dump(PARAMETERS, sort_keys=False))
    (folder / "demo/claims.yml").write_text("[]\n")
    profiles = {
        "ci": {"steps": 2},
        "laptop": {},
        "evening": {},
        "gpu": {"device": "cuda", "workers": 2},
        "paper": {"steps": 9},
    }
    for name, values in profiles.items():
        (folder / f"demo/profiles/{name}.yml").write_text(yaml.safe_dump({"profile": name} | values))
    (root / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "book/demo"}))
    return root


def value(seed: int, k: int = 3, steps: int = 4) -> int:
    """What a run measures."""
    state = seed
    for _ in range(steps):
        state = (state * 1103515245 + 12345 + k) % 2**31
    return state


def measured(file: Path) -> int:
    """What a results file says, which must be whole."""
    return int(evidence.read(file).means["value.demo"])


def start(root: Path, *arguments, **environment) -> subprocess.Popen:
    """`python -m paperwalk` on the book, as a process of its own."""
    env = os.environ | {"PAPERWALK_ROOT": str(root)} | environment
    command = [sys.executable, "-m", "paperwalk", *map(str, arguments)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def paperwalk(root: Path, *arguments, **environment) -> subprocess.CompletedProcess:
    """The same, to its end."""
    process = start(root, *arguments, **environment)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def lines(log: Path) -> list[str]:
    """What the runs told their log: seed, k, what, process."""
    return log.read_text().splitlines() if log.exists() else []


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    """Waits until the condition holds, while the process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def commit(root: Path) -> str:
    """Commits all of the book to a git repository there; the commit."""

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    (root / ".gitignore").write_text("_runs/\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", "as it is")
    return git("rev-parse", "HEAD")


def add_text(root: Path, text: str) -> None:
    """Adds a cell of text to the chapter."""
    notebook = nbformat.read(root / "book/demo.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    nbformat.write(notebook, root / "book/demo.ipynb")


def in_cell(root: Path, old: str, new: str) -> None:
    """Replaces a text in the chapter's only cell that holds it."""
    notebook = nbformat.read(root / "book/demo.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if old in cell.source]
    cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, root / "book/demo.ipynb")


@contextmanager
def mounted(folder, *options):
    """A file system mounted on a folder; without the right to mount, the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Takes all the room that is left in a folder; the file that took it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"0" * 1024):
                pass
        except OSError:
            return filler
