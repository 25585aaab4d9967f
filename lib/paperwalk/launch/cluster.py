"""Runs side by side as tasks of a Ray cluster (requirements-cluster.lock), tried again where a process or node is lost.

The repository's files and this library travel to the nodes, each of which works in a copy of its own; results and
executed notebooks travel back, and this process alone writes them. So nodes need a Python with requirements.lock and
requirements-cluster.lock, and no file system in common.
"""

import json
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from paperwalk import evidence, runs
from paperwalk.launch import many
from paperwalk.runs.execution import beside
from paperwalk.runs.files import resolve_root

RETRIES = 3  # after a worker, a node or a kernel was lost
PATIENCE = 600  # seconds to wait for room on a full disk after the last run
RESOURCES = {"cpus": "num_cpus", "gpus": "num_gpus", "memory_gb": "memory"}  # ours and Ray's names
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # a frame of HTTP/2: length, type, flags, stream


def resources(run: many.Run, wanted: dict[str, float], root: Path | None = None) -> dict[str, float]:
    """What the run asks of a node: {"cpus", "gpus", "memory_gb"}, of which `wanted` takes the place of what follows.

    A core for each of its `workers`, a GPU where its `device` is cuda, and as much memory as the largest run of its
    profile took, of those with committed results; none where there are none.
    """
    asked = {"cpus": run.parameters.get("workers", 1), "gpus": int(run.parameters.get("device") == "cuda")}
    try:
        peaks = [result.meta["peak_memory_bytes"] for result in evidence.load(run.chapter, run.profile, root)]
    except evidence.EvidenceError:  # a broken file is told of where it is shown
        peaks = []
    return asked | ({"memory_gb": max(peaks) / 1e9} if peaks else {}) | wanted


def on_ray(
    pending: list[many.Run], address: str, wanted: dict[str, float], root: Path | None = None
) -> Iterator[tuple[many.Run, str, str]]:
    """Runs them on the cluster at `address`, as many at a time as it holds; an iterator of events for `many.follow`.

    address: HOST:PORT, ray://HOST:PORT, or "" for the cluster that this machine belongs to, else its own cores.
    Raises ParameterError where there is no Ray or no such cluster, or no node has what a run asks for (`resources`).
    """
    root = resolve_root(root)
    ray = _connect(address, root)
    try:
        asked = {run: resources(run, wanted, root) for run in pending}
        for run in pending:
            _check_fits(run, asked[run], ray)
    except BaseException:
        ray.shutdown()
        raise
    return _spread(asked, ray, root)


def _spread(asked, ray, root):
    """Sends out the runs, each of which this process keeps locked; events as of `on_ray`."""
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()  # which is not lost while this process lives
        near = NodeAffinitySchedulingStrategy(here, soft=True)
        board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=near)(_Board).remote()
        task = ray.remote(max_retries=RETRIES, retry_exceptions=[runs.Interrupted])(_run_here)
        tasks, made_from = {}, {}
        for run, amounts in asked.items():
            try:
                run.folder(root).mkdir(parents=True, exist_ok=True)
                stack.enter_context(runs.locked(run.folder(root)))
            except (runs.RunError, OSError) as error:
                yield run, "failed", str(error)
                continue
            made_from[run] = many.identity(run, root)
            options = {option: amounts.get(name, 0) for name, option in RESOURCES.items()}
            options["memory"] = int(options["memory"] * 1e9)  # bytes
            tasks[task.options(name=run.name, **options).remote(run, board, str(root))] = run
        yield from _collected(tasks, board, made_from, ray, root)


def _collected(tasks, board, made_from, ray, root):
    """Takes each run's files as they come and writes them, once; events as of `on_ray`."""
    returned: dict[many.Run, tuple] = {}
    tries: dict[many.Run, dict[str, str]] = {run: {} for run in tasks.values()}
    last_came = time.monotonic()
    while tasks or returned:
        ready = ray.wait(list(tasks), timeout=1)[0] if tasks else []
        if not tasks:
            time.sleep(1)
        states = _states(board, ray)  # before the ended ones go: a try may have begun and ended since
        for run in tasks.values():
            if seen := states.get(run.name):
                tries[run] |= seen
                yield run, "retried" if len(tries[run]) > 1 else "running", list(seen.values())[-1]
        for task in ready:
            try:
                returned[tasks[task]] = ray.get(task, timeout=10)
            except ray.exceptions.GetTimeoutError:  # lost with its node in this moment: Ray makes it anew
                continue
            except ray.exceptions.RayError as error:
                cause = " ".join(str(getattr(error, "cause", None) or error).split())
                yield tasks[task], "failed", f"{cause} (the last of {RETRIES + 1} tries)"
            del tasks[task]
            last_came = time.monotonic()
        for run, (result, notebook, failure) in list(returned.items()):
            try:
                _write(run, result, notebook, None if failure else made_from[run], root)
            except OSError as error:
                if tasks or time.monotonic() - last_came < PATIENCE:
                    yield run, "waiting", f"to be written ({runs.in_words(error)})"
                    continue
                failure = f"{run}: {runs.in_words(error)}"
            del returned[run]
            yield (run, "failed", failure) if failure else (run, "done", "")


def _write(run, result, notebook, made_from, root):
    """The results file first and the note that all is done last: whatever is cut short is run again."""
    if result is not None:
        run.result(root).parent.mkdir(parents=True, exist_ok=True)
        runs.write_atomically(run.result(root), result)
    if notebook is not None:
        runs.write_atomically(run.notebook(root), notebook)
    if made_from is not None:
        many.mark_done(run, made_from, result is not None, root)


def _states(board, ray):
    """What the runs last said; nothing while the board is being started again."""
    try:
        return ray.get(board.read.remote(), timeout=5)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
        return {}


# On the nodes


class _Board:
    """Holds what the tries of each run said last."""

    def __init__(self):
        self.states = {}  # {name of a run: {id of a try: text}}

    def post(self, name, this_try, text):
        self.states.setdefault(name, {})[this_try] = text

    def read(self):
        return self.states


def _run_here(run, board, home):
    """Runs the notebook in this node's copy.

    Returns the results file's bytes, the executed notebook's text and the failure; None for what there is not.
    Raises Interrupted where it is to be tried again. home: the repository's root where the runs were asked for.
    """
    root = Path.cwd()
    with _telling(run, board, root):
        result, failure = None, None
        try:
            wrote = many.execute(run, root)
        except runs.Interrupted:
            raise
        except (runs.RunError, runs.ParameterError) as error:
            wrote, failure = run.as_evidence, str(error)  # the arms that it came to count
    if wrote:
        try:
            evidence.read(run.result(root))  # whole, or the run has failed
            result = run.result(root).read_bytes()
        except evidence.EvidenceError as error:
            failure = failure or str(error)
    notebook = run.notebook(root)
    text = notebook.read_text(encoding="utf-8").replace(str(root), home) if notebook.exists() else None
    return result, text, failure


def _telling(run, board, root):
    """Says on the board, every second, how far the run is, in a `with` block."""
    file, this_try = run.folder(root) / "progress.json", uuid.uuid4().hex
    where = f"on {socket.gethostname()}"

    def tell(stop):
        while True:
            try:
                state = json.loads(file.read_text())
                text = f"{state['n']}/{state['total']} {state['label']} {where}"
            except OSError:  # no such cell at present
                text = where
            board.post.remote(run.name, this_try, text)
            if stop.wait(1):
                return

    return beside(tell)


# The cluster


def _connect(address, root):
    """The module ray, connected to the cluster, with the repository and the library on the way to its nodes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise runs.ParameterError("cluster: must have Ray: pip install -r requirements-cluster.lock") from error
    _check_address(address)
    here = {
        "working_dir": str(root),
        "excludes": [".git", ".venv", "_build", "_runs"],
        "py_modules": [str(Path(__file__).parents[1])],
        "env_vars": {"PAPERWALK_COMMIT": json.dumps(evidence.commit(root))},
    }
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address or None,
            runtime_env=here,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"include_dashboard": False}),
        )
    except Exception as error:  # of many kinds: no cluster there, another version, a package too large
        raise runs.ParameterError(f"cluster = {address!r}: cannot be used: {error}") from error
    return ray


def _check_address(address):
    """Raises ParameterError unless what is there speaks HTTP/2, as Ray does; Ray itself would try for minutes."""
    if not address:
        return
    match = re.fullmatch(r"(?:ray://)?([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", address)
    if not match:
        raise runs.ParameterError(f"cluster = {address!r}: must be HOST:PORT or ray://HOST:PORT")
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=10) as peer:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS)
                speaks_http2 = peer.recv(9)[3:4] == EMPTY_SETTINGS[3:4]  # it answers with its own settings
                if not speaks_http2:
                    raise ConnectionError("what answers is not Ray")
    except (OSError, OverflowError) as error:
        raise runs.ParameterError(f"cluster = {address!r}: cannot be reached: {error}") from error


def _check_fits(run, asked, ray):
    """Raises ParameterError unless a node of the cluster has all that the run asks for."""
    has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [{"cpus": n.get("CPU", 0), "gpus": n.get("GPU", 0), "memory_gb": n.get("memory", 0) / 1e9} for n in has]
    if not any(all(node[name] >= amount for name, amount in asked.items()) for node in nodes):
        texts = [" ".join(f"{name}={amount:.3g}" for name, amount in some.items()) for some in [asked, *nodes]]
        raise runs.ParameterError(
            f"{run}: asks for {texts[0]}, and no node of the cluster has that ({'; '.join(sorted(set(texts[1:])))}); "
            "--resources asks for less"
        )
