"""Runs on a Ray cluster: the same results as one after another, each once, whatever is killed meanwhile."""

import os
import signal
import threading
import time

import psutil
import pytest
from small_book import measured, paperwalk, start, value

FULL = os.environ.get("PAPERWALK_FAULTS") == "full"


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def wait_for(condition, process, seconds=120):
    """Waits until the condition holds, while the process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


class Watch(threading.Thread):
    """Notes each version of the results files that comes to lie in a folder, by a link to it."""

    def __init__(self, results, links):
        super().__init__(daemon=True)
        self.results, self.links, self.versions, self.stopped = results, links, {}, threading.Event()
        links.mkdir()

    def run(self):
        while not self.stopped.wait(0.01):
            for file in self.results.glob("*.json"):
                inode = file.stat().st_ino
                if inode not in self.versions.setdefault(file.name, []):
                    os.link(file, self.links / f"{file.name}.{inode}")  # an inode is not used again while linked
                    self.versions[file.name].append(inode)

    def written(self):
        """{name: how many times it was written}."""
        self.stopped.set()
        self.join()
        return {name: len(inodes) for name, inodes in self.versions.items()}


@pytest.mark.slow
@pytest.mark.fault(
    "kill -9 of a node of the cluster",
    "its runs are tried again on the other node; every run has one right result, written once",
)
def test_a_node_killed_halfway_costs_no_run(book, cluster, tmp_path):
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    log, count = tmp_path / "log", 12
    watch = Watch(book / "_runs/demo/results", tmp_path / "links")
    watch.start()
    options = ["--seeds", count, "--set", f"log={log}", "--set", "pause=0.3", "--cluster", cluster.address]
    process = start(book, "run", "demo", *options)
    wait_for(lambda: sum("written" in line for line in lines(log)) >= count // 2, process, 300)
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    victims = [*raylet.children(recursive=True), raylet]
    kernels = {p.pid for p in victims}
    for victim in victims:
        victim.kill()
    out, err = process.communicate(timeout=400)
    print(out, err)
    assert process.returncode == 0, err
    assert any(int(line.split()[-1]) in kernels for line in lines(log)), "the node had no run"
    assert {file.name.rpartition("-seed")[2]: measured(file) for file in watch.results.glob("*.json")} == {
        f"{seed}.json": value(seed) for seed in range(count)
    }
    assert sorted(watch.written().values()) == [1] * count
    assert f"{count} done" in out and "at the second try" in out
    cluster.remove_node(node, allow_graceful=False)
