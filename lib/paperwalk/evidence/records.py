"""The outcomes of a run, item by item, in one Parquet file with all that they follow from.

A row is an outcome: measure, arm, item, value. The file's metadata, under the key `paperwalk`, is JSON: parameters,
code, data, claims as they stood, commit, machine, time. pandas reads the rows with `pandas.read_parquet(file)`, DuckDB
with `SELECT * FROM 'file'`; `read` gives both.
"""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paperwalk import runs
from paperwalk.data import sources
from paperwalk.evidence.machine import commit, machine
from paperwalk.runs.files import resolve_root

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
ROUNDING = 1e-6  # by which single-precision shares may leave the bounds of a measure
FIRST_SEED = 100  # of evidence; those below are for trials
REMEDY = "remove it, or take it back from git, and measure it again"
REGISTERED = "PAPERWALK_EVIDENCE"  # set to 1 in a run whose results are evidence


class EvidenceError(RuntimeError):
    """A results or claims file cannot be used, or outcomes cannot be kept; the message names file and entry."""


class Records:
    """The results file of one run, which holds whatever has been recorded so far: `record`, `keep`, `save`.

    It is written, whole or not at all, at every `save`; until the run is complete under a name of its own, except
    evidence, whose finished arms count. What an earlier run left that was cut off is taken up where its code,
    parameters and data are the present ones: `finished` says which arms it had come to. Claims are registered as they
    stand when the first arm is begun.
    """

    def __init__(self, chapter: str, parameters: dict, root: Path | None = None):
        self.chapter, self.parameters, self.root = chapter, dict(parameters), root
        self.file = result_file(chapter, parameters, root)
        self._unfinished = self.file if is_evidence() else self.file.with_suffix(".unfinished.parquet")
        self.finished: list[str] = []
        self.kept: dict[str, Any] = {}
        self._outcomes: dict[tuple[str, str], dict[str, float]] = {}
        self._code = os.environ.get("PAPERWALK_CODE") or runs.code_hash(runs.notebook_path(chapter, root))
        self._claims = registered(chapter, root)
        self._commit = commit(runs.notebook_path(chapter, root).parent)
        self._began, self._before = time.monotonic(), 0.0
        self._take_up()

    def _take_up(self):
        try:
            earlier = read(self._unfinished)
        except EvidenceError:  # there is none, or one that is of no use
            return
        same = earlier.meta["code"] == self._code and earlier.parameters == self.parameters
        if same and not earlier.meta["complete"] and not _changed(earlier, self.root):
            sources.again(earlier.meta["sources"])  # the checkpoints, with which the notes lie, may have gone
            self.finished, self.kept = list(earlier.meta["finished"]), dict(earlier.kept)
            self._outcomes = {key: dict(of_items) for key, of_items in earlier.outcomes.items()}
            self._before, self._claims = earlier.meta["wall_seconds"], earlier.meta["claims"]

    def record(self, measure: str, arm: str, items: Sequence[str] | None, values: Any) -> None:
        """Keeps the outcomes (one number an item) of an arm by a measure, in the place of what there was.

        items: what names each item in every run that has it, a hash of its content or a number that includes the seed
        where every seed draws its own; "STRATUM/NAME" puts it into a stratum. None: the one value is of the run as a
        whole. Raises EvidenceError naming measure, arm and item for a value that is not a finite number, an item that
        stands twice, or is out of the bounds that claims.yml gives the measure, or for items and values of different
        numbers.
        """
        where = f"measure {measure!r}, arm {arm!r}"
        names = [""] if items is None else list(map(str, items))
        numbers = [values] if items is None else [*values]
        if len(numbers) != len(names):
            raise EvidenceError(f"{where}: {len(numbers)} values for {len(names)} items; must be as many")
        if not measure or "." in measure:
            raise EvidenceError(f"{where}: a measure's name must not be empty or hold a point")
        of_items: dict[str, float] = {}
        low, high = map(float, self._claims["bounds"].get(measure, ("-inf", "inf")))
        for name, number in zip(names, map(float, numbers)):
            if not math.isfinite(number):
                raise EvidenceError(f"{where}, item {name!r}: {number} must be a finite number")
            if not low - ROUNDING <= number <= high + ROUNDING:
                raise EvidenceError(f"{where}, item {name!r}: {number} must be from {low} to {high} (claims.yml)")
            number = min(max(number, low), high)
            if name in of_items:
                raise EvidenceError(f"{where}, item {name!r}: stands twice")
            of_items[name] = number
        self._outcomes[measure, arm] = of_items

    def keep(self, name: str, data: Any) -> None:
        """Keeps what figures need beside outcomes, such as curves and samples: anything JSON can hold."""
        json.dumps(data, allow_nan=False)
        self.kept[name] = data

    def mean(self, measure: str, arm: str) -> float:
        """Mean over the items; NaN where nothing is recorded."""
        of_items = self._outcomes.get((measure, arm))
        return float(np.mean([*of_items.values()])) if of_items else math.nan

    def table(self, measures: Sequence[str], arms: Iterable[str]) -> "pd.DataFrame":
        """Means over items: a row an arm, a column a measure."""
        import pandas as pd

        return pd.DataFrame({arm: {m: self.mean(m, arm) for m in measures} for arm in arms}).T[list(measures)]

    def save(self, finished: str | None = None, complete: bool = False) -> Path:
        """Writes the file; `finished` names an arm that need not be measured again, `complete` ends the run."""
        if finished is not None and finished not in self.finished:
            self.finished.append(finished)
        seconds = self._before + time.monotonic() - self._began
        meta = {
            "schema": SCHEMA,
            "chapter": self.chapter,
            "profile": self.parameters["profile"],
            "seed": self.parameters["seed"],
            "parameters": self.parameters,
            "code": self._code,
            "sources": sources.noted(),
            "claims": self._claims,
            "evidence": is_evidence(),
            "complete": complete,
            "finished": self.finished,
            "kept": self.kept,
            "wall_seconds": round(seconds, 1),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **machine(),
            **self._commit,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        target = self.file if complete else self._unfinished
        write(target, self._outcomes, meta)
        if complete and self._unfinished != target:
            self._unfinished.unlink(missing_ok=True)
        return target


@dataclass(frozen=True, eq=False)
class Run:
    """A results file: outcomes {(measure, arm): {item: value}}, and what it was measured with as `meta`."""

    file: Path
    outcomes: dict[tuple[str, str], dict[str, float]]
    meta: dict[str, Any] = field(repr=False)

    @property
    def chapter(self) -> str:
        return self.meta["chapter"]

    @property
    def profile(self) -> str:
        return self.meta["profile"]

    @property
    def seed(self) -> int:
        return self.meta["seed"]

    @property
    def parameters(self) -> dict[str, Any]:
        return self.meta["parameters"]

    @property
    def kept(self) -> dict[str, Any]:
        """What was kept beside outcomes."""
        return self.meta["kept"]

    @property
    def superseded(self) -> bool:
        """Whether it is of evidence that another has replaced, or is to."""
        return self.file.parents[1].name == "superseded"

    @cached_property
    def means(self) -> dict[str, float]:
        """Means over items, by "measure.arm"."""
        return {f"{m}.{arm}": float(np.mean([*of.values()])) for (m, arm), of in self.outcomes.items()}


def write(file: Path, outcomes: dict[tuple[str, str], dict[str, float]], meta: dict[str, Any]) -> None:
    """Writes a results file, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(m, arm, item, value) for (m, arm), of in outcomes.items() for item, value in of.items()]
    names = ("measure", "arm", "item")
    columns = {
        name: pa.array([row[i] for row in rows], pa.string()).dictionary_encode() for i, name in enumerate(names)
    }
    table = pa.table(columns | {"value": pa.array([row[3] for row in rows], pa.float64())})
    text = json.dumps(meta, sort_keys=True, allow_nan=False)
    table = table.replace_schema_metadata({"paperwalk": text})
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    runs.write_atomically(file, content.getvalue())


def read(file: Path) -> Run:
    """One results file. Raises EvidenceError naming the file where it is unreadable, cut off or of another schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        meta = json.loads((table.schema.metadata or {})[b"paperwalk"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise EvidenceError(f"{file}: not a readable results file ({error!r}); {REMEDY}") from error
    if meta.get("schema") != SCHEMA:
        raise EvidenceError(f"{file}: not a results file of schema {SCHEMA}; {REMEDY}")
    outcomes: dict[tuple[str, str], dict[str, float]] = {}
    for measure, arm, item, value in zip(*(table[name].to_pylist() for name in ("measure", "arm", "item", "value"))):
        outcomes.setdefault((measure, arm), {})[item] = value
    return Run(Path(file), outcomes, meta)


def is_evidence() -> bool:
    """Whether this process measures what the book is to show."""
    return os.environ.get(REGISTERED) == "1"


def result_file(chapter: str, parameters: dict, root: Path | None = None, as_evidence: bool | None = None) -> Path:
    """Where a run with these parameters (profile and seed among them) writes its results, named by `runs.run_name`.

    as_evidence (None: as this process was started): book/<chapter>/results; any other: _runs/<chapter>/results.
    """
    book = runs.notebook_path(chapter, root).with_suffix("")
    in_book = is_evidence() if as_evidence is None else as_evidence
    folder = book if in_book else book.parents[1] / "_runs" / chapter
    return folder / "results" / f"{runs.run_name(chapter, parameters, root)}.parquet"


def registered(chapter: str, root: Path | None = None) -> dict[str, Any]:
    """What the chapter's claims.yml is at present: its sha256, how each claim is judged, and bounds of the measures."""
    import yaml

    content = (runs.notebook_path(chapter, root).with_suffix("") / "claims.yml").read_bytes()
    stated = yaml.safe_load(content) or {}
    known = (stated.get("measures") or {}).items()
    bounds = {
        name: [str(float(end)) for end in measure.get("bounds", (-math.inf, math.inf))] for name, measure in known
    }
    judged = {e["id"]: _definition(e, bounds.get(e["measure"])) for e in stated.get("claims") or [] if "measure" in e}
    return {"sha256": hashlib.sha256(content).hexdigest(), "judged": judged, "bounds": bounds}


def _definition(entry, bounds):
    """By what a claim is judged, with the bounds of its measure: what must not change after the run."""
    stated = {key: entry.get(key) for key in ("measure", "arm", "minus", "among", "criterion", "exact")}
    return stated | {"bounds": bounds}


def load(chapter: str, scale: str, root: Path | None = None) -> list[Run]:
    """The chapter's evidence at a scale, by seed; an empty list where there is none.

    Raises EvidenceError for a file that is none: unreadable, named for another run, or not measured as evidence from a
    clean tree with a seed that is for evidence.
    """
    folder = runs.notebook_path(chapter, root).with_suffix("") / "results"
    found = [read(file) for file in folder.glob(f"{scale}-seed*.parquet")]
    for run in found:
        if (run.chapter, f"{run.profile}-seed{run.seed}.parquet") != (chapter, run.file.name):
            raise EvidenceError(f"{run.file}: is of {run.chapter} {run.profile} seed {run.seed}; {REMEDY}")
        if not run.meta["evidence"] or run.meta["git_dirty"] or run.seed < FIRST_SEED:
            raise EvidenceError(f"{run.file}: is of a trial, or of a tree that was not committed; {REMEDY}")
    return sorted(found, key=lambda run: run.seed)


def superseded(chapter: str, root: Path | None = None) -> list[Run]:
    """What was measured last of the evidence that no longer counts, by seed; README.md beside it says why."""
    folder = runs.notebook_path(chapter, root).with_suffix("") / "results" / "superseded"
    by_day = lambda path: (path.name[:10], len(path.name), path.name)  # 2026-01-31-9 comes before 2026-01-31-10
    newest = max((file.parent for file in folder.glob("*/*.parquet")), default=folder, key=by_day)
    return sorted((read(file) for file in newest.glob("*.parquet")), key=lambda run: run.seed)


def is_fresh(run: Run, root: Path | None = None) -> bool:
    """Whether code, profile and data are still those that the run was measured with."""
    now = runs.profile_values(run.chapter, run.profile, root) | {"seed": run.seed}
    same_code = run.meta["code"] == runs.code_hash(runs.notebook_path(run.chapter, root))
    return same_code and run.parameters == now and not _changed(run, root)


def _changed(run, root):
    return sources.changed(run.meta["sources"], resolve_root(root))


def values(results: Iterable[Run], name: str) -> list[float]:
    """The mean over items of "measure.arm" in each run that has it."""
    return [run.means[name] for run in results if name in run.means]


def by_arm(results: Sequence[Run], measure: str, arms: Iterable[str]) -> list[list[float]]:
    """For each arm the means of a measure over the runs."""
    return [values(results, f"{measure}.{arm}") for arm in arms]
