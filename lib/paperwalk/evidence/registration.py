"""Which runs may count as evidence: claims first, a clean tree, seeds that no trial has used, nothing overwritten."""

import time
from collections.abc import Sequence
from pathlib import Path

from paperwalk import runs
from paperwalk.evidence.claims import SCALES
from paperwalk.evidence.machine import commit
from paperwalk.evidence.records import FIRST_SEED, EvidenceError, Run, is_fresh, load


def check_registered(chapter: str, profile: str, seeds: Sequence[int], root: Path | None = None) -> None:
    """Raises what `check_committed` does, and EvidenceError where there is evidence at the same scale of other code or
    data: it must have been superseded before.
    """
    check_committed(chapter, profile, seeds, root)
    if old := stale(chapter, profile, root):
        raise EvidenceError(
            f"evidence of {chapter}: {old[0].file.name} is of other code or data, and must not be overwritten or mixed "
            f"with new evidence; --supersede 'REASON' moves it into results/superseded"
        )


def check_committed(chapter: str, profile: str, seeds: Sequence[int], root: Path | None = None) -> None:
    """Raises ParameterError for a profile or seed that is for trials, and EvidenceError unless all is committed.

    So the commit that a result names holds the code and the claims that it was measured by.
    """
    if profile not in SCALES:
        raise runs.ParameterError(f"profile = {profile!r}: must be one of {', '.join(SCALES)} for evidence")
    if trials := [seed for seed in seeds if seed < FIRST_SEED]:
        last = FIRST_SEED - 1
        raise runs.ParameterError(
            f"seeds = {trials[0]}: must be {FIRST_SEED} or more for evidence; 0 to {last} are for trials"
        )
    state = commit(runs.notebook_path(chapter, root).parent)
    if state["git_dirty"]:
        raise EvidenceError(f"evidence of {chapter}: must be of a clean working tree in git; commit what is changed")


def check_trial(profile: str, seeds: Sequence[int]) -> None:
    """Raises ParameterError for a seed of evidence at a scale of evidence: who had seen it could choose a criterion."""
    if profile in SCALES and (kept := [seed for seed in seeds if seed >= FIRST_SEED]):
        raise runs.ParameterError(
            f"seeds = {kept[0]}: must be below {FIRST_SEED} for a trial; the others are measured with --evidence"
        )


def stale(chapter: str, profile: str, root: Path | None = None) -> list[Run]:
    """The evidence at a scale whose code, parameters or data are no longer the present ones."""
    return [run for run in load(chapter, profile, root) if not is_fresh(run, root)]


def supersede(chapter: str, profile: str, reason: str, root: Path | None = None) -> list[Path]:
    """Moves the stale evidence at a scale into results/superseded/DATE, and adds the reason to README.md there.

    Returns the files' new places. Raises ParameterError without a reason.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise runs.ParameterError("supersede = '': must say why the evidence no longer counts")
    old = stale(chapter, profile, root)
    if not old:
        return []
    folder = runs.notebook_path(chapter, root).with_suffix("") / "results" / "superseded"
    named, n = time.strftime("%Y-%m-%d"), 1
    while (into := folder / (named if n == 1 else f"{named}-{n}")).exists():
        n += 1
    into.mkdir(parents=True)
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else "# Evidence that was superseded\n"
    seeds = ", ".join(str(run.seed) for run in old)
    runs.write_atomically(readme, f"{text.rstrip()}\n\n- `{into.name}`: {profile}, seeds {seeds}. {reason}\n")
    return [run.file.replace(into / run.file.name) for run in old]
