"""Several runs of a chapter, of its seeds and a sweep's combinations: skips what is done, runs the rest, reports."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from paperwalk import evidence, runs
from paperwalk.data import sources
from paperwalk.evidence.records import REGISTERED, registered
from paperwalk.runs.execution import environment
from paperwalk.runs.files import read_notebook, resolve_root

STATES = ("done", "skipped", "failed", "retried", "running", "waiting")
MOST_RUNS = 1000  # of one command; more is a slip of the hand


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a chapter's notebook; parameters are all of them, overrides those that differ from the profile's.

    as_evidence: whether its results are for the book to show.
    """

    chapter: str
    profile: str
    seed: int
    overrides: dict
    parameters: dict = field(repr=False)
    name: str  # runs.run_name
    as_evidence: bool = False

    def __str__(self):
        changed = "".join(f" {name}={value}" for name, value in self.overrides.items())
        return f"{self.chapter} {self.profile} seed {self.seed}{changed}"

    @property
    def is_shown(self) -> bool:
        """Whether the executed notebook is what the book shows of the chapter."""
        return self.name == "laptop-seed0"

    def folder(self, root: Path | None = None) -> Path:
        """Where the executed notebook lies: `runs.work_dir`, which may not exist yet."""
        return resolve_root(root) / "_runs" / self.chapter / self.name

    def notebook(self, root: Path | None = None) -> Path:
        """The executed notebook."""
        return self.folder(root) / f"{self.chapter}.ipynb"

    def result(self, root: Path | None = None) -> Path:
        """The results file."""
        return evidence.result_file(self.chapter, self.parameters, root, self.as_evidence)


def plan(
    chapter: str,
    profile: str,
    seeds: Sequence[int],
    overrides: dict,
    sweep: dict[str, list],
    elsewhere: bool = False,
    root: Path | None = None,
    as_evidence: bool = False,
) -> list[Run]:
    """One run for each combination of the sweep's values and each of the seeds.

    sweep: {parameter: its values}. Raises ParameterError where a value is not allowed, stands twice or is also
    overridden, and for more than MOST_RUNS runs; `elsewhere` as for `runs.check`. `as_evidence`: also where
    `evidence.check_registered` does, and for overrides; other runs: also where `evidence.check_trial` does.
    """
    if as_evidence:
        if changed := [*overrides, *sweep]:
            raise runs.ParameterError(
                f"{changed[0]}: must not be overridden in evidence; it is measured as the profile says"
            )
        evidence.check_registered(chapter, profile, seeds, root)
    else:
        evidence.check_trial(profile, seeds)
    for name, values in sweep.items():
        if name in overrides:
            raise runs.ParameterError(f"{name}: must be in --set or in --sweep, not in both")
        if any(value in values[:n] for n, value in enumerate(values)):
            raise runs.ParameterError(f"sweep {name} = {values}: must name each value once")
    combinations = [dict(zip(sweep, values)) for values in itertools.product(*sweep.values())]
    if (many := len(combinations) * len(seeds)) > MOST_RUNS:
        raise runs.ParameterError(f"seeds and sweep: must make {MOST_RUNS} runs at most, make {many}")
    planned = []
    for combination, seed in itertools.product(combinations, seeds):
        changed = overrides | combination
        injected = runs.validate(chapter, profile, seed, changed, elsewhere, root)
        parameters = runs.defaults(chapter, root) | injected
        runs.refuse_dry_run(chapter, parameters)
        name = runs.run_name(chapter, parameters, root)
        planned.append(Run(chapter, profile, seed, changed, parameters, name, as_evidence))
    return planned


# What is done


def mark_done(run: Run, identity: str, wrote_result: bool, root: Path | None = None) -> None:
    """Notes beside the executed notebook what it and the results file are made from, with checksums of both."""
    checksums = [_checksum(run.notebook(root)), _checksum(run.result(root)) if wrote_result else None]
    runs.write_atomically(_marker(run, root), json.dumps({"identity": identity, "checksums": checksums}))


def is_done(run: Run, root: Path | None = None) -> bool:
    """Whether the run ended with the present code, parameters and data, and its files are still whole.

    Evidence may have come from another machine: its results file alone tells.
    """
    if run.as_evidence:
        try:
            measured = evidence.read(run.result(root))
        except evidence.EvidenceError:
            return False
        return measured.meta["complete"] and evidence.is_fresh(measured, root)
    try:
        marker = json.loads(_marker(run, root).read_text(encoding="utf-8"))
        notebook, result = marker["checksums"]
        whole = notebook == _checksum(run.notebook(root)) and result in (None, _checksum(run.result(root)))
    except (OSError, ValueError, KeyError, TypeError):  # none, or one that is not ours
        return False
    if not (whole and marker["identity"] == identity(run, root)):
        return False
    return result is None or not sources.changed(evidence.read(run.result(root)).meta["sources"], resolve_root(root))


def identity(run: Run, root: Path | None = None) -> str:
    """Hash of what the run's files follow from; text counts where the book shows the notebook."""
    made_from = runs.identity(run.chapter, run.parameters, root)
    if run.is_shown:
        made_from += json.dumps([c["source"] for c in read_notebook(runs.notebook_path(run.chapter, root))["cells"]])
    return hashlib.sha256(made_from.encode()).hexdigest()


def _marker(run, root):
    return run.folder(root) / "done.json"


def _checksum(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


# Running


def execute(run: Run, root: Path | None = None) -> bool:
    """Runs the notebook; whether it wrote its results file. Raises what `runs.execute` raises."""
    before = _stamp(run.result(root))
    with environment(**{REGISTERED: str(int(run.as_evidence))}):
        runs.execute(run.chapter, run.profile, run.seed, run.overrides, root=root)
    return _stamp(run.result(root)) != before


def _stamp(file):
    """What tells one version of a file from another; files are replaced, never written into."""
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


def one_by_one(pending: list[Run], root: Path | None = None) -> Iterator[tuple[Run, str, str]]:
    """Runs them here, one after another. Yields (run, state, note) as `follow` takes them."""
    for run in pending:
        yield run, "running", ""
        try:
            made_from = identity(run, root)
            mark_done(run, made_from, execute(run, root), root)
        except runs.RunError as error:
            yield run, "failed", str(error)
        except OSError as error:
            yield run, "failed", f"{run}: {runs.in_words(error)}"
        else:
            yield run, "done", ""


def one_a_core(pending: list[Run], processes: int, root: Path | None = None) -> Iterator[tuple[Run, str, str]]:
    """Measures evidence in so many processes of one thread each. Yields (run, state, note) as `follow` takes them.

    What each prints is in `log.txt` in its folder. All are of the commit at which this began: a run that would find
    other code or claims by the time it starts fails.
    """
    begun = {"PAPERWALK_COMMIT": json.dumps(evidence.commit(resolve_root(root)))}
    begun |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    waiting, running = list(pending), dict[Run, subprocess.Popen]()
    committed = {chapter: _committed(chapter, root) for chapter in {run.chapter for run in pending}}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                run = waiting.pop(0)
                if _committed(run.chapter, root) != committed[run.chapter]:
                    yield run, "failed", f"{run}: code or claims were changed since this began; commit and begin again"
                    continue
                running[run] = _process(run, begun, root)
                yield run, "running", ""
            for run, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                said = (run.folder(root) / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                yield (
                    (run, "done", "") if process.returncode == 0 else (run, "failed", (said or ["it said nothing"])[-1])
                )
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.terminate()


def _committed(chapter, root):
    """What the commit that evidence names must hold: the code that measures and the claims."""
    return runs.code_hash(runs.notebook_path(chapter, root)), registered(chapter, root)


def _process(run, variables, root):
    run.folder(root).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "paperwalk", "run", run.chapter, "--profile", run.profile]
    command += ["--seeds", f"{run.seed}-{run.seed}", "--evidence"]
    variables = {**os.environ, **variables, "PAPERWALK_ROOT": str(resolve_root(root))}
    with (run.folder(root) / "log.txt").open("w") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=variables)


def follow(
    planned: list[Run], skipped: list[Run], events: Iterable[tuple[Run, str, str]], live: bool
) -> dict[Run, tuple[str, str]]:
    """Shows on stderr how the runs stand while they go on, and on stdout at the end; {run: (state, note)}.

    events: (run, state, note), the state one of STATES. With `live`, and on a terminal, a
    table that changes in place; else a line for each change of state.
    """
    from rich.console import Console
    from rich.live import Live

    states = {
        run: ("skipped", "done before" + "; --again runs it again" * (not run.as_evidence))
        if run in skipped
        else ("waiting", "")
        for run in planned
    }
    retried, began = set(), time.monotonic()
    console = Console(stderr=True)
    live = live and console.is_terminal
    try:
        with Live(_table(states), console=console, auto_refresh=False) if live else nullcontext() as table:
            for run, state, note in events:
                old, states[run] = states[run], (state, note)
                retried |= {run} if state == "retried" else set()
                if table is not None:
                    table.update(_table(states), refresh=True)
                elif old[0] != state and len(planned) > 1:
                    finished = sum(s in ("skipped", "done", "failed") for s, _ in states.values())
                    print(f"[{finished}/{len(planned)}] {run}: {state}", file=sys.stderr, flush=True)
    finally:
        for run, (state, note) in states.items():
            print(f"{run}: {state}{' at the second try or later' * (run in retried)}{f': {note}' * bool(note)}")
        counts = Counter(state for state, _ in states.values())
        counted = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        print(f"{counted}, in {time.monotonic() - began:.0f} s", flush=True)
    return states


def _table(states):
    from rich.table import Table

    table = Table("run", "state", "", box=None)
    for run, (state, note) in states.items():
        table.add_row(str(run), state, note)
    return table
