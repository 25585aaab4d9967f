"""What tests of several folders share."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads that wait for each other are slower than one

from paperwalk import evidence, runs
from paperwalk.data.fetch import PACKAGES
from paperwalk.evidence.machine import device_name

# Begun first: no process is left with one at the end
LONGEST = ("test_notebooks.py", "TestChapters", "test_dry_run.py", "test_coverage.py", "test_types.py")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium of this machine; without one the test is skipped, or fails if PAPERWALK_STRICT=1."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        (pytest.fail if os.environ.get("PAPERWALK_STRICT") == "1" else pytest.skip)("no Chromium found")
    return path


@pytest.fixture(scope="session")
def browser(chromium):
    """A running Chromium; one for all tests, since playwright allows no second one in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def ci_run():
    """ci_run(chapter) -> its run at ci scale with seed 0: what the notebooks' test left, if fresh, or a new one."""

    def found(chapter):
        values = runs.profile_values(chapter, "ci") | {"seed": 0}
        file = evidence.result_file(chapter, values, as_evidence=False)
        with FileLock(runs.work_dir(chapter, "ci", 0) / ".tests"):  # a run that goes on refuses another; tests wait
            if not file.exists() or not evidence.is_fresh(evidence.read(file)):
                runs.execute(chapter, "ci", 0)
        return evidence.read(file)

    return found


@pytest.fixture
def pins_and_source(tmp_path, monkeypatch):
    """pins_and_source(module) -> copies of packages.txt and of the module's file, read in their place, and no cache."""

    def copied(module):
        pins, source = tmp_path / "packages.txt", tmp_path / Path(module.__file__).name
        pins.write_bytes(PACKAGES.read_bytes())
        source.write_bytes(Path(module.__file__).read_bytes())
        monkeypatch.setenv("PAPERWALK_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("paperwalk.data.fetch.PACKAGES", pins)
        monkeypatch.setattr(module, "__file__", str(source))
        return pins, source

    return copied


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Sorts the tests: the longest files first; what `make test` leaves out, and what needs a GPU, marked.

    Faults are for `make test-full`, but for those marked `quick`. Tests marked `gpu` are skipped where there is none.
    """
    items.sort(key=lambda item: LONGEST.index(name) if (name := item.parent.name) in LONGEST else len(LONGEST))
    for item in items:
        if item.get_closest_marker("fault") and not item.get_closest_marker("quick"):
            item.add_marker("full")
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if wanted and not runs.has_cuda_device():
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="no CUDA device was found"))


def pytest_addoption(parser):
    parser.addoption("--fault-report", metavar="FILE", help="write what the tests marked `fault` showed to this file")


def pytest_configure(config):
    if file := config.getoption("--fault-report"):
        config.pluginmanager.register(FaultReport(Path(file).resolve()))


class FaultReport:
    """One entry a test marked `fault`: what was injected, what happened, and whether the test passed."""

    def __init__(self, file):
        self.file, self.tests = file, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        report = yield
        if marker := item.get_closest_marker("fault"):
            fault, happened = marker.args
            row = dict(fault=fault, happened=happened, test=item.nodeid, outcome="passed", seconds=0.0)
            row = self.tests.setdefault(item.nodeid, row)
            row["seconds"] = round(row["seconds"] + report.duration, 2)
            if report.outcome != "passed":
                row["outcome"] = report.outcome
        return report

    def pytest_sessionfinish(self, exitstatus):
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # the run came to its end
            full = os.environ.get("PAPERWALK_FAULTS") == "full"
            content = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "counts": "full" if full else "reduced"}
            content |= {"device": device_name(), **evidence.commit(runs.ROOT)}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            tests = sorted(self.tests.values(), key=lambda row: (row["fault"], row["test"]))
            runs.write_atomically(self.file, json.dumps(content | {"tests": tests}, indent=1) + "\n")
