"""`python -m paperwalk evidence`: what is refused, measured, left as it is and superseded; and a kill in its midst."""

import re
import shutil

import nbformat
import psutil
import pytest
import yaml

import small_book
from paperwalk import evidence, runs
from paperwalk.evidence.records import REGISTERED
from small_book import in_cell, lines, paperwalk, start, wait_for

pytestmark = pytest.mark.full

CLAIMS = {
    "measures": {"value": {"what": "a number", "unit": "1"}},
    "claims": [
        {"id": "big", "claim": "It is", "source": "ours", "measure": "value", "arm": "demo", "criterion": ">= 5"},
    ],
}
ARMS = """def told(what):
    with open(p.log, "a") as file:
        file.write(f"{what} {os.getpid()}\\n")

def arm(name):
    told(f"begins {name}")
    time.sleep(p.pause)
    values = [(31 * p.seed + 7 * n + len(name)) % 10 / 7 for n in range(6)]
    return {"value": dict(zip("abcdef", values)), "first": {"a": values[0]}}, {"curve": values[:2]}

experiment.measure(arm, ["one", "three", "fifteen"], "arms")
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The small book with a claim, all of it committed."""
    for name in ("PAPERWALK_ROOT", "PAPERWALK_COMMIT", REGISTERED):
        monkeypatch.delenv(name, raising=False)
    root = small_book.make(tmp_path / "root")
    (root / "book/demo/claims.yml").write_text(yaml.safe_dump(CLAIMS))
    small_book.commit(root)
    return root


def listing(root):
    """All files but git's own."""
    files = (file for file in root.rglob("*") if file.is_file() and ".git" not in file.parts)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def results(root):
    return {name: content for name, content in listing(root).items() if name.startswith("book/demo/results/")}


RUN = ["run", "demo", "--profile", "evening", "--seeds", "100-100", "--evidence"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["evidence", "demo", "--profile", "laptop"],
            "profile = 'laptop': must be one of evening, gpu, paper for",
        ),
        (["evidence", "demo", "--profile", "ci"], "profile = 'ci': must be one of evening, gpu, paper for evidence"),
        (["evidence", "demo", "--seeds", "99-101"], "seeds = 99: must be 100 or more for evidence; 0 to 99 are for t"),
        (["evidence", "demo", "--seeds", "3"], "seeds = 0: must be 100 or more for evidence; 0 to 99 are for trials"),
        (["evidence", "demo", "--set", "k=4"], "unrecognized arguments: --set k=4"),
        (["evidence", "demo", "--cores", "0"], "cores = '0': must be a whole number of at least 1"),
        (["evidence", "demo", "--supersede", " "], "supersede = '': must say why the evidence no longer counts"),
        (["evidence", "dmo"], "chapter = 'dmo': must be one of demo"),
        (["run", "demo", "--evidence"], "profile = 'laptop': must be one of evening, gpu, paper for evidence"),
        ([*RUN, "--set", "k=4"], "k: must not be overridden in evidence; it is measured as the profile says"),
        ([*RUN, "--sweep", "k=4,5"], "k: must not be overridden in evidence; it is measured as the profile says"),
        ([*RUN, "--again"], "again: must not come with --evidence, which is never overwritten"),
    ],
)
def test_a_trial_is_refused_as_evidence_in_one_line(root, arguments, message):
    before = listing(root)
    done = paperwalk(root, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
    assert listing(root) == before


@pytest.mark.parametrize("how", ["changed", "new", "removed", "no repository"])
@pytest.mark.parametrize("command", [["evidence", "demo", "--supersede", "why"], RUN], ids=["evidence", "run"])
def test_evidence_is_refused_in_a_tree_that_is_not_committed(root, how, command):
    (root / "book/demo/results").mkdir()
    shutil.copy(put(root, 5), root / "book/demo/results/evening-seed100.parquet")
    if how == "changed":
        in_cell(root, "between = 1", "between = 2")  # so that the evidence is stale
    elif how == "new":
        (root / "new.py").write_text("")
    elif how == "removed":
        (root / "book/demo/profiles/ci.yml").unlink()
    else:
        shutil.rmtree(root / ".git")
    before = listing(root)
    done = paperwalk(root, *command)
    assert done.returncode == 1 and done.stdout == ""
    wanted = "evidence of demo: must be of a clean working tree in git; commit what is changed\n"
    assert done.stderr == wanted and listing(root) == before


def put(root, value, seed=100):
    """A whole results file of the chapter as it is."""
    records = evidence.Records("demo", runs.profile_values("demo", "evening", root) | {"seed": seed}, root)
    records.record("value", "demo", None, value)
    return records.save(complete=True)


def test_evidence_measures_the_seeds_that_are_missing_and_says_what_is_open(root):
    commit = small_book.commit(root)
    done = paperwalk(root, "evidence", "demo", "--seeds", "100-101", "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert "\n2 done, in " in done.stdout
    assert re.search(r"^open +big .* 3 seeds at least would settle it$", done.stdout, re.M), done.stdout
    before = results(root)
    assert sorted(before) == [f"book/demo/results/evening-seed{seed}.parquet" for seed in (100, 101)]
    for seed, name in zip((100, 101), sorted(before)):
        run = evidence.read(root / name)
        assert run.means == {"value.demo": small_book.value(seed)}
        meta = {key: run.meta[key] for key in ("evidence", "complete", "git_commit", "git_dirty")}
        assert meta == {"evidence": True, "complete": True, "git_commit": commit, "git_dirty": False}
    done = paperwalk(root, "evidence", "demo", "--seeds", "100-102")
    assert done.returncode == 0, done.stderr
    assert "\n1 done, 2 skipped, in " in done.stdout and "seed 100: skipped: done before\n" in done.stdout
    assert re.search(r"^holds +big ", done.stdout, re.M), done.stdout
    after = results(root)
    assert len(after) == 3 and {name: after[name] for name in before} == before
    done = paperwalk(root, *RUN)
    assert "1 skipped" in done.stdout and results(root) == after


def test_evidence_that_fails_is_named_and_measured_the_next_time(root):
    profile = root / "book/demo/profiles/evening.yml"
    profile.write_text("profile: evening\nfail: error\n")
    small_book.commit(root)
    done = paperwalk(root, "evidence", "demo", "--seeds", "100-101")
    assert done.returncode == 1 and results(root) == {}
    assert re.match(r"2 of 2 runs failed: demo: code cell 4 .*ValueError: the sky fell", done.stderr.splitlines()[-1])
    profile.write_text("profile: evening\n")
    small_book.commit(root)
    done = paperwalk(root, "evidence", "demo", "--seeds", "100-101")
    assert done.returncode == 0 and len(results(root)) == 2, done.stderr


def test_stale_evidence_is_not_overwritten_but_superseded_with_the_reason(root):
    evidence_of_100 = ["evidence", "demo", "--seeds", "100-100"]
    assert paperwalk(root, *evidence_of_100).returncode == 0
    name, folder = "book/demo/results/evening-seed100.parquet", root / "book/demo/results/superseded"
    in_cell(root, "between = 1", "between = 1  # a comment")
    small_book.commit(root)
    assert "1 skipped" in paperwalk(root, *evidence_of_100, "--supersede", "none is stale").stdout
    assert list(results(root)) == [name]
    for number, reason in enumerate(["a wrong step", "a better one"], 1):
        before = results(root)
        in_cell(root, f"between = {number}", f"between = {number + 1}")
        small_book.commit(root)
        for command in (evidence_of_100, ["evidence", "demo", "--seeds", "101-101"], RUN):
            done = paperwalk(root, *command)
            assert done.returncode == 1 and done.stdout == "" and results(root) == before
            assert done.stderr.startswith("evidence of demo: evening-seed100.parquet is of other code or data, and")
        done = paperwalk(root, *evidence_of_100, "--supersede", f" {reason}\n")
        assert done.returncode == 0, done.stderr
        newest = max(folder.glob("*/"), key=lambda place: (len(place.name), place.name))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d" + "-2" * (number == 2), newest.name)
        moved = newest / "evening-seed100.parquet"
        assert done.stdout.splitlines()[0] == f"superseded: {moved.relative_to(root)}"
        assert moved.read_bytes() == before[name] and "1 done" in done.stdout
        last = (folder / "README.md").read_text().splitlines()[-1]
        assert last == f"- `{newest.name}`: evening, seeds 100. {reason}"
        assert evidence.is_fresh(evidence.read(root / name), root)
    assert "a wrong step" in (folder / "README.md").read_text()
    assert [run.superseded for run in evidence.superseded("demo", root)] == [True]


def kill(process):
    """Kills the process and all that it has started, at once."""
    parent = psutil.Process(process.pid)
    victims = [parent, *parent.children(recursive=True)]
    for victim in victims:
        victim.kill()
    process.communicate()
    psutil.wait_procs(victims, timeout=20)


@pytest.mark.fault(
    "kill -9 of all processes that measure evidence",
    "finished arms are kept and not measured again; it ends in the outcomes of an undisturbed run",
)
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_evidence_goes_on_where_it_was(root, tmp_path, workers):
    log, profile = tmp_path / "log", root / "book/demo/profiles/evening.yml"
    profile.write_text(yaml.safe_dump({"profile": "evening", "workers": workers, "pause": 1.5, "log": str(log)}))
    notebook = nbformat.read(root / "book/demo.ipynb", as_version=4)
    notebook.cells[3].source, notebook.cells[5].source = ARMS, "experiment.write()"
    nbformat.write(notebook, root / "book/demo.ipynb")
    small_book.commit(root)
    options = ["evidence", "demo", "--seeds", "100-100"]
    file = root / "book/demo/results/evening-seed100.parquet"
    process = start(root, *options)
    wait_for(file.exists, process)
    kill(process)
    cut = evidence.read(file)
    kept = cut.meta["finished"]
    assert 1 <= len(kept) < 3 and not cut.meta["complete"]
    assert set(cut.outcomes) == {(m, arm.removeprefix("arms/")) for m in ("value", "first") for arm in kept}
    done = paperwalk(root, *options)
    assert done.returncode == 0 and "1 done" in done.stdout, done.stderr
    began = [line.split()[1] for line in lines(log)]
    assert set(began) == {"one", "three", "fifteen"}
    assert all(began.count(arm.removeprefix("arms/")) == 1 for arm in kept) and len(began) <= 3 + workers
    whole = evidence.read(file)
    file.unlink()
    assert paperwalk(root, *options).returncode == 0
    undisturbed = evidence.read(file)
    assert whole.outcomes == undisturbed.outcomes and len(whole.outcomes) == 6
    assert whole.kept == undisturbed.kept and whole.kept.keys() == {f"arms/{arm}" for arm in began}
    same = ("code", "parameters", "sources", "claims", "complete", "evidence", "git_commit", "git_dirty")
    assert [whole.meta[key] for key in same] == [undisturbed.meta[key] for key in same]
    assert sorted(whole.meta["finished"]) == sorted(undisturbed.meta["finished"])
