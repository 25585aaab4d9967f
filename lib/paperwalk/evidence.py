"""What runs measured, and what it says about the claims: results files, intervals, verdicts, the scoreboard."""

import json
import math
import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import yaml

from paperwalk import runs

SCHEMA = 1
SCALES = ("laptop", "gpu")
KINDS = ("claim", "question", "demonstration")
VERDICTS = ("reproduced", "partly", "not reproduced", "not attempted")
ANSWERS = ("yes", "no", "undecided")
COLUMNS = ["chapter", "claim", "paper", "ours", "low", "high", "n", "profile", "verdict"]
PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "transformers", "numba", "safetensors", "papermill", "rouge-score")


class EvidenceError(RuntimeError):
    """A results or claims file cannot be used, or figures cannot be written; the message names file and entry."""


# Results files


def write(
    chapter: str, profile: str, seed: int, parameters: dict, metrics: dict, data: dict, wall_seconds: float, root=None
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


def result_file(chapter: str, parameters: dict, root=None) -> Path:
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


def load(chapter: str, profile: str, root=None) -> list[dict]:
    """The committed results of a chapter at a scale, by seed; an empty list where there are none."""
    files = (runs.notebook_path(chapter, root).with_suffix("") / "results").glob(f"{profile}-seed*.json")
    return sorted((read(file) for file in files), key=lambda result: result["seed"])


def is_fresh(result: dict, root=None) -> bool:
    """Whether the notebook's measuring code and the profile's parameters are still those of the results."""
    chapter, profile = result["chapter"], result["profile"]
    same_code = result["code_hash"] == runs.measured_hash(runs.notebook_path(chapter, root))
    return same_code and result["parameters"] == runs.profile_values(chapter, profile, root) | {"seed": result["seed"]}


def values(results: list[dict], metric: str) -> list[float]:
    """The metric's value in each result that has it."""
    return [r["metrics"][metric]["value"] for r in results if metric in r["metrics"]]


def _machine():
    import psutil

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": _device(),
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "peak_memory_bytes": _peak_memory(),
    }


def _device():
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


# Statistics


@dataclass(frozen=True)
class Summary:
    """Mean, sample SD and 95 % interval of n values; sd, low and high are NaN for n < 2, all for n = 0."""

    mean: float
    sd: float
    n: int
    low: float
    high: float


def summarise(numbers: list[float]) -> Summary:
    """Mean with Student's t-interval (scipy); equal values have the point itself as their interval."""
    n, nan = len(numbers), math.nan
    if n < 2:
        return Summary(numbers[0] if n else nan, nan, n, nan, nan)
    from scipy import stats

    mean = min(max(math.fsum(numbers) / n, min(numbers)), max(numbers))  # equal values: exactly their value
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n)
    return Summary(mean, sd, n, mean - half, mean + half)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a rate (scipy). Raises ValueError unless 0 <= successes <= n and n > 0."""
    if not (0 <= successes <= n and n > 0):
        raise ValueError(f"successes = {successes}: must be from 0 to n = {n}, and n at least 1")
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return interval.low, interval.high


def bootstrap(*samples, statistic, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval (1,000 resamples, scipy) of statistic(*samples) of 1-D samples."""
    from scipy import stats

    options = {"n_resamples": 1000, "vectorized": False, "paired": False, "method": "percentile", "rng": seed}
    interval = stats.bootstrap(samples, statistic, **options).confidence_interval
    return float(interval.low), float(interval.high)


# Claims and verdicts


def claims(chapter: str, root=None) -> list[dict]:
    """The entries of the chapter's claims.yml, each found complete.

    An entry may say in `section` under which heading of the chapter's page it is measured: the heading's anchor.
    Raises EvidenceError naming the entry that lacks a field, has an unknown one or a criterion that cannot be read.
    """
    file = runs.notebook_path(chapter, root).with_suffix("") / "claims.yml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    always = {"id", "kind", "claim", "where", "paper"}
    seen = set()
    for entry in entries:
        rest = {"not_attempted"} if "not_attempted" in entry else {"metric", "criterion", "scales"}
        if odd := (set(entry) - {"section"}) ^ (always | rest):
            raise EvidenceError(
                f"{file.name}: {entry.get('id', entry)!r}: missing or unknown: {', '.join(sorted(odd))}"
            )
        if entry["kind"] not in KINDS:
            raise EvidenceError(
                f"{file.name}: {entry['id']!r}: kind = {entry['kind']!r}: must be among {', '.join(KINDS)}"
            )
        if entry["id"] in seen:
            raise EvidenceError(f"{file.name}: {entry['id']!r}: stands twice")
        seen.add(entry["id"])
        if "criterion" in entry:
            meets(entry["criterion"], 0.0)
            if not entry["scales"] or not set(entry["scales"]) <= set(SCALES):
                raise EvidenceError(f"{file.name}: {entry['id']!r}: scales must be among {', '.join(SCALES)}")
    return entries


def meets(criterion: str, value: float) -> bool:
    """Whether the value meets a criterion: ">= 0.4", "< 1", or a closed range "-0.03 .. 0.03"."""
    number = r"(-?\d+(?:\.\d+)?)"
    if match := re.fullmatch(rf"{number} \.\. {number}", criterion):
        return float(match[1]) <= value <= float(match[2])
    if match := re.fullmatch(rf"(<=|>=|<|>) {number}", criterion):
        bound = float(match[2])
        return {"<=": value <= bound, ">=": value >= bound, "<": value < bound, ">": value > bound}[match[1]]
    raise EvidenceError(f"criterion {criterion!r}: must be like '>= 0.4' or '-0.03 .. 0.03'")


def verdict(criterion: str, numbers: list[float]) -> str:
    """The verdict on a claim from one value a seed.

    "reproduced": at least three seeds, and the whole 95 % interval of their mean meets the criterion;
    "partly": the mean meets it, but not the whole interval, or there are fewer than three seeds;
    "not reproduced": the mean misses it; "not attempted": no value.
    """
    if not numbers:
        return "not attempted"
    s = summarise(numbers)
    if not meets(criterion, s.mean):
        return "not reproduced"
    whole = s.n >= 3 and meets(criterion, s.low) and meets(criterion, s.high)
    return "reproduced" if whole else "partly"


def answer(kind: str, criterion: str, numbers: list[float]) -> str:
    """What a reader is told of an entry of a kind: a claim's verdict; of a question whether its criterion is met.

    "yes": as "reproduced"; "no": at least three seeds, and the whole interval misses the criterion; "undecided":
    anything between. A demonstration is "shown" or "not shown": it could hardly fail, and counts as no finding.
    """
    word = verdict(criterion, numbers)
    if kind == "claim" or word == "not attempted":
        return word
    if kind == "demonstration":
        return "shown" if word != "not reproduced" else "not shown"
    s = summarise(numbers)
    missed = s.n >= 3 and not any(meets(criterion, x) for x in (s.mean, s.low, s.high))
    return "yes" if word == "reproduced" else "no" if missed else "undecided"


def scoreboard(root=None):
    """pandas DataFrame, one row a claim and scale.

    Columns: chapter, claim, paper, ours (mean over seeds), low and high (95 % interval), n (seeds), profile, verdict.
    Figures that do not exist are NaN. The verdict of results whose code is no longer the notebook's ends in " (stale)".
    """
    import pandas as pd

    rows = []
    for chapter in runs.chapters(root):
        rows += [[row[c] for c in COLUMNS] for row in judged(chapter, root)]
    return pd.DataFrame(rows, columns=COLUMNS)


def judged(chapter: str, root=None) -> list[dict]:
    """The scoreboard's rows of one chapter as dicts; with id, kind, where, criterion, sd, answer and fresh besides."""
    results = {scale: load(chapter, scale, root) for scale in SCALES}
    rows = []
    for entry in claims(chapter, root):
        for scale in entry.get("scales", SCALES):
            used = [r for r in results[scale] if entry.get("metric") in r["metrics"]]
            s = summarise(values(used, entry.get("metric")))
            word = verdict(entry.get("criterion"), values(used, entry.get("metric")))
            told = answer(entry["kind"], entry.get("criterion"), values(used, entry.get("metric")))
            fresh = all(is_fresh(r, root) for r in used)
            rows.append(
                entry
                | {"chapter": chapter, "profile": scale, "ours": s.mean, "sd": s.sd, "low": s.low, "high": s.high}
                | {"n": s.n, "paper": str(entry["paper"]), "verdict": word + " (stale)" * (not fresh)}
                | {"answer": told, "fresh": fresh}
            )
    return rows


def status(root=None):
    """pandas DataFrame, one row a committed results file: when, where and on what it was measured."""
    import pandas as pd

    rows = []
    for chapter in runs.chapters(root):
        for profile in runs.PROFILES:
            for r in load(chapter, profile, root):
                row = {"chapter": chapter, "profile": profile, "seed": r["seed"]}
                row |= {"code": "fresh" if is_fresh(r, root) else "stale", "date": r["date"][:10]}
                row |= {"minutes": r["wall_seconds"] / 60, "peak GB": r["peak_memory_bytes"] / 1e9}
                row |= {"device": r["device"], "cores": r["cores"], "python": r["python"]}
                row |= {"torch": r["packages"].get("torch", ""), "commit": r["git_commit"][:10]}
                rows.append(row)
    return pd.DataFrame(rows)
