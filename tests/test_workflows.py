"""The files of .github, read as GitHub reads them; without a network."""

import re
import subprocess
import sys

import pytest
import yaml

from paperwalk import runs

FOLDER = runs.ROOT / ".github"
FILES = sorted([*FOLDER.rglob("*.yml"), *FOLDER.rglob("*.yaml")])
WORKFLOWS = [file for file in FILES if file.parent.name == "workflows"]
SCHEMAS = {
    "workflows/*": "vendor.github-workflows",
    "ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    "ISSUE_TEMPLATE/*": "vendor.github-issue-forms",
    "dependabot.yml": "vendor.dependabot",
}


def steps(workflow):
    """The steps of all jobs of a workflow's file."""
    jobs = yaml.safe_load(workflow.read_text("utf8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_file_fits_its_schema(file):
    schema = next(schema for pattern, schema in SCHEMAS.items() if file.relative_to(FOLDER).match(pattern))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_make_targets_exist(workflow):
    makefile = (runs.ROOT / "Makefile").read_text("utf8")
    targets = " ".join(re.findall(r"^([\w./ -]+):(?!=)", makefile, re.M)).split()
    called = re.findall(r"\bmake ([\w./-]+)", "\n".join(step.get("run", "") for step in steps(workflow)))
    assert called and set(called) <= set(targets)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_to_a_major_version(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used and all(re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+", action) for action in used)
