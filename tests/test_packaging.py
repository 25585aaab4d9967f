"""What is declared, locked and packed: dependencies, exact versions, the wheel."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from paperwalk import runs

PROJECT = tomllib.loads((runs.ROOT / "pyproject.toml").read_text("utf8"))["project"]
GROUPS = PROJECT["optional-dependencies"] | {"": PROJECT["dependencies"]}
PACKAGE = runs.ROOT / "lib/paperwalk"
OFFERED = {"datasets"}  # its error message says how to have it; no chapter needs it
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def named(lines):
    """[(name, requirement)] of lines of a lock or a group; the project itself is none."""
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [(canonicalize_name(one.name), one) for one in found if one.name != "paperwalk"]


DECLARED = [(group, name, wanted) for group, lines in GROUPS.items() for name, wanted in named(lines)]


def locked(*files):
    """{name: its requirements} of what the locks hold."""
    held = {}
    for name, one in named(line for file in files for line in (runs.ROOT / file).read_text("utf8").splitlines()):
        held.setdefault(name, []).append(one)
    return held


LOCKS = locked("requirements.lock", "requirements-cluster.lock")


def imported(file):
    """Names of the top-level modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(file.read_text("utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_what_the_library_imports_is_declared():
    providers, declared = packages_distributions(), {name for _, name, _ in DECLARED}
    for file in PACKAGE.rglob("*.py"):
        for module in set(imported(file)) - sys.stdlib_module_names - {"paperwalk"} - OFFERED:
            names = {canonicalize_name(name) for name in providers.get(module, [module])}
            assert names & declared, f"{file.relative_to(runs.ROOT)}: {module} must be declared in pyproject.toml"


def test_all_names_each_group():
    (everything,) = map(Requirement, GROUPS["all"])
    assert everything.extras == GROUPS.keys() - {"", "all"}


@pytest.mark.parametrize("group, name, wanted", DECLARED, ids=[f"{group}-{name}" for group, name, _ in DECLARED])
def test_lock_is_within_the_range(group, name, wanted):
    lock = locked("requirements.lock") if group != "cluster" else LOCKS
    assert name in lock, f"{name}: must be in the lock; make lock"
    for one in lock[name]:
        (exact,) = one.specifier
        assert wanted.specifier.contains(exact.version), f"{one}: must be {wanted.specifier}; make lock"
    if wanted.marker:
        assert all(one.marker for one in lock[name]), f"{name}: must be locked for {wanted.marker} alone"


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-cluster.lock"])
def test_lock_holds_exact_versions_alone(file):
    """No index, no path, no option; and none of the CUDA packages, which torch's CUDA build asks for itself."""
    head, *lines = (runs.ROOT / file).read_text("utf8").splitlines()
    assert head.startswith("#") and "make lock" in head
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; [^;@/]+)?", line)] == []
    assert [line for line in lines if line.startswith(("nvidia-", "cuda-"))] == []


def test_cluster_lock_changes_no_version():
    assert not locked("requirements.lock").keys() & locked("requirements-cluster.lock").keys()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package as its wheel holds it, built from a copy: building leaves folders behind."""
    copy, wheels, site = (tmp_path_factory.mktemp(name) for name in ("copy", "wheels", "site"))
    shutil.copy(runs.ROOT / "pyproject.toml", copy)
    shutil.copytree(PACKAGE, copy / "lib/paperwalk", ignore=shutil.ignore_patterns("__pycache__"))
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, copy]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = wheels.glob("paperwalk-*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True, capture_output=True)
    return site


def python(site, cwd, *arguments, **variables):
    """Python with the installed package, in a folder."""
    env = {name: value for name, value in os.environ.items() if name != "PAPERWALK_ROOT"}
    env |= {"PYTHONPATH": str(site), **variables}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)


def test_wheel_holds_every_file_of_the_package(site):
    ours = {file.relative_to(PACKAGE) for file in PACKAGE.rglob("*") if file.is_file()}
    packed = {file.relative_to(site / "paperwalk") for file in (site / "paperwalk").rglob("*") if file.is_file()}
    assert {file for file in ours - packed if "__pycache__" not in file.parts} == set()


@pytest.mark.parametrize("where", ["named", "around"])
def test_installed_package_lists_the_chapters(site, tmp_path, where):
    """Of the checkout that PAPERWALK_ROOT names, or of the one around the current folder."""
    named, cwd = ({"PAPERWALK_ROOT": str(runs.ROOT)}, tmp_path) if where == "named" else ({}, runs.ROOT / "book")
    done = python(site, cwd, "-m", "paperwalk", "list", **named)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()[1:]} == set(runs.chapters())


@pytest.mark.parametrize(
    "named, said",
    [
        ({}, "no book (_toc.yml and book/) was found here or above: go into a checkout, or set PAPERWALK_ROOT=FOLDER"),
        ({"PAPERWALK_ROOT": "nowhere"}, "PAPERWALK_ROOT = 'nowhere': must be a folder with book/"),
    ],
    ids=["none", "wrong"],
)
def test_without_a_book_one_line_says_what_to_do(site, tmp_path, named, said):
    done = python(site, tmp_path, "-m", "paperwalk", "list", **named)
    assert (done.returncode, done.stderr.splitlines()) == (2, [said])


def test_without_a_book_the_library_still_imports(site, tmp_path):
    code = "from pathlib import Path; import paperwalk; from paperwalk import runs; "
    code += "print(Path(paperwalk.__file__).parents[1]); runs.chapters()"
    done = python(site, tmp_path, "-c", code)
    assert done.stdout.split() == [str(site)]
    assert done.stderr.splitlines()[-1].startswith("paperwalk.runs.parameters.ParameterError: no book ")
