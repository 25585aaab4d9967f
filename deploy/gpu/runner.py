"""Everything that a GPU is wanted for, within some minutes: what ends is kept, what fails costs itself alone.

A box is one program with a time limit and a log; boxes of a stage run side by side, stages one after the other until
the deadline. Chapters note each arm in a journal as it ends (`runs.progress`). Every few seconds, and after each stage,
what there is goes into a few files of at most 16 MiB. Begun again with the same code, it leaves out what is done, and
comes to what it has tried in vain after all else.
"""

import contextlib
import ctypes
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
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from deploy.gpu import pack
from paperwalk import evidence, runs
from paperwalk.evidence.records import REGISTERED

# Processes that share a GPU take turns on it: beside some fifteen others an update took many times what its launches
# take by count (benchmarks/gpu). So each chapter first has one seed that runs alone, then the others side by side.
SEEDS = (100, 101, 102)  # evidence; a dry run is a trial, of seed 0
BENCHMARKS = ("mask", "loss", "stacked", "fam", "generation")
SECONDS = {"probe": 40, "tests": 150, "cells": 110, "chapter": 180}
SECONDS |= {"mask": 40, "loss": 80, "stacked": 90, "fam": 130, "generation": 120}
DRY_FACTOR = 4  # a box of a dry run may take so many times as long, on a CPU that others use too
LEAST = 15  # seconds before the deadline in which nothing is begun any more: what there is gets packed
GRACE = 5  # seconds between the request to end and the end
COLLECT_EVERY = 20  # seconds
PARTS = ("logs", "journal", "benchmarks", "results")  # folders of what comes back
LARGEST = 16 * 2**20  # bytes of a file that comes back


@dataclass
class Box:
    """A program with its time limit in seconds; state: waiting, running, done, failed, "time up" or "not begun".

    pretrained: it reads the packaged model, whose weights come in two loads. as_evidence: its results are for the book.
    """

    name: str
    command: list[str]
    seconds: float
    result: Path | None = None  # a results file that it writes into the book
    pretrained: bool = False
    as_evidence: bool = False
    state: str = "waiting"
    taken: float = 0.0
    process: subprocess.Popen | None = field(default=None, repr=False)


def run_all(
    minutes: float,
    out: Path,
    only: Collection[str] = (),
    dry: bool = False,
    loads: Path | None = None,
    stage: Path | None = None,
) -> int:
    """Runs the stages and packs what they gave into `out`; the number of boxes that did not end well.

    only: names of boxes ("bench:loss"), of kinds ("probe", "tests", "cells", "bench", "chapter") or of chapters; none:
    all. dry: the same way on a CPU at ci scale, from the beginning each time. loads: where the loads lie. stage: where
    they are laid out, and what is done is noted; it is kept.
    """
    began = time.monotonic()
    deadline = began + 60 * minutes
    loads = (loads or runs.ROOT / pack.FOLDER).resolve()
    stage, out = (stage or Path(tempfile.gettempdir()) / "paperwalk-gpu").resolve(), out.resolve()
    kind = "dry" if dry else "out"
    work = stage / f"{kind}-{pack.code_hash(runs.ROOT)[:12]}"  # what an earlier call of the same code left stays
    commit = pack.commit(loads, runs.ROOT)
    parts = stages(work, dry, only, clean=not commit["git_dirty"])
    out.mkdir(parents=True, exist_ok=True)
    for folder in PARTS:
        (work / folder).mkdir(parents=True, exist_ok=True)
    places = pack.unpack(loads, stage) if any(loads.glob("load-*")) else {}
    print(f"commit {commit['git_commit'] or 'unknown'}{', changed since' * commit['git_dirty']}", flush=True)
    environment = _environment(places, commit, stage, work, dry)
    boxes = [box for part in parts for box in part]
    earlier = {} if dry else _noted(work)
    _take_up(boxes, earlier, model=not places or pack.has_model(stage))
    tried = lambda part: any(box.state == "waiting" and box.name in earlier for box in part)
    for part in sorted(parts, key=tried):
        _run_stage(part, deadline, environment, work, lambda: _collect(boxes, work, out, began))
    for box in boxes:
        print(f"{box.name:<28} {box.state:<10} {box.taken:7.1f} s", flush=True)
    return sum(box.state != "done" for box in boxes)


def stages(work: Path, dry: bool, only: Collection[str] = (), clean: bool = True) -> list[list[Box]]:
    """The boxes in order; those of a list run side by side. Raises ParameterError for a name that is none.

    clean: whether all is committed, without which nothing is evidence.
    """
    python = sys.executable
    junit = ["-p", "no:cacheprovider", f"--junitxml={work / 'tests.xml'}"]
    boxes = [[Box("probe", [python, "-m", "deploy.gpu.probe", str(work / "probe.json")], SECONDS["probe"])]]
    boxes.append([Box("tests", [python, "-m", "pytest", "-m", "gpu", *junit, *tests_for_gpu()], SECONDS["tests"])])
    if not dry:  # each cell of each chapter once
        boxes.append([_chapter("cells", name, "ci", 0, {"device": "cuda", "bf16": True}) for name in chapters()])
    for name in BENCHMARKS[:1] if dry else BENCHMARKS:
        boxes.append([Box(f"bench:{name}", [python, "-m", f"benchmarks.{name}"], SECONDS[name])])
    if dry:
        boxes += [[_chapter("chapter", name, "ci", 0, {})] for name in chapters()]
        for [box] in boxes:
            box.seconds *= DRY_FACTOR
    else:
        for seeds in (SEEDS[:1], SEEDS[1:]):
            boxes += [[_chapter("chapter", name, "gpu", seed, {}, clean) for seed in seeds] for name in chapters()]
    names = {box.name for part in boxes for box in part}
    names |= {name.split(":")[0] for name in names} | set(chapters()) | {"chapter"}
    if unknown := set(only) - names:
        raise runs.ParameterError(f"only = {', '.join(sorted(unknown))}: must be among {', '.join(sorted(names))}")
    chosen = [[box for box in part if not only or _names(box) & set(only)] for part in boxes]
    return [part for part in chosen if part]


def chapters() -> list[str]:
    """Those that can use a GPU: they have the parameter `device`."""
    return [name for name in runs.chapters() if "device" in runs.defaults(name)]


def tests_for_gpu() -> list[str]:
    """The test files that hold tests marked `gpu`; others may need packages that the machine lacks."""
    files = sorted((runs.ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if "pytest.mark.gpu" in file.read_text(encoding="utf-8")]


def _names(box):
    """What a box answers to: its name, its kind, and for a chapter at full scale the chapter."""
    kind, _, rest = box.name.partition(":")
    return {box.name, kind} | ({rest.split(":")[0]} if kind == "chapter" else set())


def _chapter(kind, chapter, profile, seed, overrides, as_evidence=False):
    command = [sys.executable, "-m", "deploy.gpu.plain", chapter, profile, str(seed), json.dumps(overrides)]
    values = runs.profile_values(chapter, profile) | {"seed": seed} | overrides
    result = evidence.result_file(chapter, values, as_evidence=as_evidence)
    pretrained = values.get("extreme_model") == "smollm2"
    return Box(f"{kind}:{chapter}:{seed}", command, SECONDS[kind], result, pretrained, as_evidence)


def _environment(places, commit, stage, work, dry):
    """Variables of the programs: where packages and texts lie (without loads: as ever), one thread a process."""
    code = Path(__file__).parents[2]  # where this package and the library lie; PAPERWALK_ROOT may name another book
    paths = [code / "lib", code, runs.ROOT, places.get("site", ""), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
    set_here = offline | {"PAPERWALK_CACHE": str(places["cache"])} if places else {}
    set_here |= {
        "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths))),
        "PAPERWALK_COMMIT": json.dumps(commit),
        "PAPERWALK_HELD": "1",
        "PAPERWALK_BENCHMARKS": str(work / "benchmarks"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "TRITON_CACHE_DIR": str(stage / "triton"),
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return os.environ | set_here | ({"PAPERWALK_ROUNDS": "2"} if dry else {})


def _noted(work):
    """{box: {"state", "seconds"}} of the boxes that earlier calls tried."""
    file = work / "boxes.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _take_up(boxes, earlier, model):
    """Sets apart what is not to run: what is done already, and without the pretrained model what needs it."""
    for box in boxes:
        if earlier.get(box.name, {}).get("state") == "done":
            box.state, box.taken = "done", earlier[box.name]["seconds"]
            print(f"{box.name}: was done before, in {box.taken} s", flush=True)
        elif box.pretrained and not model:
            box.state = "not begun"
            print(f"{box.name}: not begun, for half of the pretrained model has not come yet", flush=True)


def _run_stage(boxes, deadline, environment, work, collect):
    """Runs the boxes that wait; ends what is over its time. Calls collect() now and then, and at last."""
    started = collected = time.monotonic()
    for box in boxes:
        if box.state == "waiting" and deadline - started < LEAST:
            box.state = "not begun"
        elif box.state == "waiting":
            _begin(box, environment, work)
    while running := [box for box in boxes if box.state == "running"]:
        for box in running:
            box.taken = time.monotonic() - started
            if (status := box.process.poll()) is not None:
                _end(box, "done" if status == 0 else "failed")
            elif box.taken > box.seconds or time.monotonic() > deadline - LEAST:
                _end(box, "time up")
        if time.monotonic() - collected > COLLECT_EVERY:
            collect()
            collected = time.monotonic()
        time.sleep(0.1)
    collect()


def _begin(box, environment, work):
    name = box.name.replace(":", "-")
    (work / "tests.xml").unlink(missing_ok=True) if box.name == "tests" else None
    own = {"PAPERWALK_JOURNAL": str(work / "journal" / f"{name}.jsonl"), REGISTERED: str(int(box.as_evidence))}
    with (work / "logs" / f"{name}.log").open("ab") as log:
        box.process = subprocess.Popen(
            box.command,
            stdin=subprocess.PIPE,  # its end tells a chapter that this process has ended
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=runs.ROOT,
            env=environment | own,
            start_new_session=True,
            preexec_fn=_prepare,
        )
    box.state = "running"
    print(f"{box.name}: begun", flush=True)


def _prepare():
    """In a box's process, before its program: SIGINT asks it to end also where the runner ignores that, as a script's
    background jobs do. On Linux it is killed when the runner ends; a chapter then ends its workers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end(box, state):
    """Ends the box with all that it started; what is still running may first write what it has, for some seconds."""
    box.state = state
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if state == "time up":
            os.killpg(box.process.pid, signal.SIGINT)
            box.process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):  # workers that it left
        os.killpg(box.process.pid, signal.SIGKILL)
    box.process.wait()
    box.process.stdin.close()
    print(f"{box.name}: {state} after {box.taken:.1f} s", flush=True)


def _collect(boxes, work, out, began):
    """Lays what there is so far into `out`: summary.json, probe.json, smoke.json and all the rest in all.tar.xz.

    What cannot be written, or is being changed by its program, is said, and stops nothing: the next time comes soon.
    """
    try:
        for box in boxes:
            if box.state == "done" and box.process is not None and box.result is not None and box.result.exists():
                shutil.copyfile(box.result, work / "results" / f"{box.result.parents[1].name}-{box.result.name}")
        rows = {box.name: {"state": box.state, "seconds": round(box.taken, 1)} for box in boxes}
        tried = {name: row for name, row in rows.items() if row["state"] in ("done", "failed", "time up")}
        runs.write_atomically(work / "boxes.json", json.dumps(_noted(work) | tried))
        listed = [{"box": name} | row for name, row in rows.items()]
        summary = {"seconds": round(time.monotonic() - began, 1), "boxes": listed, "arms": _arms(work, rows)}
        runs.write_atomically(out / "summary.json", json.dumps(summary, indent=1) + "\n")
        if (work / "probe.json").exists():
            shutil.copyfile(work / "probe.json", out / "probe.json")
        with contextlib.suppress(OSError, ElementTree.ParseError):  # no report yet, or half of one
            smoke = json.dumps({"tests": outcomes(work / "tests.xml")}, indent=1)
            runs.write_atomically(out / "smoke.json", f"{smoke}\n")
        temporary = out / ".all.tar.xz"
        for parts in (PARTS, PARTS[1:]):  # without the logs where they are too much
            with tarfile.open(temporary, "w:xz") as archive:
                for part in parts:
                    archive.add(work / part, part)
            if temporary.stat().st_size <= LARGEST:
                break
        os.replace(temporary, out / "all.tar.xz")
    except (OSError, tarfile.TarError) as error:
        print(f"not packed this time: {error}", flush=True)


def _arms(work, states):
    """{box: {"ended": number of arms, "failed": why, of those that failed}}; an arm taken up again counts once.

    states: {box: {"state", ...}}; where a box is done by now, what had failed in it has been made good.
    """
    done = {name.replace(":", "-") for name, row in states.items() if row["state"] == "done"}
    arms = {}
    for file in sorted((work / "journal").glob("*.jsonl")):
        rows = read_journal(file)
        failed = [row["failed"] for row in rows if "failed" in row and file.stem not in done]
        arms[file.stem] = {"ended": len({_name(row) for row in rows if "item" in row}), "failed": failed}
    return arms


def _name(row):
    """What tells an arm from others: by the chapters' custom the first part of an item is its name."""
    item = row["item"]
    return json.dumps([row["label"], item[0] if isinstance(item, list) and item else row["n"]])


def read_journal(file: Path) -> list[dict]:
    """The rows of a journal; a line that was cut off is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def outcomes(report: Path) -> list[dict]:
    """{test, outcome, seconds, why} of each test of a JUnit report."""
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [part for part in case if part.tag in ("failure", "error", "skipped")]
        row = {"test": f"{case.get('classname')}.{case.get('name')}", "seconds": float(case.attrib["time"])}
        row["outcome"] = bad[0].tag if bad else "passed"
        rows.append(row | ({"why": (bad[0].get("message") or "")[:300]} if bad else {}))
    return rows
