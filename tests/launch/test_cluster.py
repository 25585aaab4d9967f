"""Runs on a Ray cluster: the same results as one after another, each once, whatever is killed meanwhile."""

import os
import signal
import socketserver
import threading
from contextlib import nullcontext

import psutil
import pytest

import small_book
from paperwalk import evidence, runs
from paperwalk.launch import cluster, many
from paperwalk.runs.execution import environment
from small_book import fill, full_only, lines, measured, mounted, paperwalk, start, value, wait_for

pytestmark = pytest.mark.full


class Watch(threading.Thread):
    """Notes each version of the results files that comes to lie in a folder, by a link to it."""

    def __init__(self, results, links):
        super().__init__(daemon=True)
        self.results, self.links, self.versions, self.stopped = results, links, {}, threading.Event()
        links.mkdir()

    def run(self):
        while not self.stopped.wait(0.01):
            for file in self.results.glob("*.parquet"):
                inode = file.stat().st_ino
                if inode not in self.versions.setdefault(file.name, []):
                    os.link(file, self.links / f"{file.name}.{inode}")  # an inode is not used again while linked
                    self.versions[file.name].append(inode)

    def written(self):
        """How many times each file was written, sorted."""
        self.stopped.set()
        self.join()
        return sorted(len(inodes) for inodes in self.versions.values())


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def watch(book, tmp_path):
    watch = Watch(book / "_runs/demo/results", tmp_path / "links")
    watch.start()
    yield watch
    watch.written()


def told(log, what):
    return [line for line in lines(log) if what in line]


def values(folder):
    """{seed: value measured}."""
    return {int(file.stem.rpartition("-seed")[2]): measured(file) for file in folder.glob("*.parquet")}


@pytest.mark.slow
@pytest.mark.fault(
    "kill -9 of a node of the cluster, halfway through 12 runs",
    "its runs are tried again on the other node; every run has one right result, written once",
)
def test_a_node_killed_halfway_costs_no_run(book, cluster, log, watch):
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    count = 12
    # A pause so long that the run which is seen to be running still is when the node dies, a moment later.
    options = ["--seeds", count, "--set", f"log={log}", "--set", "pause=1.5", "--cluster", cluster.address]
    process = start(book, "run", "demo", *options)
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)

    def busy_halfway():
        of_node = {child.pid for child in raylet.children(recursive=True)}
        started, ended = told(log, "from"), {line.split()[-1] for line in told(log, "written")}
        running = [line for line in started if line.split()[-1] not in ended]
        return len(ended) >= count // 2 and any(int(line.split()[-1]) in of_node for line in running)

    wait_for(busy_halfway, process, 300)
    for victim in [*raylet.children(recursive=True), raylet]:
        victim.kill()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert values(watch.results) == {seed: value(seed) for seed in range(count)}
    assert watch.written() == [1] * count
    assert f"\n{count} done" in out and "at the second try" in out
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.fault(
    "kill -9 of a Ray worker",
    "its run is tried again and goes on from the checkpoint; the result is right and written once",
)
def test_a_killed_worker_costs_nothing(book, cluster, log, watch):
    options = ["--set", f"log={log}", "--set", "pause=0.2", "--set", "steps=15", "--cluster", cluster.address]
    process = start(book, "run", "demo", *options)
    wait_for(lambda: told(log, "step 2"), process)
    kernel = psutil.Process(int(lines(log)[-1].split()[-1]))
    worker = kernel.parent()
    assert "ray::" in worker.cmdline()[0]
    worker.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not kernel.is_running()
    assert values(watch.results) == {0: value(0, steps=15)} and watch.written() == [1]
    first, second = (int(line.split()[3]) for line in told(log, "from"))
    assert first == 0 and 2 <= second < 15
    assert "done at the second try" in out


@full_only
@pytest.mark.fault(
    "kill -9 of a kernel on a node of the cluster", "its run is tried again; the result is right and written once"
)
def test_a_killed_kernel_costs_nothing(book, cluster, log, watch):
    options = ["--set", f"log={log}", "--set", "pause=0.3", "--cluster", cluster.address]
    process = start(book, "run", "demo", *options)
    wait_for(lambda: told(log, "step 2"), process)
    os.kill(int(lines(log)[-1].split()[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert values(watch.results) == {0: value(0)} and watch.written() == [1]
    assert [line.split()[3] for line in told(log, "from")] == ["0", "2"]


@pytest.mark.fault(
    "kill -9 of the process that runs the cluster's runs",
    "the same command skips what is done and runs the rest; every run has one right result",
)
def test_a_killed_driver_loses_nothing_that_was_done(book, cluster, log):
    options = ["run", "demo", "--sweep", "k=5,7", "--seeds", 2, "--set", f"log={log}", "--set", "pause=0.2"]
    options += ["--cluster", cluster.address]
    process = start(book, *options)
    wait_for(lambda: list((book / "_runs/demo").glob("*/done.json")), process)
    process.kill()
    process.communicate()
    results = book / "_runs/demo/results"
    kept = [results / f"{marker.parent.name}.parquet" for marker in (book / "_runs/demo").glob("*/done.json")]
    before = [(file.stat().st_ino, file.read_bytes()) for file in kept]
    done = paperwalk(book, *options)
    assert done.returncode == 0, done.stderr
    assert f"\n{4 - len(kept)} done, {len(kept)} skipped, in " in done.stdout
    assert [(file.stat().st_ino, file.read_bytes()) for file in kept] == before
    measurements = sorted(measured(file) for file in results.glob("*.parquet"))
    assert measurements == sorted(value(seed, k) for seed in (0, 1) for k in (5, 7))


@pytest.mark.fault(
    "disk full where the cluster's results are collected",
    "they are kept until there is room, then written; no run is done again",
)
def test_a_full_disk_holds_results_up_and_loses_none(book, cluster, log):
    options = ["--seeds", 2, "--set", f"log={log}", "--cluster", cluster.address]
    with mounted(book / "_runs/demo/results", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as results:
        filler = fill(results)
        process = start(book, "run", "demo", *options)
        wait_for(lambda: len(told(log, "written")) == 2, process)
        assert any(": waiting" in line for line in process.stderr)  # as soon as it has said so
        assert process.poll() is None and not list(results.glob("*.parquet"))
        filler.unlink()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "\n2 done" in out
        assert values(results) == {0: value(0), 1: value(1)}
        assert len(told(log, "from")) == 2 and not list(results.glob(".*"))


def test_a_sweep_is_collected_here_and_a_failing_cell_is_not_tried_again(book, cluster, log):
    options = ["run", "demo", "--sweep", "k=5,7", "--sweep", "fail=never,error", "--set", f"log={log}"]
    done = paperwalk(book, *options, "--cluster", cluster.address, "--resources", "memory_gb=0.1")
    assert done.returncode == 1
    assert "\n2 done, 2 failed" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("2 of 4 runs failed: demo laptop seed 0 ")
    assert len(told(log, "from")) == 4  # each once
    planned = many.plan("demo", "laptop", [0], {"log": str(log)}, {"k": [5, 7], "fail": ["never", "error"]}, root=book)
    for run in planned:
        if run.parameters["fail"] == "never":
            assert measured(run.result(book)) == value(0, run.parameters["k"]) and many.is_done(run, book)
        else:  # what ran until then
            notebook = run.notebook(book)
            assert "the sky fell" in notebook.read_text() and f"in {notebook.relative_to(book)}" in done.stdout
            assert "/ray/" not in notebook.read_text() and not run.result(book).exists()


@full_only
def test_a_second_command_for_the_same_run_is_told_who_runs_it(book, cluster, log):
    options = ["run", "demo", "--set", f"log={log}", "--set", "pause=1", "--cluster", cluster.address]
    first = start(book, *options)
    wait_for(lambda: told(log, "step 0"), first)
    second = paperwalk(book, *options)
    assert second.returncode == 1
    assert f"process {first.pid} is running it" in second.stderr.splitlines()[-1]
    first.kill()
    first.communicate()


def refused(done, message):
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


def test_resources_that_no_node_has_are_refused_at_once(book, cluster):
    options = ["run", "demo", "--cluster", cluster.address]
    refused(paperwalk(book, *options, "--resources", "gpus=1"), "demo laptop seed 0: asks for cpus=1 gpus=1, and no")
    refused(paperwalk(book, *options, "--profile", "gpu"), "demo gpu seed 0: asks for cpus=2 gpus=1, and no")
    assert not (book / "_runs").exists()


@pytest.mark.parametrize(
    "address, message",
    [
        ("banana", "cluster = 'banana': must be HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:1", "cluster = '127.0.0.1:1': cannot be reached: [Errno 111] Connection refused"),
        ("nowhere.invalid:6379", "cluster = 'nowhere.invalid:6379': cannot be reached: "),
        ("127.0.0.1:99999", "cluster = '127.0.0.1:99999': cannot be reached: "),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(book, ray_environment, address, message):
    refused(paperwalk(book, "run", "demo", "--cluster", address), message)
    assert not (book / "_runs").exists()


def test_something_else_at_the_address_is_told_from_a_cluster(book, ray_environment):
    class Web(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(100)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        done = paperwalk(book, "run", "demo", "--cluster", address)
        refused(done, f"cluster = '{address}': cannot be reached: what answers is not Ray")
        server.shutdown()


def test_arms_that_evidence_came_to_before_it_failed_come_home(book, monkeypatch):
    small_book.commit(book)
    (run,) = many.plan("demo", "paper", [100], {}, {}, root=book, as_evidence=True)

    def failing(run, root):
        with environment(PAPERWALK_EVIDENCE="1"):
            evidence.Records("demo", run.parameters, root).save(finished="arms/a")
        raise runs.RunError("arms: 1 failed: b")

    monkeypatch.chdir(book)
    monkeypatch.setattr(cluster, "_telling", lambda *arguments: nullcontext())
    monkeypatch.setattr(many, "execute", failing)
    result, _, failure = cluster._run_here(run, None, str(book))
    assert (result, failure) == (run.result(book).read_bytes(), "arms: 1 failed: b")
    run.result(book).unlink()
    monkeypatch.setattr(many, "execute", lambda run, root: True)
    result, _, failure = cluster._run_here(run, None, str(book))
    assert result is None and "not a readable results file" in failure


def test_without_ray_one_line_says_what_to_install(book, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no module named ray')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = paperwalk(book, "run", "demo", "--cluster", PYTHONPATH=path)
    refused(done, "cluster: must have Ray: pip install -r requirements-cluster.lock")


@full_only
def test_without_an_address_the_machine_itself_is_the_cluster(book, ray_environment, tmp_path):
    commit = small_book.commit(book)
    options = ["--profile", "paper", "--seeds", "100-100", "--evidence"]
    done = paperwalk(book, "run", "demo", "--cluster", *options, RAY_TMPDIR=f"{ray_environment}/own")
    assert done.returncode == 0, done.stderr
    result = book / "book/demo/results/paper-seed100.parquet"
    assert measured(result) == value(100, steps=9) and "1 done" in done.stdout
    meta = evidence.read(result).meta
    assert (meta["git_commit"], meta["git_dirty"], meta["complete"]) == (commit, False, True)
