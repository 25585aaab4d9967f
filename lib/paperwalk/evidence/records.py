"""What a run leaves: its results file, with the machine, the code and the commit that it comes from."""

import json
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from paperwalk import runs

SCHEMA = 1
PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "transformers", "numba", "safetensors", "papermill", "rouge-score")


class EvidenceError(RuntimeError):
    """A results or claims file cannot be used, or figures cannot be written; the message names file and entry."""


def write(
    chapter: str,
    profile: str,
    seed: int,
    parameters: dict,
    metrics: dict,
    data: dict,
    wall_seconds: float,
    root: Path | None = None,
) -> Path:
    """Write one run's results file, atomically, and return its path.

    metrics: {name: {"value": finite float, "unit": str}}. data: anything JSON can hold, for figures.
    The file is `result_file`'s. Where the clock was set during a run that `runs.execute` started, its length by a clock
    that cannot be set takes the place of wall_seconds. Raises EvidenceError naming the metric that is not finite or
    has no unit.
    """
    for name, entry in metrics.items():
        if not (isinstance(entry, dict) and set(entry) == {"value", "unit"} and isinstance(entry["unit"], str)):
            raise EvidenceError(f"metric {name} = {entry!r}: must be {{'value': a number, 'unit': text}}")
        if isinstance(entry["value"], bool) or not isinstance(entry["value"], (int, float)):
            raise EvidenceError(f"metric {name} = {entry['value']!r}: must be a number")
        if not math.isfinite(entry["value"]):
            raise EvidenceError(f"metric {name} = {entry['value']}: must be finite")
    file = result_file(chapter, parameters | {"profile": profile, "seed": seed}, root)
    file.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "schema": SCHEMA,
        "chapter": chapter,
        "profile": profile,
        "seed": seed,
        "parameters": parameters,
        "metrics": metrics,
        "data": data,
        "code_hash": os.environ.get("PAPERWALK_CODE") or runs.measured_hash(runs.notebook_path(chapter, root)),
        "wall_seconds": round(_steady(wall_seconds), 1),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **_machine(),
        **commit(file.parent),
    }
    runs.write_atomically(file, json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return file


def result_file(chapter: str, parameters: dict, root: Path | None = None) -> Path:
    """Where a run with these parameters (profile and seed among them) writes its results.

    A run of laptop, gpu or paper with exactly the profile's parameters is evidence: book/<chapter>/results. Any other's
    are in _runs/<chapter>/results. The file is named as the run is (`runs.run_name`).
    """
    profile, seed = parameters["profile"], parameters["seed"]
    faithful = profile != "ci" and parameters == runs.profile_values(chapter, profile, root) | {"seed": seed}
    book = runs.notebook_path(chapter, root).with_suffix("")
    folder = book if faithful else book.parents[1] / "_runs" / chapter
    return folder / "results" / f"{runs.run_name(chapter, parameters, root)}.json"


def read(file: Path) -> dict:
    """One results file. Raises EvidenceError naming the file where it is unreadable, cut off or of another schema."""
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{file}: not a readable results file ({error}); run the chapter again") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise EvidenceError(f"{file}: not a results file of schema {SCHEMA}; run the chapter again")
    return result


def load(chapter: str, profile: str, root: Path | None = None) -> list[dict]:
    """The committed results of a chapter at a scale, by seed; an empty list where there are none."""
    files = (runs.notebook_path(chapter, root).with_suffix("") / "results").glob(f"{profile}-seed*.json")
    return sorted((read(file) for file in files), key=lambda result: result["seed"])


def is_fresh(result: dict, root: Path | None = None) -> bool:
    """Whether the notebook's measuring code and the profile's parameters are still those of the results."""
    chapter, profile = result["chapter"], result["profile"]
    same_code = result["code_hash"] == runs.measured_hash(runs.notebook_path(chapter, root))
    return same_code and result["parameters"] == runs.profile_values(chapter, profile, root) | {"seed": result["seed"]}


def values(results: list[dict], metric: str) -> list[float]:
    """The metric's value in each result that has it."""
    return [r["metrics"][metric]["value"] for r in results if metric in r["metrics"]]


def by_arm(results: list[dict], figure: str, arms: Iterable[str]) -> list[list[float]]:
    """For each arm the values of the metric "figure.arm" over the results."""
    return [values(results, f"{figure}.{arm}") for arm in arms]


def metric_name(words: str) -> str:
    """A metric's name from words: hyphens stand for all but letters, digits and dots."""
    return re.sub(r"[^\w.]+", "-", words)


def _machine():
    import psutil

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": device_name(),
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "peak_memory_bytes": _peak_memory(),
    }


def device_name() -> str:
    """Name of the GPU that this process uses, or of the processor."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]


def _peak_memory():
    """Sum of the largest resident memory of this process and of its living children, in bytes."""
    import psutil

    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            total += int(peak[1]) * 1024 if peak else process.memory_info().rss
        except (OSError, psutil.Error):  # no /proc, or the process has ended meanwhile
            continue
    return total or psutil.Process().memory_info().rss


def _steady(wall_seconds):
    """wall_seconds, or where the system's clock was set since the run began the seconds that a steady one counts."""
    if "PAPERWALK_CLOCKS" not in os.environ:
        return wall_seconds
    clock, steady = map(float, os.environ["PAPERWALK_CLOCKS"].split())
    seconds = time.monotonic() - steady
    return wall_seconds if abs(time.time() - clock - seconds) < 1 else seconds


def commit(folder: Path) -> dict:
    """{"git_commit", "git_dirty"} of the repository that the folder lies in; PAPERWALK_COMMIT names those of a copy.

    Results files do not count: what an earlier run wrote leaves the tree as clean as it was.
    """
    if "PAPERWALK_COMMIT" in os.environ:
        return json.loads(os.environ["PAPERWALK_COMMIT"])

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        changed = git("status", "--porcelain", "--", ":/", ":(top,exclude,glob)book/*/results/**")
        return {"git_commit": git("rev-parse", "HEAD") or "unknown", "git_dirty": changed != ""}
    except OSError:  # no git
        return {"git_commit": "unknown", "git_dirty": True}
