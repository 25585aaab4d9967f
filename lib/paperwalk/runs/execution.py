"""Running a chapter's notebook with papermill, with progress and checkpoints."""

import json
import logging
import math
import os
import shlex
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from paperwalk.data import sources
from paperwalk.runs.files import (
    ANSI,
    KERNELSPEC,
    Interrupted,
    RunError,
    code_cells,
    in_words,
    resolve_root,
    tags_of,
    write_atomically,
)
from paperwalk.runs.fingerprint import code_hash, identity
from paperwalk.runs.parameters import (
    ParameterError,
    defaults,
    notebook_path,
    profile_file,
    profile_values,
    run_name,
    validate,
)

if TYPE_CHECKING:
    from traitlets.config import Config

SOURCES = "sources.jsonl"  # in a run's folder of checkpoints: what it has read
SCRATCH = "PAPERWALK_SCRATCH"  # where a notebook is not run but counted: its folder, in place of the run's own
TIMEOUT = 3600  # seconds that one cell may take


def work_dir(chapter: str, profile: str, seed: int, root: Path | None = None, overrides: dict | None = None) -> Path:
    """Folder for a run's executed notebook and checkpoints, `_runs/<chapter>/<run_name>`; made if need be."""
    return _folder(chapter, profile_values(chapter, profile, root) | {"seed": seed} | (overrides or {}), root)


def _folder(chapter, parameters, root):
    folder = resolve_root(root) / "_runs" / chapter / run_name(chapter, parameters, root)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkpoint_dir(chapter: str, parameters: dict, root: Path | None = None) -> Path:
    """Folder for the checkpoints of a run with these parameters (profile and seed among them) and the present code.

    Another `identity` means another folder, and what was trained on data that have changed since is removed: a run
    never goes on from a stranger's checkpoint.
    """
    folder = _folder(chapter, parameters, root) / f"checkpoints-{identity(chapter, parameters, root)[:12]}"
    if sources.changed(sources.read(folder / SOURCES), resolve_root(root)):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a run's folder for this process; the lock of a process that has ended, however it did, is no lock.

    Raises RunError naming the process that holds it.
    """
    import filelock

    lock, owner = filelock.FileLock(folder / ".lock"), folder / ".owner"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        other = owner.read_text() if owner.exists() else "another"
        raise RunError(
            f"{folder.parent.name} {folder.name}: process {other} is running it; wait for its end"
        ) from error
    try:
        write_atomically(owner, f"{os.getpid()}")
        yield
    finally:
        lock.release()


def execute(
    chapter: str,
    profile: str,
    seed: int,
    overrides: dict | None = None,
    timeout: int = TIMEOUT,
    root: Path | None = None,
) -> Path:
    """Runs the chapter's notebook with papermill; path of the executed notebook, in `work_dir`.

    `timeout` in seconds, a cell. Prints the plain papermill command it stands for; bars on stderr show the
    cells and, within a cell, `progress`. Raises ParameterError before anything is written, and RunError when
    a cell fails or another process runs the same: Interrupted where the kernel was killed or the disk is full.
    """
    injected = validate(chapter, profile, seed, overrides, root=root)
    refuse_dry_run(chapter, defaults(chapter, root) | injected)
    source = notebook_path(chapter, root)
    try:
        folder = work_dir(chapter, profile, seed, root, overrides)
        with locked(folder):
            _run_papermill(source, folder / source.name, injected, overrides or {}, timeout, resolve_root(root))
    except OSError as error:  # of this process; a cell's own is told below
        raise Interrupted(f"{chapter} {profile} seed {seed}: {in_words(error)}") from error
    return folder / source.name


def refuse_dry_run(chapter: str, parameters: dict) -> None:
    """Raises ParameterError where `dry_run` is true: what such a profile would cost is counted, and nothing is run."""
    if parameters.get("dry_run") is True:
        profile = parameters["profile"]
        raise ParameterError(
            f"dry_run = true: {chapter} at {profile} is costed, not run (python -m paperwalk plan {chapter} "
            f"--profile {profile}); --set dry_run=false runs it"
        )


def _run_papermill(source, executed, injected, overrides, timeout, root):
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from papermill.iorw import LocalHandler, papermill_io

    chapter, profile, seed = source.stem, injected["profile"], injected["seed"]
    files = (source, executed, profile_file(chapter, profile, root))
    book, result, values = (file.relative_to(root).as_posix() for file in files)
    rest = yaml.safe_dump({"seed": seed} | overrides, default_flow_style=True, width=math.inf).strip()
    command = ["papermill", book, result, "-f", values, "-y", rest, "--execution-timeout", str(timeout)]
    print(shlex.join(command), flush=True)

    class Whole(LocalHandler):
        def write(self, buf, path):  # papermill's own, after each cell, can leave half a notebook
            write_atomically(path, buf)

    papermill_io.register(str(executed), Whole())
    # it warns of parameters that share a line, which it does not see, and `check` has checked them all
    logging.getLogger("papermill").setLevel(logging.ERROR)
    progress_file = executed.with_name("progress.json")
    progress_file.unlink(missing_ok=True)
    try:
        with (
            environment(
                PAPERWALK_ROOT=str(root),
                PAPERWALK_PROGRESS=str(progress_file),
                PAPERWALK_CODE=code_hash(source),  # what runs, should the file change meanwhile
            ),
            _live_bar(progress_file),
        ):
            papermill.execute_notebook(
                source,
                executed,
                injected,
                kernel_name=KERNELSPEC["name"],
                language=KERNELSPEC["language"],
                progress_bar={"desc": f"{chapter} {profile} seed {seed}"},
                cwd=root,
                execution_timeout=timeout,
                config=kernel_config(),
            )
    except PapermillExecutionError as error:
        kind = Interrupted if error.ename == "OSError" else RunError  # a full disk
        raise _run_error(executed, f"{error.ename}: {error.evalue}", root, kind) from error
    except TimeoutError as error:
        raise _run_error(executed, f"it took longer than {timeout} s", root) from error
    except RuntimeError as error:  # the kernel died, or did not start
        raise _run_error(executed, f"{error} (out of memory?)", root, Interrupted) from error
    finally:
        progress_file.unlink(missing_ok=True)


def progress(iterable: Iterable, total: int, label: str) -> Iterator:
    """Yields the items of `iterable` and shows how many of `total` are done, as tqdm does.

    In a kernel that `execute` started, nothing is printed (it would stay in the notebook): after each item
    {"label", "n", "total"} goes to the file that PAPERWALK_PROGRESS names, and `execute` shows it.
    Each item is also a line of the file that PAPERWALK_JOURNAL names, so that what was measured is kept when a run ends
    early: {"label", "n", "total", "seconds", "item"} (or "failed": why), large arrays by their shape.
    Raises RunError after the last item where some are `Failed`: the others have been measured by then.
    """
    items = _kept(iterable, total, label) if "PAPERWALK_JOURNAL" in os.environ else iterable
    items = _measured(items, label)
    file = os.environ.get("PAPERWALK_PROGRESS")
    if not file:
        from tqdm.auto import tqdm

        yield from tqdm(items, total=total, desc=label, disable="PAPERWALK_JOURNAL" in os.environ)
        return
    for n, item in enumerate(items):
        write_atomically(file, json.dumps({"label": label, "n": n, "total": total}))
        yield item
    write_atomically(file, json.dumps({"label": label, "n": total, "total": total}))


def _measured(items, label):
    """Yields the items that did not fail; then raises RunError for those that did."""
    failed = []
    for item in items:
        if isinstance(item, Failed):
            failed.append(item)
        else:
            yield item
    if failed:
        raise RunError(f"{label}: {len(failed)} failed: {'; '.join(failed)}")


class Failed(str):
    """In the place of an item that was not measured: why."""


class Guarded:
    """A function of joblib's `delayed` that gives `Failed` for what it raises, so that the other calls end first."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *given, **named):
        try:
            return self.function(*given, **named)
        except Exception as error:
            traceback.print_exc()
            return Failed(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _kept(iterable, total, label):
    """Yields the items once they stand in the journal: a whole line each, on the disk."""
    start = time.monotonic()
    for n, item in enumerate(iterable, 1):
        row = dict(label=label, n=n, total=total, seconds=round(time.monotonic() - start, 2))
        row |= {"failed": item} if isinstance(item, Failed) else {"item": item}
        line = json.dumps(row, default=_in_json) + "\n"
        with open(os.environ["PAPERWALK_JOURNAL"], "a+b", buffering=0) as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":  # a line that a kill cut off
                line = f"\n{line}"
            file.write(line.encode())
            os.fsync(file.fileno())
        yield item


def _in_json(value):
    """What a journal keeps of what JSON has not: arrays up to 1,000 numbers, fields of dataclasses, else the type."""
    if hasattr(value, "tolist"):
        size = value.numel() if hasattr(value, "numel") else value.size
        return value.tolist() if size <= 1000 else {"shape": list(value.shape)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {"type": type(value).__name__}


def kernel_config() -> "Config":
    """Encrypts the talk with the kernel where that can be had; without it each kernel prints a warning."""
    import zmq
    from traitlets.config import Config

    return Config(KernelManager={"transport_encryption": "auto" if zmq.has("curve") else "disabled"})


def _run_error(executed, what, root, kind=RunError):
    """A RunError for the last cell that papermill ended in the notebook saved at `executed`."""
    cells = [cell for cell in code_cells(executed) if "injected-parameters" not in tags_of(cell)]
    ended = [n for n, cell in enumerate(cells, 1) if cell["metadata"].get("papermill", {}).get("end_time")]
    where = "its kernel"
    if ended:
        first_line = cells[ended[-1] - 1]["source"].strip().split("\n")[0]
        where = f"code cell {ended[-1]} ({first_line[:60]})"
    what = " ".join(ANSI.sub("", what).split())
    part = executed.relative_to(root).as_posix()
    return kind(f"{executed.stem}: {where} failed: {what}; what ran until then is in {part}")


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Sets environment variables, which kernels started in the block inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def beside(watch: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `watch(stop)` in a thread beside the block; `stop` is set at the block's end, which waits for it."""
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _live_bar(file):
    """Shows on stderr, under papermill's bar, the state that `progress` writes to `file`, in a `with` block."""
    from tqdm import tqdm

    def watch(stop):
        bar = None
        while not stop.wait(0.3):
            try:
                state = json.loads(file.read_text())
            except OSError:  # no such cell yet
                continue
            if bar is not None and (state["label"] != bar.desc or state["n"] >= state["total"]):
                bar.close()
                bar = None
            if bar is None and state["n"] < state["total"]:
                bar = tqdm(total=state["total"], desc=state["label"], position=1, leave=False, file=sys.stderr)
            if bar is not None:
                bar.n = state["n"]
                bar.refresh()
        if bar is not None:
            bar.close()

    return beside(watch)
