"""What the evidence says about a chapter's claims: criteria, verdicts, the scoreboard."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import yaml

from paperwalk import runs
from paperwalk.evidence.intervals import summarise
from paperwalk.evidence.records import EvidenceError, is_fresh, load, values
from paperwalk.runs.parameters import fitted

if TYPE_CHECKING:
    import pandas as pd

Scale = Literal["laptop", "gpu"]
Kind = Literal["claim", "question", "demonstration"]
SCALES: tuple[str, ...] = get_args(Scale)
KINDS: tuple[str, ...] = get_args(Kind)
VERDICTS = ("reproduced", "partly", "not reproduced", "not attempted")
ANSWERS = ("yes", "no", "undecided")
COLUMNS = ["chapter", "claim", "paper", "ours", "low", "high", "n", "profile", "verdict"]


@dataclass(kw_only=True)
class _Entry:
    """What every entry of claims.yml says; section: anchor of the heading on its page under which it is measured."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    id: str
    kind: Kind
    claim: str
    where: str
    paper: str | int | float
    section: str | None = None


@dataclass(kw_only=True)
class _NotAttempted(_Entry):
    not_attempted: str


@dataclass(kw_only=True)
class _Measured(_Entry):
    metric: str
    criterion: str
    scales: list[Scale]

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError(f"scales = []: must be among {', '.join(SCALES)}")
        try:
            meets(self.criterion, 0.0)
        except EvidenceError as error:
            raise ValueError(str(error)) from error


def claims(chapter: str, root: Path | None = None) -> list[dict]:
    """The entries of the chapter's claims.yml, each found complete.

    Raises EvidenceError naming the entry that lacks a field, has an unknown one or a criterion that cannot be read.
    """
    file = runs.notebook_path(chapter, root).with_suffix("") / "claims.yml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    seen = set()
    for entry in entries:
        given = entry if isinstance(entry, dict) else {}
        where = f"{file.name}: {given.get('id', entry)!r}"
        form = _NotAttempted if "not_attempted" in given else _Measured
        if (name := fitted(form, entry, where, EvidenceError).id) in seen:
            raise EvidenceError(f"{where}: stands twice")
        seen.add(name)
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


def scoreboard(root: Path | None = None) -> "pd.DataFrame":
    """pandas DataFrame, one row a claim and scale.

    Columns: chapter, claim, paper, ours (mean over seeds), low and high (95 % interval), n (seeds), profile, verdict.
    Figures that do not exist are NaN. The verdict of results whose code is no longer the notebook's ends in " (stale)".
    """
    import pandas as pd

    rows = []
    for chapter in runs.chapters(root):
        rows += [[row[c] for c in COLUMNS] for row in judged(chapter, root)]
    return pd.DataFrame(rows, columns=COLUMNS)


def judged(chapter: str, root: Path | None = None) -> list[dict]:
    """The scoreboard's rows of one chapter as dicts; with id, kind, where, criterion, sd, answer and fresh besides."""
    results = {scale: load(chapter, scale, root) for scale in SCALES}
    rows = []
    for entry in claims(chapter, root):
        metric, criterion = entry.get("metric", ""), entry.get("criterion", "")
        for scale in entry.get("scales", SCALES):
            used = [r for r in results[scale] if metric in r["metrics"]]
            numbers = values(used, metric)
            s, word = summarise(numbers), verdict(criterion, numbers)
            told = answer(entry["kind"], criterion, numbers)
            fresh = all(is_fresh(r, root) for r in used)
            rows.append(
                entry
                | {"chapter": chapter, "profile": scale, "ours": s.mean, "sd": s.sd, "low": s.low, "high": s.high}
                | {"n": s.n, "paper": str(entry["paper"]), "verdict": word + " (stale)" * (not fresh)}
                | {"answer": told, "fresh": fresh}
            )
    return rows


def status(root: Path | None = None) -> "pd.DataFrame":
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
