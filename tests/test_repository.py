"""The files around the book that other programs read: citation, commit hooks, container."""

import json
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml

from paperwalk import runs
from paperwalk.book import freshness

HOOKS = yaml.safe_load((runs.ROOT / ".pre-commit-config.yaml").read_text("utf8"))["repos"]


def test_citation_file_has_what_the_format_asks_for():
    cited = yaml.safe_load((runs.ROOT / "CITATION.cff").read_text("utf8"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] in ("software", "dataset")
    assert all(isinstance(cited[field], str) and cited[field] for field in ("message", "title", "abstract"))
    assert cited["authors"] and all(
        set(author) <= {"name", "given-names", "family-names"} for author in cited["authors"]
    )
    project = tomllib.loads((runs.ROOT / "pyproject.toml").read_text("utf8"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_hooks_fetch_nothing():
    assert [repository["repo"] for repository in HOOKS] == ["local"]
    assert {hook["language"] for hook in HOOKS[0]["hooks"]} == {"system"}


@pytest.mark.parametrize("hook", HOOKS[0]["hooks"], ids=lambda hook: hook["id"])
def test_hook_leaves_committed_notebooks_as_they_are(hook, tmp_path):
    """In particular outputs, the widgets' state and what says that a notebook is fresh."""
    copies = {}
    for notebook in freshness.notebooks():
        copies[notebook] = tmp_path / notebook.name
        copies[notebook].write_bytes(notebook.read_bytes())
    (tmp_path / "ruff.toml").write_text((runs.ROOT / "book/ruff.toml").read_text("utf8").replace("..", str(runs.ROOT)))
    done = subprocess.run(
        [*shlex.split(hook["entry"]), *copies.values()], cwd=runs.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for notebook, copy in copies.items():
        assert copy.read_bytes() == notebook.read_bytes(), notebook.name


def test_hook_drops_volatile_metadata(tmp_path):
    (entry,) = [hook["entry"] for hook in HOOKS[0]["hooks"] if hook["id"] == "nbstripout"]
    notebook = json.loads((runs.ROOT / "book/status.ipynb").read_text("utf8"))
    outputs = [cell.get("outputs") for cell in notebook["cells"]]
    notebook["metadata"]["signature"] = "sha256:mine"
    notebook["cells"][-1]["metadata"]["ExecuteTime"] = {"end_time": "now"}
    file = tmp_path / "status.ipynb"
    file.write_text(json.dumps(notebook), encoding="utf8")
    subprocess.run([*shlex.split(entry), file], cwd=runs.ROOT, check=True)
    stripped = json.loads(file.read_text("utf8"))
    assert "mine" not in file.read_text("utf8") and "ExecuteTime" not in file.read_text("utf8")
    assert [cell.get("outputs") for cell in stripped["cells"]] == outputs
    assert "paperwalk" in stripped["metadata"]


def test_container_takes_what_the_dockerfile_offers():
    settings = json.loads((runs.ROOT / ".devcontainer/devcontainer.json").read_text("utf8"))
    dockerfile = (runs.ROOT / ".devcontainer" / settings["build"]["dockerfile"]).read_text("utf8")
    assert set(settings["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile, re.M))
    assert f"ARG NB_USER={settings['remoteUser']}\n" in dockerfile
    targets = re.findall(r"^([\w./]+):", (runs.ROOT / "Makefile").read_text("utf8"), re.M)
    assert all(target in targets for target in re.findall(r"\bmake ([\w./]+)", dockerfile))
