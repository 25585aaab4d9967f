"""What a GPU machine runs, walked on a CPU at ci scale: from packed loads, without Jupyter and what else it lacks.

One walk serves all tests of this file.
"""

import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.gpu import pack, runner
from paperwalk import evidence, runs

pytestmark = pytest.mark.full

HERE = Path(__file__).parent
# Figures that are another machine's, or another moment's
TIMED = re.compile(r"speed|second|stream|memory|time_ratio|r_squared")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The tree (a copy of what git tracks, and the loads), what the run printed, and the folder of its results."""
    packed = tmp_path_factory.mktemp("packed")
    loads = pack.make(packed)
    tree, out, blocked = (tmp_path_factory.mktemp("gpu") / name for name in ("tree", "out", "blocked"))
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=runs.ROOT, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (runs.ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(runs.ROOT / name, tree / name)
    shutil.copytree(packed, tree / pack.FOLDER)
    blocked.mkdir()
    shutil.copyfile(HERE / "bare.py", blocked / "sitecustomize.py")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PAPERWALK")}
    environment |= {
        "PYTHONPATH": os.pathsep.join((str(tree / "lib"), str(blocked))),
        "PAPERWALK_BARE": str(HERE / "packages.txt"),
        "PIP_INDEX_URL": "http://127.0.0.1:9",  # no network
        "HOME": str(HERE / "packages.txt"),  # no cache of ours, and none can be made
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = ["--dry", "--minutes", "30", "--out", str(out), "--stage", str(tree.parent / "stage")]
    done = subprocess.run(
        [sys.executable, "-m", "deploy.gpu", "run", *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    with tarfile.open(out / "all.tar.xz") as archive:
        archive.extractall(out / "all", filter="data")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return SimpleNamespace(done=done, tree=tree, out=out, loads=loads, env=environment, seconds=seconds)


def test_nothing_fails_within_six_minutes_of_a_core(walk):
    logs = "\n".join(file.read_text()[-1500:] for file in (walk.out / "all" / "logs").iterdir())
    assert walk.done.returncode == 0, walk.done.stdout + walk.done.stderr + logs
    assert walk.seconds < 360
    states = {box["box"]: box["state"] for box in json.loads((walk.out / "summary.json").read_text())["boxes"]}
    wanted = {f"chapter:{chapter}:0" for chapter in runner.chapters()} | {"probe", "tests", "bench:mask"}
    assert states == dict.fromkeys(wanted, "done")


def test_what_comes_back_is_little(walk):
    files = [file for file in walk.out.iterdir() if file.is_file()]
    assert len(files) <= 8 and max(file.stat().st_size for file in files) <= runner.LARGEST


def test_each_load_fits(walk):
    for files in walk.loads.values():
        assert sum(files.values()) + pack.tree_size(runs.ROOT) < pack.MOST


def alike(one, other, where=""):
    """Fails, saying where, unless two JSON values are equal, numbers up to rounding; times may differ."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            alike(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for n, (each, its_other) in enumerate(zip(one, other)):
            alike(each, its_other, f"{where}.{n}")
    elif not TIMED.search(where):
        assert one == (pytest.approx(other, rel=1e-3, abs=1e-4) if isinstance(one, float) else other), where


@pytest.mark.parametrize("chapter", runner.chapters())
def test_results_are_those_of_a_run_in_jupyter(walk, ci_run, chapter):
    """The same code, parameters, data and outcomes as in a Jupyter kernel."""
    plain = evidence.read(walk.out / "all" / "results" / f"{chapter}-ci-seed0.parquet")
    jupyter = ci_run(chapter)
    for part in ("parameters", "code", "sources", "complete", "evidence"):
        assert plain.meta[part] == jupyter.meta[part], part
    assert sorted(plain.meta["finished"]) == sorted(jupyter.meta["finished"])
    by_name = [{f"{measure} {arm}": of for (measure, arm), of in run.outcomes.items()} for run in (plain, jupyter)]
    assert sum(not TIMED.search(name) for name in by_name[0]) > 30
    alike(*by_name)
    alike(plain.kept, jupyter.kept)


@pytest.mark.parametrize("chapter", runner.chapters())
def test_each_arm_is_in_the_journal(walk, chapter):
    rows = runner.read_journal(walk.out / "all" / "journal" / f"chapter-{chapter}-0.jsonl")
    done = total = 0
    for row in rows:  # experiments follow each other, each from its first arm to its last
        done, total = (done + 1, total) if done < total else (1, row["total"])
        assert (row["n"], row["total"]) == (done, total)
    assert done == total > 0
    arms = json.loads((walk.out / "summary.json").read_text())["arms"][f"chapter-{chapter}-0"]
    assert arms["failed"] == [] and 10 < arms["ended"] <= len(rows)


@pytest.mark.parametrize("name", runner.BENCHMARKS)
def test_each_benchmark_finds_its_packages(walk, name):
    paths = [walk.tree, walk.env["PYTHONPATH"], walk.tree.parent / "stage" / "site"]
    env = walk.env | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", f"import benchmarks.{name}"]
    done = subprocess.run(command, cwd=walk.tree, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_machine_is_bare(walk):
    """The walk could not have taken Jupyter or a package that is not carried."""
    for module in ("IPython", "ipywidgets", "papermill", "mwparserfromhell", "rouge_score"):
        done = subprocess.run([sys.executable, "-c", f"import {module}"], env=walk.env, capture_output=True, text=True)
        assert done.returncode == 1 and f"No module named '{module}'" in done.stderr, module
        assert importlib.util.find_spec(module), f"{module} is not installed here: nothing was hidden"
    site = {"PYTHONPATH": os.pathsep.join((walk.env["PYTHONPATH"], str(walk.tree.parent / "stage" / "site")))}
    done = subprocess.run([sys.executable, "-c", "import rouge_score"], env=walk.env | site, capture_output=True)
    assert done.returncode == 0, done.stderr
