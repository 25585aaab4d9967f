"""The page on faults: made from a report of tests that ran, with a row for every test that is marked as one."""

import ast
import json
import subprocess
import sys

import nbformat
import pytest

from paperwalk import runs
from paperwalk.show import tables

REPORT = tables.fault_report()

SOME_TESTS = """
import pytest

@pytest.mark.fault("a lost page", "found again")
@pytest.mark.parametrize("page", [1, 2])
def test_lost(page):
    pass

@pytest.mark.fault("a burnt page", "it is <gone>")
def test_burnt():
    assert False

@pytest.mark.fault("a stolen page", "locked away")
def test_stolen():
    pytest.skip("no thief at hand")

def test_no_fault():
    pass
"""


def marked():
    """(fault, what happens) of every `pytest.mark.fault(...)` in the tests."""
    found = set()
    for file in sorted((runs.ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                found.add(tuple(ast.literal_eval(argument) for argument in node.args))
    return found


def test_every_fault_of_the_tests_is_in_the_report():
    assert marked() == {(test["fault"], test["happened"]) for test in REPORT["tests"]}, "run `make test-faults`"


def test_the_report_is_of_full_counts_and_says_where():
    assert REPORT["counts"] == "full" and REPORT["date"] and REPORT["device"] and REPORT["git_commit"] != "unknown"
    assert all(test["outcome"] in ("passed", "failed", "skipped") and test["seconds"] >= 0 for test in REPORT["tests"])


def test_the_page_shows_a_row_a_fault():
    page = nbformat.read(runs.ROOT / "book/reliability.ipynb", as_version=4)
    (shown,) = (o.data["text/html"] for c in page.cells if c.cell_type == "code" for o in c.outputs)
    assert shown == tables.faults().html
    assert shown.count("<tr><td>") == len(marked())


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Root with the report that the real plugin writes of four tests marked as faults."""
    root = tmp_path_factory.mktemp("faults")
    (root / "test_some.py").write_text(SOME_TESTS)
    (root / "conftest.py").write_text((runs.ROOT / "tests/conftest.py").read_text())
    (root / "pytest.ini").write_text("[pytest]\nmarkers = fault(name, happened): a fault\n")
    file = root / "book/reliability/report.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "fault", "--fault-report", str(file)]
    assert subprocess.run([*command, str(root)], cwd=root, capture_output=True).returncode == 1  # one test fails
    return root


def test_the_report_says_which_tests_passed(book):
    report = json.loads((book / "book/reliability/report.json").read_text())
    outcomes = {test["test"]: test["outcome"] for test in report["tests"]}
    passed = {f"test_some.py::test_lost[{page}]": "passed" for page in (1, 2)}
    assert outcomes == passed | {"test_some.py::test_burnt": "failed", "test_some.py::test_stolen": "skipped"}


def test_a_fault_whose_tests_did_not_pass_is_not_said_to_be_harmless(book):
    rows = tables.faults(book).html.split("<tr>")[2:]
    burnt, lost, stolen = rows
    assert "it is &lt;gone&gt;" in burnt and "<td>not shown: 1 of 1 tests failed</td>" in burnt
    assert "<td>nothing</td>" in lost and "test_some.py::test_lost<" in lost.replace("<wbr>", "")
    assert "<td>not shown: 1 of 1 tests skipped</td>" in stolen
