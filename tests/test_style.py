"""Code and notebooks are linted and formatted."""

import subprocess
import sys

import pytest

from paperwalk import runs
from paperwalk.book import freshness
from paperwalk.runs.files import code_cells

MOST_LINES_OF_A_CELL, MOST_LINES_OF_A_NOTEBOOK = 25, 700


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "benchmarks", "book", "lib", "tests"],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("notebook", freshness.notebooks(), ids=lambda path: path.stem)
def test_code_can_be_read_cell_by_cell(notebook):
    lines = [len(cell["source"].splitlines()) for cell in code_cells(notebook)]
    assert max(lines) <= MOST_LINES_OF_A_CELL and sum(lines) <= MOST_LINES_OF_A_NOTEBOOK
