"""What is to run, what is done, and how it is told: without Ray."""

import itertools
import subprocess

import pytest

import small_book
from paperwalk import values
from paperwalk.book import freshness
from paperwalk.evidence import records
from paperwalk.launch import cluster, many
from small_book import measured, paperwalk, value

pytestmark = pytest.mark.full


def listing(book):
    return {file: file.read_bytes() if file.is_file() else None for file in book.rglob("*")}


def test_a_sweep_is_every_combination_with_every_seed(book):
    sweep = {"k": [3, 4, 8], "lr": [0.1, 0.2]}
    planned = many.plan("demo", "laptop", [0, 1], {"steps": 5}, sweep, root=book)
    assert [(run.parameters["k"], run.parameters["lr"], run.seed) for run in planned] == list(
        itertools.product([3, 4, 8], [0.1, 0.2], [0, 1])
    )
    assert all(run.parameters["steps"] == 5 for run in planned)
    outputs = [path for run in planned for path in (run.folder(book), run.notebook(book), run.result(book))]
    assert len(set(outputs)) == len(outputs) == 3 * 12  # no two runs share one
    assert str(planned[-1]) == "demo laptop seed 1 steps=5 k=8 lr=0.2"


@pytest.mark.parametrize(
    "one, other",
    [
        ({"log": "a/b"}, {"log": "a_b"}),  # the same once made fit for a file's name
        ({"log": "x" * 200}, {"log": "x" * 199 + "y"}),
        ({"ks": [3, 44]}, {"ks": [34, 4]}),
        ({"k": 4}, {"k": 4, "steps": 9}),
    ],
)
def test_runs_of_different_parameters_never_share_a_name(book, one, other):
    names = {many.plan("demo", "laptop", [0], changed, {}, root=book)[0].name for changed in (one, other)}
    assert len(names) == 2
    assert all(len(name) < 100 and not set(name) & set("/\\ {}:'\"") for name in names)


def test_a_profiles_own_values_are_the_profiles_run_however_they_are_given(book):
    (run,) = many.plan("demo", "laptop", [0], {"k": 3}, {"lr": [0.1]}, root=book)
    assert run.name == "laptop-seed0" and run.is_shown
    assert run.result(book) == book / "_runs/demo/results/laptop-seed0.parquet"
    (run,) = many.plan("demo", "paper", [0], {"steps": 9}, {}, root=book)
    assert run.name == "paper-seed0" and not run.is_shown
    (run,) = many.plan("demo", "laptop", [0], {"steps": 9}, {}, root=book)
    assert run.result(book) == book / f"_runs/demo/results/{run.name}.parquet"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sweep", "k"], "sweep = 'k': must be NAME=VALUE"),
        (["--sweep", "k="], "sweep k = '': must be YAML values with commas between, none empty"),
        (["--sweep", "k=3,~"], "sweep k = '3,~': must be YAML values with commas between, none empty"),
        (["--sweep", "k=3,,4"], "sweep k = '3,,4': must be YAML values with commas between, none empty"),
        (["--sweep", "k=3]"], "sweep k = '3]': must be YAML values with commas between, none empty"),
        (["--sweep", "k=3", "--sweep", "k=4"], "sweep k: must be given once"),
        (["--sweep", "k=3,4", "--set", "k=3"], "k: must be in --set or in --sweep, not in both"),
        (["--sweep", "k=3,4,3"], "sweep k = [3, 4, 3]: must name each value once"),
        (["--sweep", "kk=3"], "unknown parameter 'kk': allowed are device, fail, k, "),
        (["--sweep", "k=3,400"], "k = 400: must be a whole number from 1 to 99"),
        (["--sweep", "seed=3"], "seed = 3: must not be overridden"),
        (["--sweep", "k=3,4", "--seeds", "501"], "seeds and sweep: must make 1000 runs at most, make 1002"),
        (["--resources", "cpus=1"], "resources = 'cpus=1': must come with --cluster"),
        (["--cluster", "--resources", "cores=1"], "resources 'cores': must be one of cpus, gpus, memory_gb"),
        (["--cluster", "--resources", "cpus=-1"], "resources cpus = '-1': must be a number from 0 to below 1e6"),
        (["--cluster", "--resources", "gpus=nan"], "resources gpus = 'nan': must be a number from 0 to below 1e6"),
        (["--cluster", "--resources", "gpus=1.5"], "resources gpus = '1.5': must be a whole number, or a share of"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_line_before_anything_is_written(book, arguments, message):
    before = listing(book)
    done = paperwalk(book, "run", "demo", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
    assert listing(book) == before


def test_a_sweep_takes_values_as_people_write_them():
    given = ["k=3,4,8", "lr=1e-3,0.1", "ks=[2, 3],[4]", "log=a.txt,b c", "bf16=true,false"]
    assert values.sweep(given) == {
        "k": [3, 4, 8],
        "lr": [0.001, 0.1],
        "ks": [[2, 3], [4]],
        "log": ["a.txt", "b c"],
        "bf16": [True, False],
    }


def test_what_is_done_is_skipped_until_code_parameters_or_files_change(book):
    options = ["run", "demo", "--sweep", "k=5,6"]
    done = paperwalk(book, *options)
    assert done.returncode == 0 and "\n2 done, in " in done.stdout, done.stderr
    planned = many.plan("demo", "laptop", [0], {}, {"k": [5, 6]}, root=book)
    assert [measured(run.result(book)) for run in planned] == [value(0, 5), value(0, 6)]
    before = listing(book)
    done = paperwalk(book, *options)
    assert done.returncode == 0 and "\n2 skipped, in " in done.stdout and done.stderr == ""
    assert listing(book) == before

    run, notebook = planned[0], book / "book/demo.ipynb"
    assert many.is_done(run, book)
    for file, old, new, still in [
        (notebook, "between = 1", "between = 2", False),  # measuring code
        (notebook, "between = 1", "between = (  # a comment\\n 1)", True),
        (book / "book/demo/claims.yml", "[]", "[ ]", True),
        (book / "book/demo/profiles/laptop.yml", "profile: laptop", "profile: laptop\nlr: 0.3", False),
        (run.result(book), '"seed": 0', '"seed": 1', False),
        (run.notebook(book), "written:", "Written:", False),
        (run.folder(book) / "done.json", "{", "", False),
        (run.folder(book) / "done.json", "checksums", "sums", False),
    ]:
        content = file.read_bytes()
        assert old.encode() in content
        file.write_bytes(content.replace(old.encode(), new.encode()))
        (again,) = many.plan("demo", "laptop", [0], {"k": 5}, {}, root=book)
        assert many.is_done(again, book) == still, new
        file.write_bytes(content)
    assert many.is_done(run, book)


@pytest.mark.parametrize("changed", ["claims.yml", "../demo.ipynb"])
def test_evidence_ends_where_code_or_claims_change_meanwhile(book, monkeypatch, changed):
    small_book.commit(book)
    planned = many.plan("demo", "evening", [100, 101], {}, {}, root=book, as_evidence=True)

    def begun(run, variables, root):
        run.folder(root).mkdir(parents=True)
        (run.folder(root) / "log.txt").write_text("")
        file = book / "book/demo" / changed
        file.write_text(file.read_text().replace("[]\n", "[ ]\n").replace("between = 1", "between = 2"))
        return subprocess.Popen(["true"])

    monkeypatch.setattr(many, "_process", begun)
    events = [(run.seed, state, note) for run, state, note in many.one_a_core(planned, 1, book)]
    assert [event[:2] for event in events] == [(100, "running"), (100, "done"), (101, "failed")]
    assert "code or claims were changed since this began; commit and begin again" in events[-1][2]


def test_a_run_that_the_book_shows_is_done_again_when_its_text_changes(book):
    (run,) = many.plan("demo", "laptop", [0], {}, {}, root=book)
    assert paperwalk(book, "run", "demo").returncode == 0
    assert many.is_done(run, book) and freshness.stale("book/demo.ipynb", book) is None
    (other,) = many.plan("demo", "paper", [0], {}, {}, root=book)
    before = [many.identity(r, book) for r in (run, other)]
    small_book.add_text(book, "# A new word")
    after = [many.identity(r, book) for r in (run, other)]
    assert after[0] != before[0] and after[1] == before[1]


def test_one_failure_does_not_keep_the_others_from_running(book):
    done = paperwalk(book, "run", "demo", "--sweep", "fail=error,never", "--seeds", "2")
    assert done.returncode == 1
    assert "\n2 done, 2 failed, in " in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "2 of 4 runs failed: demo laptop seed 0 fail=error; demo laptop seed 1 fail=error"
    )
    assert "[3/4] demo laptop seed 0: done" in done.stderr or "[3/4] demo laptop seed 0 fail=never: done" in done.stderr


def test_a_run_asks_for_its_workers_a_gpu_where_it_needs_one_and_the_memory_measured(book):
    (run,) = many.plan("demo", "gpu", [0], {}, {}, elsewhere=True, root=book)
    assert cluster.resources(run, {}, book) == {"cpus": 2, "gpus": 1}
    assert cluster.resources(run, {"gpus": 0.5, "memory_gb": 3.0}, book) == {"cpus": 2, "gpus": 0.5, "memory_gb": 3.0}
    (book / "book/demo/results").mkdir()
    of_gpu = {"schema": records.SCHEMA, "chapter": "demo", "profile": "gpu", "evidence": True, "git_dirty": False}
    for seed, peak in enumerate([2e9, 3e9], 100):
        meta = of_gpu | {"seed": seed, "peak_memory_bytes": peak}
        records.write(book / f"book/demo/results/gpu-seed{seed}.parquet", {}, meta)
    assert cluster.resources(run, {}, book)["memory_gb"] == 3.0
    (book / "book/demo/results/gpu-seed100.parquet").write_text("PAR1")
    assert cluster.resources(run, {}, book) == {"cpus": 2, "gpus": 1}


def test_the_table_has_a_line_for_each_run(book, capsys, monkeypatch):
    from rich.console import Console

    planned = many.plan("demo", "laptop", [0, 1, 2], {}, {}, root=book)
    monkeypatch.setattr(Console, "is_terminal", True)
    events = [(planned[1], "running", "1/4 demo steps"), (planned[1], "retried", "0/4"), (planned[2], "failed", "oh")]
    states = many.follow(planned, planned[:1], events, live=True)
    assert [states[run][0] for run in planned] == ["skipped", "retried", "failed"]
    out, err = capsys.readouterr()
    assert out.splitlines()[:3] == [
        "demo laptop seed 0: skipped: done before; --again runs it again",
        "demo laptop seed 1: retried at the second try or later: 0/4",
        "demo laptop seed 2: failed: oh",
    ]
    assert out.splitlines()[3] == "1 skipped, 1 failed, 1 retried, in 0 s"
    assert "running  1/4 demo steps" in err and "skipped  done before" in err
