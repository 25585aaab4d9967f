"""What the evidence says about a chapter's claims: contrasts, verdicts, the scoreboard.

claims.yml holds `measures`, what a run records of an item, and `claims`. A claim is the mean of a measure over an
arm's items, or with `minus` of the differences to another arm on the same items; `among` takes the items of one
stratum. It holds when the whole 95 % interval meets the criterion, fails when the whole interval misses it, and is open
otherwise or with fewer than three seeds.
"""

import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import yaml

from paperwalk import runs
from paperwalk.evidence import intervals
from paperwalk.evidence.intervals import Estimate, estimate
from paperwalk.evidence.records import EvidenceError, Run, is_fresh, load, registered, superseded
from paperwalk.runs.parameters import fitted

if TYPE_CHECKING:
    import pandas as pd

Source = Literal["paper", "critic", "digest", "ours", "released code"]
SCALES = ("evening", "gpu", "paper")  # of evidence, the smallest first
VERDICTS = ("holds", "fails", "open", "not measured")
FEWEST_SEEDS = 3
COLUMNS = ["chapter", "id", "claim", "source", "headline", "paper", "ours", "low", "high", "seeds", "items", "scale"]
COLUMNS += ["verdict", "criterion", "fresh"]


@dataclass(kw_only=True)
class Measure:
    """What a run records of an item, in words; unit; bounds: least and most that it can be."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    what: str
    unit: str = "share"
    bounds: list[float] = field(default_factory=lambda: [-math.inf, math.inf])

    def __post_init__(self) -> None:
        if len(self.bounds) != 2 or self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds = {self.bounds}: must be two numbers, the smaller first")


@dataclass(kw_only=True)
class _Entry:
    """What every claim says; source and where: who says it, in which table or figure; section: anchor on its page."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    id: str
    claim: str
    source: Source
    where: str = ""
    paper: str | int | float = ""
    headline: bool = False
    section: str | None = None


@dataclass(kw_only=True)
class _NotMeasured(_Entry):
    not_measured: str


@dataclass(kw_only=True)
class _Measured(_Entry):
    measure: str
    arm: str
    criterion: str
    minus: str | None = None
    among: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        try:
            limits(self.criterion)
        except EvidenceError as error:
            raise ValueError(str(error)) from error


@functools.cache
def _read(file: Path, *stamp: int) -> tuple[dict[str, Measure], list[dict]]:
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict) or set(content) - {"measures", "claims"}:
        raise EvidenceError(f"{file.name}: must hold measures and claims alone")
    measures = {
        name: fitted(Measure, entry, f"{file.name}: measure {name!r}", EvidenceError)
        for name, entry in (content.get("measures") or {}).items()
    }
    entries, seen = content.get("claims") or [], set()
    for entry in entries:
        given = entry if isinstance(entry, dict) else {}
        where = f"{file.name}: {given.get('id', entry)!r}"
        checked = fitted(_NotMeasured if "not_measured" in given else _Measured, entry, where, EvidenceError)
        if checked.id in seen:
            raise EvidenceError(f"{where}: stands twice")
        if isinstance(checked, _Measured) and checked.measure not in measures:
            raise EvidenceError(f"{where}: measure = {checked.measure!r}: must be one of {', '.join(measures)}")
        seen.add(checked.id)
    return measures, entries


def _of(chapter, root):
    file = runs.notebook_path(chapter, root).with_suffix("") / "claims.yml"
    return _read(file, file.stat().st_mtime_ns, file.stat().st_size)


def claims(chapter: str, root: Path | None = None) -> list[dict]:
    """The claims of the chapter's claims.yml, each found complete.

    Raises EvidenceError naming the entry that lacks a field, has an unknown one or a criterion that cannot be read.
    """
    return _of(chapter, root)[1]


def measures(chapter: str, root: Path | None = None) -> dict[str, Measure]:
    """The measures of the chapter's claims.yml. Raises EvidenceError as `claims`."""
    return _of(chapter, root)[0]


def limits(criterion: str) -> tuple[float, float, bool]:
    """(least, most, whether these themselves meet it) of a criterion: ">= 0.4", "< 1", or a range "-0.03 .. 0.03"."""
    number = r"(-?\d+(?:\.\d+)?)"
    if (match := re.fullmatch(rf"{number} \.\. {number}", criterion)) and float(match[1]) < float(match[2]):
        return float(match[1]), float(match[2]), True
    if match := re.fullmatch(rf"(<=|>=|<|>) {number}", criterion):
        bound, closed = float(match[2]), match[1].endswith("=")
        return (bound, math.inf, closed) if match[1].startswith(">") else (-math.inf, bound, closed)
    raise EvidenceError(f"criterion {criterion!r}: must be like '>= 0.4' or '-0.03 .. 0.03'")


def meets(criterion: str, value: float) -> bool:
    """Whether the value meets the criterion."""
    least, most, closed = limits(criterion)
    return least <= value <= most if closed else least < value < most


def verdict(criterion: str, outcome: Estimate, exact: bool = False) -> str:
    """ "holds": the whole 95 % interval meets the criterion; "fails": the whole interval misses it; else "open".

    Fewer than three seeds leave it open. What is computed exactly has no interval: its value alone decides.
    "not measured": no value.
    """
    if not outcome.seeds:
        return "not measured"
    if exact:
        return "holds" if meets(criterion, outcome.mean) else "fails"
    if outcome.seeds < FEWEST_SEEDS or math.isnan(outcome.low):
        return "open"
    if meets(criterion, outcome.low) and meets(criterion, outcome.high):
        return "holds"
    least, most, closed = limits(criterion)
    above = outcome.low > most or (outcome.low == most and not closed)
    below = outcome.high < least or (outcome.high == least and not closed)
    return "fails" if above or below else "open"


def distance(criterion: str, value: float) -> float:
    """How far the value lies from the nearest end of the criterion."""
    least, most, _ = limits(criterion)
    return min(abs(value - least), abs(value - most))


def contrast(
    results: Sequence[Run],
    measure: str,
    arm: str,
    minus: str | None = None,
    among: str | None = None,
    bounds: Sequence[float] = (-math.inf, math.inf),
) -> Estimate:
    """The mean of a measure over an arm's items, or of its differences to the arm `minus` on the items of both.

    among: only items of this stratum, the part of an item's name before its last slash, or of one inside it. bounds: of
    the measure. Runs that lack an arm, or where two arms have no item in common, are left out.
    """
    rows = []
    for run in results:
        of, other = (run.outcomes.get((measure, name)) if name is not None else {} for name in (arm, minus))
        if of is None or other is None:
            continue
        row = of if minus is None else {item: of[item] - other[item] for item in of.keys() & other.keys()}
        if among is not None:
            row = {item: value for item, value in row.items() if item.startswith(f"{among}/")}
        if row:
            rows.append(row)
    items = sorted(set().union(*rows))
    matrix = np.array([[row.get(item, math.nan) for item in items] for row in rows]).reshape(len(rows), len(items))
    low, high = bounds
    if minus is not None:
        low, high = low - high, high - low
    strata = [item.rpartition("/")[0] for item in items]
    return estimate(matrix, strata, (low, high), rate=None if minus is None else False)


def judged(chapter: str, root: Path | None = None) -> list[dict[str, Any]]:
    """The scoreboard's rows of one chapter as dicts; with where, section, and besides these.

    A claim's evidence is that at the largest scale with three seeds, or where none has three, at the largest with any.

    unit; before: the mean that superseded evidence has, NaN without; of_seeds: how many seeds the scale has, some of
    which may lack the arm; settled_by: what would settle an open row, in words; changed: whether it was not judged so
    when the runs that it rests on began; p: of its distance from the criterion. A claim that such runs have registered
    and that is there no longer has a row too, not measured and changed.
    """
    at = {scale: load(chapter, scale, root) for scale in SCALES}
    before = superseded(chapter, root)
    fresh = {run.file: is_fresh(run, root) for results in at.values() for run in results}
    stated, now = claims(chapter, root), registered(chapter, root)["judged"]
    of_runs = {name for results in at.values() for run in results for name in run.meta["claims"]["judged"]}
    gone = [
        {
            "id": name,
            "claim": f"{name} (registered before the runs, then removed)",
            "source": "ours",
            "not_measured": "",
        }
        for name in sorted(of_runs - {entry["id"] for entry in stated})
    ]
    return [_row(chapter, entry, at, before, fresh, measures(chapter, root), now) for entry in stated + gone]


def _row(chapter, entry, at, before, fresh, known, now):
    row = dict.fromkeys(COLUMNS) | {"where": "", "section": None, "headline": False, "paper": ""} | entry
    results: list[Run] = []
    scale, outcome = "", Estimate(math.nan, math.nan, math.nan, 0, 0)
    exact, criterion = entry.get("exact", False), entry.get("criterion", "")
    if measured := "measure" in entry:
        asked = {key: entry.get(key) for key in ("measure", "arm", "minus", "among")}
        asked["bounds"] = known[entry["measure"]].bounds
        found = [(scale, *_compared(at[scale], asked)) for scale in reversed(SCALES)]
        found = [(scale, results, outcome) for scale, results, outcome in found if outcome.seeds]
        enough = [each for each in found if each[2].seeds >= FEWEST_SEEDS]
        scale, results, outcome = next(iter(enough or found), (scale, results, outcome))
        if exact:
            outcome = _exact(chapter, entry, outcome, [contrast([run], **asked).mean for run in results])
    word = verdict(criterion, outcome, exact) if measured else "not measured"
    away = distance(criterion, outcome.mean) if measured else math.nan
    old = [run.means[key] for run in before if (key := f"claim.{entry['id']}") in run.means]
    row |= {"chapter": chapter, "paper": str(row["paper"]), "scale": scale, "verdict": word, "criterion": criterion}
    row |= {"ours": outcome.mean, "low": outcome.low, "high": outcome.high}
    row |= {"seeds": outcome.seeds, "items": outcome.items, "unit": known[entry["measure"]].unit if measured else ""}
    row |= {"fresh": all(fresh[run.file] for run in results) if results else None}
    rests_on = results if measured else [run for each in at.values() for run in each]
    row |= {"changed": any(run.meta["claims"]["judged"].get(entry["id"]) != now.get(entry["id"]) for run in rests_on)}
    row |= {"of_seeds": len(at[scale]) if scale else 0}
    row |= {"before": float(np.mean(old)) if old else math.nan, "p": intervals.p_value(outcome, away)}
    return row | {"settled_by": _settled_by(outcome, away) if word == "open" else ""}


def _compared(results, asked):
    """(those of the runs that have what is asked, what they show)."""
    having = [run for run in results if contrast([run], **asked).seeds]
    return having, contrast(having, **asked)


def _exact(chapter, entry, outcome, found):
    """The outcome without an interval. Raises EvidenceError where runs differ: then it is not computed exactly."""
    if len(set(found)) > 1:
        raise EvidenceError(f"claims.yml of {chapter}: {entry['id']!r}: exact, but runs have {sorted(set(found))}")
    return Estimate(outcome.mean, math.nan, math.nan, outcome.seeds, outcome.items)


def _settled_by(outcome, away):
    """What would settle an open row if mean and spread stay as they are, in words."""
    if outcome.seeds < FEWEST_SEEDS:
        return f"{FEWEST_SEEDS} seeds at least"
    seeds, items = intervals.seeds_needed(outcome, away), intervals.items_needed(outcome, away)
    ways = [f"about {seeds} seeds"] if seeds else []
    ways += [f"about {items:,} items"] if items else []
    return " or ".join(ways) or "neither more seeds nor more items alone"


def scoreboard(root: Path | None = None) -> "pd.DataFrame":
    """pandas DataFrame, one row a claim, at the largest scale that has evidence of it.

    Columns: chapter, id, claim, source, headline, paper (its value), ours (mean), low and high (95 % interval), seeds,
    items, scale, verdict (one of VERDICTS), criterion, fresh (whether code, data and parameters are still those that it
    was measured with). Figures that do not exist are NaN.
    """
    import pandas as pd

    rows = [[row[c] for c in COLUMNS] for chapter in runs.chapters(root) for row in judged(chapter, root)]
    return pd.DataFrame(rows, columns=COLUMNS)


def together(rows: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """(how many of a chapter's decided headline claims stand together, how many there are), by Benjamini and Hochberg.

    Rows without a p-value, such as rates of 0, are not counted.
    """
    decided = [row for row in rows if row["headline"] and row["verdict"] in ("holds", "fails")]
    of = [row["p"] for row in decided if not math.isnan(row["p"])]
    return sum(intervals.stand_together(of)), len(of)


def shown(chapter: str, root: Path | None = None) -> list[Run]:
    """The whole runs that the chapter's figures are drawn from: evidence at the largest scale, else superseded ones.

    As for claims, the largest scale is that with three seeds; where none has three, that with any.
    """
    at = [[run for run in load(chapter, scale, root) if run.meta["complete"]] for scale in reversed(SCALES)]
    enough = [whole for whole in at if len(whole) >= FEWEST_SEEDS]
    return next(filter(None, enough or at), []) or superseded(chapter, root)


def status(root: Path | None = None) -> "pd.DataFrame":
    """pandas DataFrame, one row a results file: whether it is fresh, when, where and on what it was measured."""
    import pandas as pd

    rows = []
    for chapter in runs.chapters(root):
        for run in (run for scale in SCALES for run in load(chapter, scale, root)):
            m = run.meta
            row = {"chapter": chapter, "scale": run.profile, "seed": run.seed}
            row |= {"state": "whole" if m["complete"] else "not yet whole"}
            row |= {"fresh": "fresh" if is_fresh(run, root) else "stale", "date": m["date"][:10]}
            row |= {"minutes": m["wall_seconds"] / 60, "peak GB": m["peak_memory_bytes"] / 1e9}
            row |= {"device": m["device"], "torch": m["packages"].get("torch", ""), "commit": m["git_commit"][:10]}
            rows.append(row)
    return pd.DataFrame(rows)
