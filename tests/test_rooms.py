"""The library's rooms: imports run one way, and nothing shared knows a chapter. The contracts: pyproject.toml."""

import subprocess
import sys
from pathlib import Path

from paperwalk import runs

ROOMS = Path(__file__).parents[1] / "lib" / "paperwalk"


def test_imports_run_one_way():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOMS.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_each_paper_has_a_chapter():
    papers = {folder.name for folder in (ROOMS / "papers").iterdir() if (folder / "__init__.py").exists()}
    assert papers <= set(runs.chapters())


def test_the_shared_library_names_no_chapter():
    shared = [file for file in ROOMS.rglob("*.py") if "papers" not in file.relative_to(ROOMS).parts]
    text = {file: file.read_text(encoding="utf-8") for file in shared}
    named = [
        f"{file.relative_to(ROOMS)}: {chapter}"
        for file in shared
        for chapter in runs.chapters()
        if f'"{chapter}"' in text[file]
    ]
    assert named == []
