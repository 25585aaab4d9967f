"""The committed evidence: whole, registered, faithful to its profile, and judged by the rule."""

import math
import re

import nbformat
import pytest

from paperwalk import evidence, runs
from paperwalk.book import freshness

CHAPTERS = runs.chapters()
RESULTS = {chapter: runs.ROOT / "book" / chapter / "results" for chapter in CHAPTERS}
EVIDENCE = [file for folder in RESULTS.values() for file in folder.glob("*.parquet")]
SUPERSEDED = [file for folder in RESULTS.values() for file in folder.glob("superseded/*/*.parquet")]
named = lambda file: f"{file.relative_to(runs.ROOT / 'book').parts[0]}-{file.stem}"


@pytest.mark.parametrize("file", EVIDENCE, ids=named)
def test_evidence_is_faithful_to_its_profile_and_was_registered(file):
    run = evidence.read(file)
    assert file == evidence.result_file(run.chapter, run.parameters, as_evidence=True)
    assert run.profile in evidence.SCALES and run.seed >= evidence.FIRST_SEED and run.meta["evidence"]
    assert run.meta["git_dirty"] is False and re.fullmatch(r"[0-9a-f]{40}", run.meta["git_commit"])
    assert re.fullmatch(r"[0-9a-f]{64}", run.meta["code"]) and run.meta["wall_seconds"] > 0
    assert run.meta["claims"]["judged"]


@pytest.mark.parametrize("file", SUPERSEDED, ids=named)
def test_superseded_evidence_is_whole_and_its_reason_is_told(file):
    assert evidence.read(file).superseded
    readme = (file.parents[1] / "README.md").read_text(encoding="utf-8")
    assert file.parent.name in readme and len(readme.split()) > 80


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nothing_else_lies_among_the_results(chapter):
    allowed = {*EVIDENCE, *SUPERSEDED, RESULTS[chapter] / "superseded" / "README.md"}
    assert {file for file in RESULTS[chapter].rglob("*") if file.is_file()} <= allowed


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_row_is_judged_by_the_rule_and_no_interval_leaves_its_bounds(chapter):
    known = evidence.measures(chapter)
    for row in evidence.judged(chapter):
        if not row["seeds"]:
            assert row["verdict"] == "not measured" and math.isnan(row["ours"])
            continue
        outcome = evidence.Estimate(row["ours"], row["low"], row["high"], row["seeds"], row["items"])
        assert row["verdict"] == evidence.verdict(row["criterion"], outcome, row.get("exact", False))
        low, high = known[row["measure"]].bounds
        low, high = (low - high, high - low) if row["minus"] else (low, high)
        if not math.isnan(row["low"]):
            assert low <= row["low"] <= row["ours"] <= row["high"] <= high and row["low"] < row["high"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_claims_can_be_read_by_themselves(chapter):
    claims = evidence.claims(chapter)
    assert sum(entry.get("headline", False) for entry in claims) <= 6
    for entry in claims:
        assert len(entry["claim"].split()) >= 8 and not entry["claim"].endswith("?"), entry["id"]
        assert entry["source"] != "paper" or entry.get("where"), entry["id"]


@pytest.mark.parametrize("notebook", freshness.notebooks(), ids=lambda path: path.stem)
def test_notebooks_are_fresh_and_whole(notebook):
    """Outputs belong to the code and the evidence beside them; no cell failed."""
    assert freshness.stale(notebook) is None
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count or "setup" in cell.metadata.get("tags", [])
            assert not any(o.output_type == "error" for o in cell.outputs)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_profile_passes_the_check(chapter):
    assert runs.profiles(chapter) == ["ci", "laptop", "evening", "gpu", "paper"]
    assert set(runs.defaults(chapter)) == set(runs.schema(chapter))
    assert runs.profile_values(chapter, "laptop") == runs.defaults(chapter)
    for profile in runs.profiles(chapter):
        values = runs.profile_values(chapter, profile)
        if "device" in values:
            values["device"] = "auto"  # cuda is refused where there is none
        runs.check(chapter, values)
