"""The head and the tail of every chapter's notebook: parameters checked, arms side by side, outcomes recorded."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperwalk import evidence, runs
from paperwalk.data import sources
from paperwalk.runs.execution import SCRATCH, SOURCES, Guarded

if TYPE_CHECKING:
    import pandas as pd
    import torch

# What a measured arm gives: {measure: {item: outcome}}, and what figures need beside it
Measured = tuple[Mapping[str, Mapping[str, float]], Mapping[str, Any]]


class Experiment:
    """One run of a chapter: `Experiment(chapter, globals())` below the notebook's parameters cell.

    p: the parameters, each found to be allowed. folder: for the checkpoints of this run with the present code and data
    (of a run that is only planned: a scratch folder); it goes when the results have been written. records: what is
    recorded so far. Raises ParameterError as `runs.check`.
    """

    def __init__(self, chapter: str, given: dict[str, Any]):
        self.chapter, self.p = chapter, runs.check(chapter, given, only_known=True)
        scratch = os.environ.get(SCRATCH)
        # before anything is read: what is there of other data goes
        self.folder = Path(scratch) if scratch else runs.checkpoint_dir(self.chapter, vars(self.p))
        os.environ[sources.VARIABLE] = str(self.folder / SOURCES)
        os.environ.setdefault("PAPERWALK_ROOT", str(runs.ROOT))  # where the names of files begin
        self.records = evidence.Records(chapter, vars(self.p))

    @property
    def device(self) -> "torch.device":
        """Where models are trained: the GPU if `device` is cuda, or auto and there is one."""
        import torch

        chosen = self.p.device
        return torch.device("cuda" if chosen == "cuda" or (chosen == "auto" and torch.cuda.is_available()) else "cpu")

    @cached_property
    def threads(self) -> int | None:
        """Threads of a worker: one, or as many as the cores allow where these are faster; None: joblib's own choice, in
        a chapter that trains nothing. A run that is taken up again keeps to what it chose, for sums depend on it."""
        from paperwalk.timing import fastest_threads

        if "device" not in vars(self.p):
            return None
        chosen = self.folder / "threads"
        if not chosen.exists():
            cores = min(len(os.sched_getaffinity(0)), int(os.environ.get("OMP_NUM_THREADS") or sys.maxsize))
            runs.write_atomically(chosen, str(fastest_threads(cores // self.p.workers)))
        return int(chosen.read_text())

    def file(self, name: str) -> Path:
        """A file of the chapter's folder that the run reads: when it changes, its results are stale."""
        return sources.file(runs.notebook_path(self.chapter).with_suffix("") / name)

    def map(self, function: Callable, arms: Iterable, label: str, ordered: bool = True) -> Iterator:
        """function(arm) for each arm, `workers` at a time, with progress; the results as they come, or in order.

        In a run without Jupyter an arm that fails lets the others end first, and then RunError names it.
        """
        return self.run([(function, arm) for arm in arms], label, ordered)

    def run(self, calls: Iterable[tuple], label: str, ordered: bool = True) -> Iterator:
        """As `map`, for different functions: calls are (function, argument, ...)."""
        from joblib import Parallel, delayed, parallel_config

        calls = list(calls)
        guard = Guarded if "PAPERWALK_GUARDED" in os.environ else lambda function: function
        notes = os.environ.get(sources.VARIABLE)
        name = lambda arguments: f"{label}/{getattr(arguments[-1], 'name', arguments[-1])}"
        jobs = [delayed(_noting)(notes, name(given), guard(function), *given) for function, *given in calls]
        order = "generator" if ordered else "generator_unordered"
        with parallel_config("loky", inner_max_num_threads=self.threads):
            results = Parallel(self.p.workers, return_as=order)(jobs)
        return runs.progress(results, len(jobs), label)

    def measure(self, function: Callable[[Any], Measured], arms: Iterable, label: str) -> None:
        """Records what function(arm) measures of each arm, `workers` at a time, each kept as it ends.

        An arm is named by its `name`, or by itself; what is kept beside outcomes goes under "LABEL/ARM" into
        `records.kept`. Arms that a cut-off run came to are not measured again. Raises EvidenceError for what cannot be
        recorded.
        """
        named = {f"{label}/{getattr(arm, 'name', arm)}": arm for arm in arms}
        missing = {name: arm for name, arm in named.items() if name not in self.records.finished}
        calls = [(_named, name, function, arm) for name, arm in missing.items()]
        for name, (outcomes, kept) in self.run(calls, label, ordered=False):
            for measure, of_items in outcomes.items():
                self.record(measure, name.removeprefix(f"{label}/"), of_items, of_items.values())
            if kept:
                self.records.keep(name, dict(kept))
            self.records.save(finished=name)

    def kept(self, label: str, arm: str) -> dict[str, Any]:
        """What `measure` kept of an arm beside its outcomes."""
        return self.records.kept.get(f"{label}/{arm}", {})

    def record(self, measure: str, arm: str, items: Sequence[str] | Iterable[str] | None, values: Any) -> None:
        """Keeps outcomes of an arm's items by a measure, as `evidence.Records.record` does."""
        self.records.record(measure, arm, None if items is None else list(items), values)

    def table(self, measures: Sequence[str], arms: Iterable) -> "pd.DataFrame":
        """This run's means over items: a row an arm, a column a measure."""
        return self.records.table(measures, [getattr(arm, "name", arm) for arm in arms]).round(3)

    def write(self, data: Mapping[str, Any] | None = None) -> None:
        """Writes the whole results file with what figures need besides, removes the checkpoints, says where it is."""
        for name, kept in (data or {}).items():
            self.records.keep(name, kept)
        file = self.records.save(complete=True)
        shutil.rmtree(self.folder)
        os.environ.pop(sources.VARIABLE, None)  # a cell that is run once more has nowhere to note what it reads
        print(f"written: {file.name}")


def _noting(notes, name, function, *arguments):
    """The function's result; what it reads is noted for this run, though its process may have begun in another."""
    from paperwalk.profiling import profiled

    if notes is not None:
        os.environ[sources.VARIABLE] = notes
    with profiled(name):
        return function(*arguments)


def _named(name, function, arm):
    return name, function(arm)
