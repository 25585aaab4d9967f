"""Ours and its peers side by side: equality first, then times in turn, peak memory in a fresh process each, a CSV."""

import csv
import ctypes
import gc
import importlib
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from paperwalk import evidence

RESULTS = Path(os.environ.get("PAPERWALK_BENCHMARKS") or Path(__file__).with_name("results"))
ROUNDS = int(os.environ.get("PAPERWALK_ROUNDS", 0))  # of each contest; 0: as many as it says itself


class Unequal(AssertionError):
    """An implementation gives another result than the reference: nothing of it is timed."""


@dataclass(frozen=True)
class Contest:
    """One operation at one size.

    make() builds the inputs; implementations: name -> function of them, ours first; a name that begins with "floor"
    is no peer but work that none can do without. check(name, result, reference): raises Unequal where a result is not
    ours. Ratios compare with ours: above 1, ours is faster. sizes: {column: value} for readers that want them apart.
    """

    operation: str
    case: str
    make: Callable[[], tuple]
    implementations: dict[str, Callable]
    check: Callable[[str, object, object], None]
    rounds: int = 9
    sizes: dict[str, object] = field(default_factory=dict)


def run(contest: Contest, memory: Callable[[Contest, str], float] | None = None) -> list[dict]:
    """Check, time and write one contest; its rows."""
    inputs = contest.make()
    ours, *_ = contest.implementations
    reference = contest.implementations[ours](*inputs)
    for name, implementation in contest.implementations.items():
        result = implementation(*inputs)  # warms up and compiles, too
        if not name.startswith("floor"):
            contest.check(name, result, reference)
    seconds = {name: [] for name in contest.implementations}
    rounds = ROUNDS or contest.rounds
    for round_ in range(rounds):
        names = list(seconds)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:  # nobody always goes first
            synchronise()
            start = time.perf_counter()
            contest.implementations[name](*inputs)
            synchronise()
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, times in seconds.items():
        row = dict(operation=contest.operation, case=contest.case, **contest.sizes, implementation=name)
        p20, p50, p80 = (1000 * at for at in percentiles(times))
        row |= dict(p20_ms=f"{p20:.4g}", p50_ms=f"{p50:.4g}", p80_ms=f"{p80:.4g}")
        low, ratio, high = percentiles([t / o for t, o in zip(times, seconds[ours])])
        row |= dict(ratio=f"{ratio:.3f}", ratio_p20=f"{low:.3f}", ratio_p80=f"{high:.3f}")
        row |= dict(peak_mb=f"{memory(contest, name):.1f}" if memory else "", rounds=rounds, **machine())
        rows.append(row)
        print(
            f"{contest.operation}, {contest.case}: {name:28}{p50:10.3f} ms, {ratio:.2f} times ours",
            row["peak_mb"] and f"{row['peak_mb']} MB",
        )
    write(contest.operation, rows)
    return rows


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile of at least two values, in their unit, never beyond what was measured."""
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[1], tenths[4], tenths[7]


def synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write(operation, rows):
    """Replaces the rows of these cases on this device in the operation's CSV; atomically."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{operation}.csv"
    old = list(csv.DictReader(file.open(newline=""))) if file.exists() else []
    new = {(row["case"], row["device"]) for row in rows}
    kept = [row for row in old if (row["case"], row["device"]) not in new]
    write_rows(file, list(rows[0]), kept + rows)


def write_rows(file, columns, rows):
    """A CSV of these columns, "" where a row lacks one; atomically."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", newline="") as out:
        writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, file)


def machine():
    """Device, threads, versions, date and commit, as columns."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    names = ("torch", "numba", "triton", "transformers", "networkx", "liger-kernel", "cut-cross-entropy")
    versions = "; ".join(f"{name} {version}" for name in names if (version := installed(name)))
    commit = evidence.commit(Path(__file__).parent)["git_commit"][:10]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return dict(device=device, threads=torch.get_num_threads(), versions=versions, date=today, commit=commit)


def installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def peak_memory(module: str) -> Callable[[Contest, str], float]:
    """A function that gives the memory, in MB, that one call takes beyond its inputs.

    On a GPU it is the device's, measured here; on a CPU the resident memory of a fresh process.

    module: the script that defines CONTESTS, by its name in this folder.
    """

    def measure(contest, name):
        if torch.cuda.is_available():
            return _peak_of_gpu(contest.implementations[name], contest.make())
        command = [sys.executable, "-m", "benchmarks.harness", module, contest.operation, contest.case, name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{module}: {contest.case}: {name}: {done.stderr.strip().splitlines()[-1:]}")
        return float(done.stdout.strip().splitlines()[-1])

    return measure


def _measure_here(module, operation, case, name):
    """Peak resident memory of a second call beyond its inputs, in MB, on Linux; the first compiles."""
    contests = importlib.import_module(f"benchmarks.{module}").CONTESTS
    contest = next(c for c in contests if (c.operation, c.case) == (operation, case))
    inputs = contest.make()
    implementation = contest.implementations[name]
    implementation(*inputs)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    implementation(*inputs)
    return (_status("VmHWM") - before) / 1e3


def _peak_of_gpu(implementation, inputs):
    """Peak of the GPU's memory in a call beyond its inputs, in MB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    implementation(*inputs)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _status(field):
    return int(re.search(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    print(_measure_here(*sys.argv[1:]))
