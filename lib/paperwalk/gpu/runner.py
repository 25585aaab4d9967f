"""Everything that a GPU is wanted for, within some minutes: what ends is kept, what fails costs itself alone.

A box is one program with a time limit and a log; boxes of a stage run side by side, stages one after the other until
the deadline. Chapters note each arm in a journal as it ends (`runs.progress`). In the end, and after each stage, what
there is goes into a few files of at most 16 MiB.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from paperwalk import evidence, runs
from paperwalk.gpu import pack

SEEDS = (100, 101, 102)  # evidence; a dry run is a trial, of seed 0
CHAPTERS = ("searchformer", "transformer_fam", "rest", "goldfish")  # by what a GPU decides; the law book needs none
BENCHMARKS = ("mask", "loss", "fam", "generation")
SECONDS = {"probe": 40, "tests": 90, "steps": 60, "bench": 50, "chapter": 180}
FEW = 20  # updates of each training when a chapter is only to show that it runs at full size
# Processes that share a GPU take turns on it. On an H200 an update of Goldfish took a tenth of a second beside thirteen
# other processes (benchmarks/gpu), twenty times what its launches take by count. So chapters come one after the other,
# their seeds side by side, a process each.
LEAST = 15  # seconds before the deadline in which nothing is begun any more: what there is gets packed
LARGEST = 16 * 2**20  # bytes of a file that comes back


@dataclass
class Box:
    """A program with its time limit in seconds; state: waiting, running, done, failed, "time up" or "not begun"."""

    name: str
    command: list[str]
    seconds: float
    result: Path | None = None  # a results file that it writes into the book
    state: str = "waiting"
    taken: float = 0.0
    process: subprocess.Popen | None = field(default=None, repr=False)


def run_all(minutes: float, out: Path, only=(), dry=False, loads: Path | None = None, stage: Path | None = None) -> int:
    """Runs the stages and packs what they gave into `out`; the number of boxes that failed.

    only: names of boxes ("bench:loss"), of kinds ("probe", "tests", "steps", "bench", "chapter") or of chapters; none:
    all. dry: the same way on a CPU at ci scale. loads: where the loads lie. stage: where they are laid out; it is kept.
    """
    began = time.monotonic()
    deadline = began + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    loads = loads or runs.ROOT / pack.FOLDER
    stage = stage or Path(tempfile.gettempdir()) / "paperwalk-gpu"
    work = stage / f"out-{pack.code_hash(runs.ROOT)[:12]}"  # what an earlier call of the same code left stays
    for part in ("logs", "journal", "benchmarks", "results"):
        (work / part).mkdir(parents=True, exist_ok=True)
    environment = _environment(pack.unpack(loads, stage), loads, work, dry)
    boxes = []
    for stage_boxes in stages(work, dry, only):
        boxes += stage_boxes
        _run_stage(stage_boxes, deadline, environment, work)
        _collect(boxes, work, out, began)
        if deadline - time.monotonic() < LEAST:
            break
    for line in table(boxes):
        print(line, flush=True)
    return sum(box.state != "done" for box in boxes)


def stages(work: Path, dry: bool, only=()) -> list[list[Box]]:
    """The boxes in order; those of a list run side by side. Raises ParameterError for a name that is none."""
    python = sys.executable
    junit = ["-p", "no:cacheprovider", f"--junitxml={work / 'tests.xml'}"]
    boxes = [[Box("probe", [python, "-m", "paperwalk.gpu.probe", str(work / "probe.json")], SECONDS["probe"])]]
    smoke = [Box("tests", [python, "-m", "pytest", "-m", "gpu", *junit, *tests_for_gpu()], SECONDS["tests"])]
    if not dry:
        smoke += [_chapter(name, "gpu", 0, _few_steps(name), SECONDS["steps"]) for name in CHAPTERS]
    boxes.append(smoke)
    for name in BENCHMARKS[:1] if dry else BENCHMARKS:
        boxes.append([Box(f"bench:{name}", [python, "-m", f"benchmarks.{name}"], SECONDS["bench"])])
    for name in CHAPTERS:
        profile, seeds = ("ci", (0,)) if dry else ("gpu", SEEDS)
        boxes.append([_chapter(name, profile, seed, {}, SECONDS["chapter"]) for seed in seeds])
    names = {box.name for part in boxes for box in part}
    names |= {name.split(":")[0] for name in names} | set(CHAPTERS) | {"chapter"}
    if unknown := set(only) - names:
        raise runs.ParameterError(f"only = {', '.join(sorted(unknown))}: must be among {', '.join(sorted(names))}")
    chosen = [[box for box in part if not only or _names(box) & set(only)] for part in boxes]
    return [part for part in chosen if part]


def tests_for_gpu() -> list[str]:
    """The test files that hold tests marked `gpu`; others may need packages that the machine lacks."""
    files = sorted((runs.ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if "pytest.mark.gpu" in file.read_text(encoding="utf-8")]


def _names(box):
    """What a box answers to: its name, its kind, and for a chapter at full scale the chapter."""
    kind, _, rest = box.name.partition(":")
    return {box.name, kind} | ({rest.split(":")[0]} if kind == "chapter" else set())


def _few_steps(chapter):
    """What cuts every training of a chapter short, and leaves its sizes and tests as they are."""
    values = runs.profile_values(chapter, "gpu")
    steps = {name: min(FEW, value) for name, value in values.items() if name == "steps" or name.endswith("_steps")}
    return steps | {"warmup": min(5, values["warmup"]), "workers": 1}


def _chapter(chapter, profile, seed, overrides, seconds):
    command = [sys.executable, "-m", "paperwalk.runs.plain", chapter, profile, str(seed), json.dumps(overrides)]
    values = runs.profile_values(chapter, profile) | {"seed": seed} | overrides
    kind = "steps" if overrides else "chapter"
    return Box(f"{kind}:{chapter}:{seed}", command, seconds, evidence.result_file(chapter, values))


def _environment(places, loads, work, dry):
    """Variables of the programs: where packages and texts lie, one thread a process, and no way to a network."""
    paths = [str(runs.ROOT / "lib"), str(runs.ROOT), str(places["site"]), os.environ.get("PYTHONPATH", "")]
    set_here = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PAPERWALK_CACHE": str(places["cache"]),
        "PAPERWALK_COMMIT": json.dumps(pack.commit(loads, runs.ROOT)),
        "PAPERWALK_BENCHMARKS": str(work / "benchmarks"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "MPLBACKEND": "agg",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return os.environ | set_here | ({"PAPERWALK_ROUNDS": "2"} if dry else {})


def _run_stage(boxes, deadline, environment, work):
    """Starts the boxes and waits for them; kills what is over its time with all that it started."""
    started = time.monotonic()
    for box in boxes:
        if deadline - started < LEAST:
            box.state = "not begun"
            continue
        if box.result is not None and _is_measured(box.result):
            box.state = "done"
            continue
        own = environment | {"PAPERWALK_JOURNAL": str(work / "journal" / f"{box.name.replace(':', '-')}.jsonl")}
        with (work / "logs" / f"{box.name.replace(':', '-')}.log").open("ab") as log:
            box.process = subprocess.Popen(
                box.command,
                stdin=subprocess.PIPE,  # its end tells the program that this one has ended
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=runs.ROOT,
                env=own,
                start_new_session=True,
            )
        box.state = "running"
        print(f"{box.name}: begun", flush=True)
    while waiting := [box for box in boxes if box.state == "running"]:
        for box in waiting:
            box.taken = time.monotonic() - started
            if (status := box.process.poll()) is not None:
                box.state = "done" if status == 0 else "failed"
            elif box.taken > box.seconds or time.monotonic() > deadline - LEAST:
                box.state = "time up"
            if box.state != "running":
                with contextlib.suppress(ProcessLookupError):  # workers that it left
                    os.killpg(box.process.pid, signal.SIGKILL)
                box.process.wait()
                box.process.stdin.close()
                print(f"{box.name}: {box.state} after {box.taken:.1f} s", flush=True)
        time.sleep(0.1)


def _is_measured(result):
    """Whether the book holds the results already, from the present code."""
    try:
        return result.is_relative_to(runs.ROOT / "book") and evidence.is_fresh(evidence.read(result))
    except evidence.EvidenceError:
        return False


def _collect(boxes, work, out, began):
    """Lays what there is so far into `out`: summary.json, probe.json, smoke.json and all the rest in all.tar.xz."""
    for box in boxes:
        if box.result is not None and box.result.exists():
            shutil.copyfile(box.result, work / "results" / f"{box.result.parents[1].name}-{box.result.name}")
    rows = [{"box": box.name, "state": box.state, "seconds": round(box.taken, 1)} for box in boxes]
    whole = {"seconds": round(time.monotonic() - began, 1), "boxes": rows, "arms": _arms(work)}
    runs.write_atomically(out / "summary.json", json.dumps(whole, indent=1) + "\n")
    for name, content in (("probe.json", work / "probe.json"), ("smoke.json", None)):
        if name == "smoke.json" and (work / "tests.xml").exists():
            runs.write_atomically(out / name, json.dumps({"tests": outcomes(work / "tests.xml")}, indent=1) + "\n")
        elif content is not None and content.exists():
            shutil.copyfile(content, out / name)
    temporary = out / ".all.tar.xz"
    with tarfile.open(temporary, "w:xz") as archive:
        for part in ("logs", "journal", "benchmarks", "results"):
            archive.add(work / part, part)
    if temporary.stat().st_size > LARGEST:  # logs can be had again
        with tarfile.open(temporary, "w:xz") as archive:
            for part in ("journal", "benchmarks", "results"):
                archive.add(work / part, part)
    os.replace(temporary, out / "all.tar.xz")


def _arms(work):
    """{box: number of arms in its journal}."""
    return {file.stem: len(read_journal(file)) for file in sorted((work / "journal").glob("*.jsonl"))}


def read_journal(file: Path) -> list[dict]:
    """The rows of a journal; a last line that was cut off is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def outcomes(report: Path) -> list[dict]:
    """{test, outcome, seconds, why} of each test of a JUnit report."""
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [part for part in case if part.tag in ("failure", "error", "skipped")]
        row = {"test": f"{case.get('classname')}.{case.get('name')}", "seconds": float(case.get("time"))}
        row["outcome"] = bad[0].tag if bad else "passed"
        rows.append(row | ({"why": (bad[0].get("message") or "")[:300]} if bad else {}))
    return rows


def table(boxes) -> list[str]:
    """A line a box."""
    return [f"{box.name:<28} {box.state:<10} {box.taken:7.1f} s" for box in boxes]
