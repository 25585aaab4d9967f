"""Faults put upon a run for real: killed, its disk filled, its files spoilt, its clock set back. Nothing is lost."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from paperwalk import evidence
from small_book import fill, full_only, lines, make, measured, mounted, paperwalk, start, value, wait_for


@pytest.fixture
def book(tmp_path):
    return make(tmp_path / "tree")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def result_of(book, name="laptop-*"):
    (file,) = (book / "_runs/demo/results").glob(f"{name}.parquet")
    return file


def notebook_of(book, name="laptop-*"):
    (file,) = (book / "_runs/demo").glob(f"{name}/demo.ipynb")
    return file


def leftovers(book):
    """Half-written files."""
    return [file for file in book.rglob("*.tmp")]


def living(book):
    """Processes that run something of the book."""
    found = []
    for process in psutil.process_iter():
        try:
            found += [process] if process.environ().get("PAPERWALK_ROOT") == str(book) else []
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


# Killed

KILLED_AFTER = """
import os, signal, sys
from papermill.engines import NotebookExecutionManager as Manager
complete = Manager.cell_complete
def killed(self, cell, cell_index=None, **rest):
    complete(self, cell, cell_index, **rest)
    if {text!r} in cell.source:
        os.kill(os.getpid(), signal.SIGKILL)
Manager.cell_complete = killed
from paperwalk.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.fault("kill -9 of papermill between two cells", "the next run ends in the result of an undisturbed one")
@pytest.mark.parametrize(
    "text", ["told(f", pytest.param("experiment.write(", marks=full_only)], ids=["measured", "written"]
)
def test_papermill_killed_between_cells(book, log, text):
    options = ["run", "demo", "--set", f"log={log}"]
    code = KILLED_AFTER.format(text=text)
    env = os.environ | {"PAPERWALK_ROOT": str(book)}
    done = subprocess.run([sys.executable, "-c", code, *options], env=env, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    nbformat.read(notebook_of(book), as_version=4)  # what ran until then is whole
    again = paperwalk(book, *options)
    assert again.returncode == 0, again.stderr
    assert measured(result_of(book)) == value(0) and not leftovers(book)
    began = [line.split()[3] for line in lines(log) if "from" in line]
    assert began == ["0", "4" if text == "told(f" else "0"]  # a run that had written its result measures anew


@pytest.mark.fault("kill -9 of papermill inside a cell", "the next run goes on from the checkpoint, to the same result")
def test_papermill_killed_inside_a_cell(book, log):
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=0.2", "--set", "steps=20"]
    process = start(book, *options)
    wait_for(lambda: any("step 2" in line for line in lines(log)), process)
    kernel = psutil.Process(int(lines(log)[-1].split()[-1]))
    process.kill()
    process.communicate()
    kernel.wait(20)  # it does not go on measuring by itself
    nbformat.read(notebook_of(book), as_version=4)
    done = paperwalk(book, *options)
    assert done.returncode == 0, done.stderr
    assert measured(result_of(book)) == value(0, steps=20) and not leftovers(book)
    first, second = (int(line.split()[3]) for line in lines(log) if "from" in line)
    assert first == 0 and 2 <= second < 20  # the kernel lives for a second after papermill


@pytest.mark.quick
@pytest.mark.fault("kill -9 of the notebook's kernel", "the run ends with one line that says so; the next one goes on")
def test_kernel_killed(book, log):
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=0.3"]
    process = start(book, *options)
    wait_for(lambda: any("step 2" in line for line in lines(log)), process)
    os.kill(int(lines(log)[-1].split()[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Kernel died (out of memory?); what ran until then is in _runs/demo/laptop-" in err.splitlines()[-1]
    done = paperwalk(book, *options)
    assert done.returncode == 0, done.stderr
    assert measured(result_of(book)) == value(0)
    assert [line.split()[3] for line in lines(log) if "from" in line] == ["0", "2"]


# Full and read-only disks


@pytest.mark.quick
@pytest.mark.fault(
    "disk full while a result is written",
    "one line says so; the old result stays, and the next run writes the new one without measuring again",
)
def test_disk_full_while_writing_a_result(book, log):
    options = ["run", "demo", "--set", f"log={log}"]
    with mounted(book / "_runs/demo/results", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as results:
        assert paperwalk(book, *options).returncode == 0
        old = result_of(book).read_bytes()
        filler = fill(results)
        done = paperwalk(book, *options, "--again")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr.splitlines()[-1]
        assert result_of(book).read_bytes() == old and not leftovers(book)
        filler.unlink()
        done = paperwalk(book, *options)
        assert done.returncode == 0, done.stderr
        assert measured(result_of(book)) == value(0) and not leftovers(book)
        assert [line.split()[3] for line in lines(log) if "from" in line] == ["0", "0", "4"]


@pytest.mark.fault(
    "disk full while a notebook is written",
    "one line says so and no kernel goes on; the notebook is whole up to a cell, the result of before stays",
)
def test_disk_full_while_writing_a_notebook(book, log):
    options = ["run", "demo", "--set", f"log={log}", "--set", "steps=2"]
    with mounted(book / "_runs/demo", "-t", "tmpfs", "-o", "size=128k", "tmpfs") as folder:
        assert paperwalk(book, *options).returncode == 0
        result, notebook = result_of(book), notebook_of(book)
        before = result.read_bytes()
        filler = fill(folder)
        os.truncate(filler, filler.stat().st_size - 8192)  # room for the lock, not for a notebook
        done = paperwalk(book, *options, "--again")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith(f"No space left on device: {notebook}"), done.stderr
        assert not living(book)
        assert result.read_bytes() == before and not leftovers(book)
        nbformat.validate(nbformat.read(notebook, as_version=4))
        filler.unlink()
        done = paperwalk(book, *options)
        assert done.returncode == 0, done.stderr
        assert measured(result_of(book)) == value(0, steps=2)


@pytest.mark.fault("a read-only tree", "one line says so at once; nothing is changed")
def test_read_only_tree(book, log):
    with mounted(book, "--bind", str(book)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(book)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (book / "probe").write_text("")
        done = paperwalk(book, "run", "demo", "--set", f"log={log}")
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
        assert paperwalk(book, "list").returncode == 0
    assert not (book / "_runs").exists() and not lines(log)


# Spoilt files


@pytest.mark.fault(
    "a result file half-written by another program", "it is named, never read as evidence, and the run is done again"
)
def test_half_written_result(book, log):
    options = ["run", "demo", "--profile", "paper"]
    assert paperwalk(book, *options).returncode == 0
    assert "1 skipped" in paperwalk(book, *options).stdout
    file = result_of(book, "paper-seed0")
    whole = measured(file)
    shown = book / "book/demo/results/paper-seed100.parquet"
    shown.parent.mkdir()
    half = file.read_bytes()[: file.stat().st_size // 2]
    for cut in (file, shown):  # evidence is named where it is read
        cut.write_bytes(half)
    done = paperwalk(book, "list")
    assert done.returncode == 1 and "paper-seed100.parquet: not a readable results file" in done.stderr
    done = paperwalk(book, *options)
    assert done.returncode == 0 and "1 done" in done.stdout, done.stderr
    assert measured(file) == value(0, steps=9) == whole


@full_only
@pytest.mark.fault("an executed notebook cut off", "it is noticed by its checksum, and the run is done again")
def test_truncated_notebook(book, log):
    options = ["run", "demo", "--set", f"log={log}"]
    assert paperwalk(book, *options).returncode == 0
    file = notebook_of(book)
    file.write_bytes(file.read_bytes()[:1000])
    done = paperwalk(book, *options)
    assert done.returncode == 0 and "1 done" in done.stdout, done.stderr
    nbformat.read(file, as_version=4)
    assert measured(result_of(book)) == value(0)


@pytest.mark.fault("a profile with code in it", "refused in one line; the code does not run")
@pytest.mark.parametrize(
    "where, message",
    [
        ("profile", "laptop.yml: is no valid YAML"),
        ("set", "must be a YAML value"),
        ("sweep", "must be YAML values"),
    ],
)
def test_profile_with_code(book, tmp_path, where, message):
    victim = tmp_path / "ran"
    code = f"!!python/object/apply:os.system ['touch {victim}']"
    if where == "profile":
        (book / "book/demo/profiles/laptop.yml").write_text(f"profile: laptop\nk: {code}\n")
    done = paperwalk(book, "run", "demo", *([] if where == "profile" else [f"--{where}", f"k={code}"]))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not victim.exists() and not (book / "_runs").exists()


# Two at once, and the clock


@pytest.mark.fault(
    "two runs with the same output",
    "the second ends with one line that names the first's process; the first is as ever",
)
def test_two_runs_at_once(book, log):
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=1"]
    first = start(book, *options)
    wait_for(lambda: any("step 1" in line for line in lines(log)), first)
    second = paperwalk(book, *options)
    assert second.returncode == 1
    assert f"process {first.pid} is running it; wait for its end" in second.stderr.splitlines()[-1]
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert measured(result_of(book)) == value(0)
    assert sum("from" in line for line in lines(log)) == 1  # the second measured nothing


@full_only
@pytest.mark.fault("a lock left by a killed process", "the next run takes it over")
def test_stale_lock(book, log):
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=0.3"]
    first = start(book, *options)
    wait_for(lambda: any("step 1" in line for line in lines(log)), first)
    first.kill()
    first.communicate()
    assert (notebook_of(book).parent / ".owner").read_text() == str(first.pid)
    done = paperwalk(book, *options)
    assert done.returncode == 0, done.stderr
    assert measured(result_of(book)) == value(0)


SET_BACK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static time_t back(void) { return access("@", F_OK) == 0 ? 3600 : 0; }
int clock_gettime(clockid_t clock, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, t);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) t->tv_sec -= back();
    return status;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.mark.fault(
    "the clock set back an hour during a run", "the same result; its time is taken from a clock that cannot be set"
)
def test_clock_set_back(book, log, tmp_path):
    flag, library = tmp_path / "set-back", tmp_path / "set_back.so"
    (tmp_path / "set_back.c").write_text(SET_BACK.replace("@", str(flag)))
    command = ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "set_back.c", "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=0.5"]
    began = time.monotonic()
    process = start(book, *options, LD_PRELOAD=str(library))
    wait_for(lambda: any("step 1" in line for line in lines(log)), process)
    flag.write_text("")
    code = "import time; print(time.time())"
    seen = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True
    )
    assert float(seen.stdout) < time.time() - 3500  # the fault is there
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    result = evidence.read(result_of(book))
    assert result.means["value.demo"] == value(0)
    assert 2 <= result.meta["wall_seconds"] <= time.monotonic() - began
    assert "1 skipped" in paperwalk(book, *options).stdout  # and what is done stays done
