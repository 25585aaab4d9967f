"""The head and the tail of every chapter's notebook: parameters checked, arms side by side, results written."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperwalk import evidence, runs
from paperwalk.runs.execution import Guarded

if TYPE_CHECKING:
    import torch


class Experiment:
    """One run of a chapter: `Experiment(chapter, globals())` below the notebook's parameters cell.

    p: the parameters, each found to be allowed. metrics: what `record` and `figure` were given, for the results file.
    Raises ParameterError as `runs.check` does.
    """

    def __init__(self, chapter: str, given: dict[str, Any]):
        self.chapter, self.p = chapter, runs.check(chapter, given, only_known=True)
        self.metrics: dict[str, dict] = {}
        self.undefined: list[str] = []
        self._began = time.monotonic()

    @property
    def device(self) -> "torch.device":
        """Where models are trained: the GPU if `device` is cuda, or auto and there is one."""
        import torch

        chosen = self.p.device
        return torch.device("cuda" if chosen == "cuda" or (chosen == "auto" and torch.cuda.is_available()) else "cpu")

    @cached_property
    def folder(self) -> Path:
        """For the checkpoints of this run with the present code; it goes when the results have been written."""
        return runs.checkpoint_dir(self.chapter, vars(self.p))

    def map(self, function: Callable, arms: Iterable, label: str, ordered: bool = True) -> Iterator:
        """function(arm) for each arm, `workers` at a time, with progress; the results as they come, or in order.

        In a run without Jupyter an arm that fails lets the others end first, and then RunError names it.
        """
        return self.run([(function, arm) for arm in arms], label, ordered)

    def run(self, calls: Iterable[tuple], label: str, ordered: bool = True) -> Iterator:
        """As `map`, for different functions: calls are (function, argument, ...)."""
        from joblib import Parallel, delayed

        calls = list(calls)
        guard = Guarded if "PAPERWALK_GUARDED" in os.environ else lambda function: function
        jobs = [delayed(guard(function))(*arguments) for function, *arguments in calls]
        order = "generator" if ordered else "generator_unordered"
        return runs.progress(Parallel(self.p.workers, return_as=order)(jobs), len(jobs), label)

    def figure(self, name: str, value: float, unit: str = "share") -> float:
        """Keeps one figure, under the name with hyphens for all but letters, digits and dots, and gives it back."""
        self.metrics[evidence.metric_name(name)] = {"value": float(value), "unit": unit}
        return value

    def record(self, named: Mapping[str, float], units: Mapping[str, str] | None = None) -> None:
        """Keeps figures by name, "figure.arm"; units: that of each figure, else "1". Not finite: undefined."""
        units = units or {}
        for name, value in named.items():
            if math.isfinite(value):
                self.metrics[name] = {"value": float(value), "unit": units.get(name.split(".")[0], "1")}
            else:
                self.undefined.append(name)

    def write(self, data: Mapping[str, Any]) -> None:
        """Writes the results file, removes the checkpoints, and says where the results are; raises EvidenceError."""
        data = {"undefined": sorted(self.undefined)} | dict(data)
        seconds = time.monotonic() - self._began
        file = evidence.write(self.chapter, self.p.profile, self.p.seed, vars(self.p), self.metrics, data, seconds)
        shutil.rmtree(self.folder)
        print(f"written: {file.name}, {len(self.metrics)} figures")
