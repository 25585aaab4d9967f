"""A throw-away book of one chapter, and results files of it written by hand."""

import json

import nbformat
import pytest
import yaml

from paperwalk import evidence, runs
from paperwalk.data import sources
from paperwalk.evidence import records

MEASURES = {
    "right": {"what": "1 where an item is solved", "bounds": [0, 1]},
    "loss": {"what": "loss of an item", "unit": "nats"},
}
CLAIM = {
    "id": "solved",
    "claim": "It solves most",
    "source": "paper",
    "where": "Table 1",
    "paper": 0.9,
    "headline": True,
}
CLAIM |= {"measure": "right", "arm": "a", "criterion": ">= 0.5"}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "book" / "demo"
    (folder / "profiles").mkdir(parents=True)
    code = nbformat.v4.new_code_cell('profile = "laptop"\nseed = 0\nsteps = 4', metadata={"tags": ["parameters"]})
    cells = [code, nbformat.v4.new_code_cell("x = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "book" / "demo.ipynb")
    schema = {"profile": {"type": "str"}, "seed": {"type": "int"}, "steps": {"type": "int"}}
    (folder / "parameters.yml").write_text(yaml.safe_dump(schema))
    for profile in runs.PROFILES:
        (folder / "profiles" / f"{profile}.yml").write_text(yaml.safe_dump({"profile": profile}))
    register(tmp_path, CLAIM)
    return tmp_path


def register(root, *claims, **measures):
    """Writes claims.yml."""
    content = {"measures": MEASURES | measures, "claims": list(claims)}
    (root / "book/demo/claims.yml").write_text(yaml.safe_dump(content, sort_keys=False))


def measured(root, seed, outcomes, profile="evening", complete=True, monkeypatch=None, **changed):
    """A results file of the evidence: outcomes {(measure, arm): {item: value}}."""
    parameters = {"profile": profile, "seed": seed, "steps": 4} | changed
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(records.REGISTERED, "1")
        patch.delenv(sources.VARIABLE, raising=False)
        patch.setenv("PAPERWALK_COMMIT", json.dumps({"git_commit": "0" * 40, "git_dirty": False}))
        run = evidence.Records("demo", parameters, root)
        for (measure, arm), of_items in outcomes.items():
            run.record(measure, arm, list(of_items), of_items.values())
        return run.save(complete=complete)


def rates(successes, n=20, arm="a"):
    """Outcomes of n items, the first of them solved."""
    return {("right", arm): {f"item-{i}": float(i < successes) for i in range(n)}}
