"""A Ray cluster of two nodes on this machine, one for all tests; without Ray they are skipped, and say so."""

import os
import shutil
import tempfile
import time

import psutil
import pytest

import small_book

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # other programs on the machine may fill its memory
}


@pytest.fixture
def book(tmp_path):
    """Root of the throw-away book."""
    return small_book.make(tmp_path)


@pytest.fixture(scope="session")
def ray_environment():
    """A folder of its own for Ray's sessions: no other cluster of the machine is found, and none finds ours."""
    try:
        import ray  # noqa: F401
    except ImportError:
        (pytest.fail if os.environ.get("PAPERWALK_STRICT") == "1" else pytest.skip)("no Ray: requirements-cluster.lock")
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets want a short path
    before = {name: os.environ.get(name) for name in [*ENVIRONMENT, "RAY_TMPDIR"]}
    os.environ.update(ENVIRONMENT | {"RAY_TMPDIR": folder})
    os.environ.pop("RAY_ADDRESS", None)
    yield folder
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    deadline = time.monotonic() + 20
    while (left := ours(folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for process in left:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"processes of Ray outlived the tests: {left}"


def ours(folder):
    """The living processes that work in the folder of our sessions, or whose command line names it."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.cwd().startswith(folder) or any(folder in part for part in process.cmdline())
            found += [process] if mine and process.status() != psutil.STATUS_ZOMBIE else []
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


@pytest.fixture(scope="session")
def cluster(ray_environment):
    """The cluster's head, of two cores; `add_node` adds another."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False)
    yield cluster
    cluster.shutdown()
