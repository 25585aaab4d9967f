"""`python -m paperwalk` as a process of its own, on a throw-away book."""

import os
import re
import subprocess
import sys

import nbformat
import pytest

from paperwalk import evidence, values
from paperwalk.book import freshness


def paperwalk(book, *arguments):
    env = os.environ | {"PAPERWALK_ROOT": str(book)}
    env.pop("PAPERWALK_PROGRESS", None)
    command = [sys.executable, "-m", "paperwalk", *arguments]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=120)


def listing(book):
    return {str(p): p.read_bytes() if p.is_file() else None for p in book.rglob("*")}


def outputs(file):
    cells = [c for c in nbformat.read(file, as_version=4).cells if c.cell_type == "code"]
    return [[o.get("text") or o.data["text/plain"] for o in cell.outputs] for cell in cells]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "dmo"], "chapter = 'dmo': must be one of demo"),
        (["run", "demo", "--profile", "laptp"], "profile = 'laptp': must be one of ci, laptop, evening, gpu, paper"),
        (["run", "demo", "--seeds", "0"], "seeds = '0': must be a number of seeds like 3, a range like 100-104, or a"),
        (["run", "demo", "--seeds", "two"], "seeds = 'two': must be a number of seeds like 3, a range"),
        (["run", "demo", "--seeds", "104-100"], "seeds = '104-100': must be a number of seeds like 3, a range"),
        (["run", "demo", "--seeds", "7,7"], "seeds = '7,7': must be a number of seeds like 3, a range"),
        (["run", "demo", "--profile", "evening", "--seeds", "99-100"], "seeds = 100: must be below 100 for a trial"),
        (["run", "demo", "--seeds", "0-1000"], "seeds and sweep: must make 1000 runs at most, make 1001"),
        (["run", "demo", "--set", "hh=3"], "unknown parameter 'hh': allowed are arms, articles, "),
        (["run", "demo", "--set", "h"], "set = 'h': must be NAME=VALUE"),
        (["run", "demo", "--set", "h="], "h = None: must be a whole number from 1 to 95"),
        (["run", "demo", "--set", "h=[1,"], "h = '[1,': must be a YAML value"),
        (
            ["run", "demo", "--set", "steps=2", "--set", "h=300"],
            "h = 300: must be a whole number from 1 to 95",
        ),
        (["run", "demo", "--set", "lr=.nan"], "lr = nan: must be a number of at most 1"),
        (["run", "demo", "--set", "seed=3"], "seed = 3: must not be overridden"),
        (["run", "demo", "--sets", "seed=3"], "unrecognized arguments: --sets seed=3"),
        (["run", "demo", "a\nb"], "unrecognized arguments: a b"),
        (["plan", "dmo"], "chapter = 'dmo': must be one of demo"),
        (["plan", "demo"], "chapter = 'demo': must have a cell tagged `cost` or `calls` to be planned"),
        (["plan", "demo", "--gpus", "0"], "gpus = '0': must be a whole number of at least 1"),
        (["plan", "demo", "--mfu", "much"], "mfu = 'much': must be a number above 0 and at most 1"),
        (["plan", "demo", "--mfu", "0"], "mfu = 0.0: must be a number above 0 and at most 1"),
        (["plan", "demo", "--gpu", "Z80"], "gpu = 'Z80': must be one of A100, H100, H200"),
        (["walk"], "argument run | evidence | plan | profile | list | refresh | new | publish | fetch: invalid choice"),
        (["run"], "the following arguments are required: chapter"),
        ([], "the following arguments are required: run | evidence | plan | profile | list | refresh | new"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_line_before_anything_is_written(book, arguments, message):
    before = listing(book)
    done = paperwalk(book, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
    assert listing(book) == before


def test_set_takes_yaml_values_and_numbers_as_people_write_them():
    given = ["h=3", "lr=1e-3", "scale=-2.5E+4", "hs=[1, 2]", "bf16=true", "articles=a=b.txt", "device=cpu"]
    assert values.overrides(given) == {
        "h": 3,
        "lr": 0.001,
        "scale": -25000.0,
        "hs": [1, 2],
        "bf16": True,
        "articles": "a=b.txt",
        "device": "cpu",
    }


@pytest.mark.parametrize(
    "text, seeds",
    [("3", [0, 1, 2]), ("1", [0]), ("100-102", [100, 101, 102]), ("7-7", [7]), ("107,100", [107, 100])],
)
def test_seeds_are_a_number_a_range_or_a_list(text, seeds):
    assert values.seeds(text) == seeds


def test_a_laptop_run_of_two_seeds_becomes_what_the_book_shows(book, put):
    for seed in (100, 101):
        put(10 * seed, seed)
    done = paperwalk(book, "run", "demo", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        command = (
            f"papermill book/demo.ipynb _runs/demo/laptop-seed{seed}/demo.ipynb "
            f"-f book/demo/profiles/laptop.yml -y '{{seed: {seed}}}' --execution-timeout 3600"
        )
        assert command in done.stdout.splitlines()
    assert "demo laptop seed 1" in done.stderr and "demo steps:" in done.stderr  # both bars
    demo, scoreboard = book / "book/demo.ipynb", book / "book/scoreboard.ipynb"
    assert str(book) not in demo.read_text() and "papermill" not in demo.read_text()
    # setup, report (the evidence), parameters, check, measure (no bar), fail, write
    written = ["written: laptop-seed0.parquet\n"]
    assert outputs(demo) == [[], ["[1000.0, 1010.0]"], [], [], [], ["book red\n"], written]
    assert outputs(scoreboard) == [[], ["[1000.0, 1010.0]"]]
    for seed in (0, 1):
        result = evidence.read(book / f"_runs/demo/results/laptop-seed{seed}.parquet")
        assert result.means == {"value.demo": 10 * seed} and result.meta["complete"] and not result.meta["evidence"]
    assert len(list(book.rglob("*.parquet"))) == 4  # an ordinary run adds nothing to the evidence, and leaves no half
    assert [freshness.stale(file, book) for file in (demo, scoreboard)] == [None, None]
    assert not list(book.rglob("progress.json"))

    before = listing(book)
    assert paperwalk(book, "refresh").stdout == "every notebook is up to date\n"
    table = paperwalk(book, "list").stdout.splitlines()
    assert [line.split() for line in table[1:]] == [
        ["demo", "ci", "0", "none"],
        ["demo", "laptop", "0", "none"],
        ["demo", "evening", "2", "fresh"],
        ["demo", "gpu", "0", "none"],
        ["demo", "paper", "0", "none"],
    ]
    assert listing(book) == before

    # other measuring code: the evidence is stale, and refresh runs the chapter again
    content = nbformat.read(demo, as_version=4)
    content.cells[5].source = content.cells[5].source.replace("0.2", "0.1")
    nbformat.write(content, demo)
    assert paperwalk(book, "list").stdout.splitlines()[3].split() == ["demo", "evening", "2", "stale"]
    done = paperwalk(book, "refresh")
    assert done.returncode == 0, done.stderr
    assert "demo: its code changed since its last run" in done.stdout
    assert [freshness.stale(file, book) for file in (demo, scoreboard)] == [None, None]
    assert paperwalk(book, "list").stdout.splitlines()[3].split() == ["demo", "evening", "2", "stale"]


def test_a_run_with_other_parameters_leaves_the_book_alone(book):
    before = (book / "book/demo.ipynb").read_bytes()
    done = paperwalk(book, "run", "demo", "--set", "steps=2", "--set", "lr=1e-5")
    assert done.returncode == 0, done.stderr
    assert "-y '{lr: 1.0e-05, seed: 0, steps: 2}'" in done.stdout
    (folder,) = (book / "_runs/demo").glob("laptop-*")
    assert re.fullmatch(r"laptop-lr=1e-05,steps=2-[0-9a-f]{8}-seed0", folder.name)
    assert [file.name for file in (book / "_runs/demo/results").iterdir()] == [f"{folder.name}.parquet"]
    injected = (folder / "demo.ipynb").read_text()
    assert "steps = 2" in injected and "lr = 1e-05" in injected
    assert (book / "book/demo.ipynb").read_bytes() == before


def test_list_names_a_half_written_result(book, put):
    file = put(1, seed=100, profile="gpu")
    file.write_bytes(file.read_bytes()[:-10])
    done = paperwalk(book, "list")
    assert done.returncode == 1
    assert "book/demo/results/gpu-seed100.parquet: not a readable results file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_failing_cell_ends_with_status_1_and_leaves_notebook_and_evidence_untouched(book, put):
    put(5)
    before = listing(book / "book")
    done = paperwalk(book, "run", "demo", "--set", "fail=error")
    assert done.returncode == 1
    (executed,) = (book / "_runs/demo").glob("laptop-fail=error-*-seed0/demo.ipynb")
    assert done.stderr.splitlines()[-1].rpartition("\x1b[A")[2] == (  # behind what a cell's progress bar left
        'demo: code cell 6 (if p.fail == "error": raise ValueError("the \\x1b[31msky\\x1b[) failed: '
        f"ValueError: the sky fell; what ran until then is in {executed.relative_to(book)}"
    )
    assert "Traceback" not in done.stderr
    assert listing(book / "book") == before
