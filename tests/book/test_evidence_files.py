"""The committed evidence: whole, faithful to its profile, and enough for every claim that it is said to judge."""

import re

import nbformat
import pytest

from paperwalk import evidence, runs

FILES = [f for chapter in runs.chapters() for f in (runs.ROOT / "book" / chapter / "results").glob("*.json")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parents[1].name}-{file.stem}")
def test_results_file(file):
    result = evidence.read(file)
    chapter, profile = result["chapter"], result["profile"]
    assert file.parents[1].name == chapter and file.stem == f"{profile}-seed{result['seed']}"
    assert result["parameters"] == runs.profile_values(chapter, profile) | {"seed": result["seed"]}
    measured = {c["metric"] for c in evidence.claims(chapter) if profile in c.get("scales", [])}
    assert measured - set(result["metrics"]) == set()
    assert re.fullmatch(r"[0-9a-f]{64}", result["code_hash"])
    assert result["wall_seconds"] > 0 and result["git_commit"] != "unknown"


@pytest.mark.parametrize("chapter", runs.chapters())
def test_laptop_evidence_has_three_seeds(chapter):
    """But for a new chapter, whose claims are all not attempted."""
    wanted = [0, 1, 2] if any("metric" in entry for entry in evidence.claims(chapter)) else []
    assert [r["seed"] for r in evidence.load(chapter, "laptop")][:3] == wanted


@pytest.mark.parametrize("chapter", runs.chapters())
def test_every_claim_has_a_row_and_staleness_is_shown(chapter):
    board = evidence.scoreboard()
    board = board[board["chapter"] == chapter]
    assert {c["claim"] for c in evidence.claims(chapter)} == set(board["claim"])
    code = runs.measured_hash(runs.notebook_path(chapter))
    for profile in evidence.SCALES:
        stale = any(r["code_hash"] != code for r in evidence.load(chapter, profile))
        judged = board[(board["profile"] == profile) & (board["n"] > 0)]
        assert judged["verdict"].str.endswith("(stale)").eq(stale).all()


@pytest.mark.parametrize("notebook", runs.notebooks(), ids=lambda path: path.stem)
def test_notebooks_are_fresh_and_whole(notebook):
    """Outputs belong to the code and the evidence beside them; no cell failed."""
    assert runs.stale(notebook) is None
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count or "setup" in cell.metadata.get("tags", [])
            assert not any(o.output_type == "error" for o in cell.outputs)


@pytest.mark.parametrize("chapter", runs.chapters())
def test_every_profile_passes_the_check(chapter):
    assert runs.profiles(chapter) == ["ci", "laptop", "gpu", "paper"]
    assert set(runs.defaults(chapter)) == set(runs.schema(chapter))
    assert runs.profile_values(chapter, "laptop") == runs.defaults(chapter)
    for profile in runs.profiles(chapter):
        values = runs.profile_values(chapter, profile)
        if "device" in values:
            values["device"] = "auto"  # cuda is refused where there is none
        runs.check(chapter, values)
