"""A chapter's measuring cells run one after the other in this process, without Jupyter: for a bare machine.

The cells, their parameters and the results file are those of `runs.execute`; cells tagged `report`, which only read
results, are left out. A cell that fails costs itself, the cells that read what it did not come to, and the results
file: the others still run, for what they measure is in the journal (`runs.progress`). Run as a program:
`python -m deploy.gpu.plain CHAPTER PROFILE SEED [OVERRIDES AS JSON]`. With PAPERWALK_HELD=1 it ends when its
standard input is closed, so that no run outlives who started it.
"""

import ast
import json
import os
import re
import signal
import symtable
import sys
import threading
import time
import traceback
import types
from pathlib import Path

from paperwalk.runs.execution import checkpoint_dir, environment, locked, refuse_dry_run
from paperwalk.runs.files import RunError, code_cells, resolve_root, tags_of
from paperwalk.runs.fingerprint import code_hash
from paperwalk.runs.parameters import defaults, notebook_path, validate

LEFT_OUT = {"report", "injected-parameters"}
WRITES = re.compile(r"\bexperiment\.write\(")


def execute_plain(
    chapter: str, profile: str, seed: int, overrides: dict | None = None, root: Path | None = None
) -> list[dict]:
    """Runs the cells that measure, as the program's own module; one {cell, seconds, first_line} each. It changes
    `__main__`, so it is for a process of its own.

    Functions of the cells can be sent to other processes: they are those of `__main__`. Raises ParameterError before
    anything runs, and at the end RunError naming the first cell that failed, if one did, and how many did after it.
    """
    injected = validate(chapter, profile, seed, overrides, root=root)
    refuse_dry_run(chapter, defaults(chapter, root) | injected)
    notebook = notebook_path(chapter, root)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    stand_in_for_jupyter()
    module.__dict__["display"] = sys.modules["IPython.display"].__dict__["display"]  # as a kernel has it
    folder = checkpoint_dir(chapter, defaults(chapter, root) | injected, root).parent
    taken: list[dict] = []
    failed: list[str] = []
    with (
        locked(folder),
        environment(
            PAPERWALK_ROOT=str(resolve_root(root)),
            PAPERWALK_CODE=code_hash(notebook),
            PAPERWALK_GUARDED="1",  # when one arm fails, the others beside it end first
        ),
    ):
        for number, cell in enumerate(code_cells(notebook), 1):
            if tags_of(cell) & LEFT_OUT:
                continue
            start, first_line = time.monotonic(), cell["source"].strip().split("\n")[0][:60]
            if failed and WRITES.search(cell["source"]):
                print(f"cell {number}: left out, for without the cells that failed there are no results", flush=True)
                continue
            before = {name: id(value) for name, value in module.__dict__.items()}
            try:
                _execute(cell["source"], f"{notebook.name}, code cell {number}", module.__dict__)
            except Exception as error:
                traceback.print_exc()
                failed.append(f"code cell {number} ({first_line}) failed: {error!r}")
                for name in names_bound(cell["source"]) & before.keys():
                    if id(module.__dict__.get(name)) == before[name]:  # no later cell is to take it for this cell's
                        del module.__dict__[name]
                continue
            if "parameters" in tags_of(cell):
                module.__dict__.update(injected)
            taken.append({"cell": number, "seconds": round(time.monotonic() - start, 2), "first_line": first_line})
            print(f"[{taken[-1]['seconds']:8.2f} s] cell {number}: {first_line}", flush=True)
    if failed:
        raise RunError(f"{chapter}: {failed[0]}" + f"; {len(failed) - 1} more failed" * (len(failed) > 1))
    return taken


def names_bound(source: str) -> set[str]:
    """Names of the module that a cell's code gives a value to, in functions only those declared global."""
    names, tables = set(), [symtable.symtable(source, "a cell", "exec")]
    for table in tables:
        for symbol in table.get_symbols():
            if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
                if table.get_type() == "module" or symbol.is_declared_global():
                    names.add(symbol.get_name())
        tables += table.get_children()
    return names


def _execute(source, name, namespace):
    """Runs a cell's code and prints the value of its last expression, as a notebook shows it."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        if value is not None:
            print(value, flush=True)


def stand_in_for_jupyter() -> None:
    """Where IPython or MyST-NB is not installed: a `display` that prints and a `glue` that does nothing."""
    try:
        import IPython.display  # noqa: F401
    except ImportError:
        package, part = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        part.__dict__["display"] = lambda *values, **options: print(*values, flush=True)
        package.__dict__["display"] = part
        sys.modules |= {"IPython": package, "IPython.display": part}
    try:
        import myst_nb  # noqa: F401
    except ImportError:
        package = types.ModuleType("myst_nb")
        package.__dict__["glue"] = lambda *given, **options: None
        sys.modules["myst_nb"] = package


def end_with_parent() -> None:
    """Kills this process, the first of its group, and those that it started once standard input is closed."""

    def watch():
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    chapter, profile, seed, *rest = arguments
    if os.environ.get("PAPERWALK_HELD") == "1":
        end_with_parent()
    try:
        execute_plain(chapter, profile, int(seed), json.loads(rest[0]) if rest else None)
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
