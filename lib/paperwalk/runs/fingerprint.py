"""What a run's results follow from: the code that measures, its parameters, and (`paperwalk.data.sources`) its data.

Code is compared by its syntax trees without docstrings, so that a comment or a line break changes nothing, and a
changed kernel changes every chapter whose notebook imports it, by whatever way.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from paperwalk.runs.files import code_cells, tags_of
from paperwalk.runs.parameters import notebook_path

PACKAGE = Path(__file__).parents[1]
# Rooms in which no outcome is made: they start runs, keep what these record, and show it
PLUMBING = {"book", "costs", "evidence", "experiment", "launch", "runs", "show"}
NOT_MEASURING = {"parameters", "injected-parameters", "report", "cost"}


def identity(chapter: str, parameters: dict, root: Path | None = None) -> str:
    """sha256 (hex) of the code that measures and the parameters."""
    text = code_hash(notebook_path(chapter, root)) + json.dumps(parameters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def measured_hash(notebook: Path | str) -> str:
    """sha256 (hex) of the notebook file's own code that measures: all but the parameters, `report` and `cost` cells."""
    return hashlib.sha256("\0".join(map(_as_text, _measuring(notebook))).encode()).hexdigest()


def code_hash(notebook: Path | str) -> str:
    """sha256 (hex) of the code that measures: the notebook's, and every module of the library that it comes to."""
    trees = {name: _module(name)[0] for name in modules(notebook)}
    return hashlib.sha256((measured_hash(notebook) + json.dumps(trees, sort_keys=True)).encode()).hexdigest()


def modules(notebook: Path | str) -> list[str]:
    """Names of the library's modules that the measuring cells come to through imports, sorted.

    An import counts where a measuring cell uses its name. Rooms of PLUMBING do not count.
    """
    cells = _measuring(notebook)
    used = {node.id for cell in cells for node in ast.walk(cell) if isinstance(node, ast.Name)}
    pending = {name for cell in cells for name in _imported(cell, used)}
    found: set[str] = set()
    while pending:
        name = pending.pop()
        found.add(name)
        pending |= _module(name)[1] - found
    return sorted(found)


def _module(name):
    """(the module's syntax tree as text, without docstrings; names of what it imports)."""
    file = _file(name)
    return _read(name, file, file.stat().st_mtime_ns, file.stat().st_size)


@cache
def _read(name, file, *stamp):
    tree = _parsed(file.read_text(encoding="utf-8"))
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _as_text(tree), frozenset(_imported(tree, package=package))


def _measuring(notebook):
    """The syntax trees of the cells that measure. Lines of IPython's own are left out."""
    trees = []
    for cell in code_cells(notebook):
        if not tags_of(cell) & NOT_MEASURING:
            try:
                trees.append(_parsed(cell["source"]))
            except SyntaxError:
                lines = (line for line in cell["source"].splitlines() if not line.lstrip().startswith(("%", "!")))
                trees.append(_parsed("\n".join(lines)))
    return trees


def _as_text(node):
    """A syntax tree as text, without what is empty: `ast.dump` differs between versions of Python in that."""
    if isinstance(node, ast.AST):
        fields = (f"{name}={_as_text(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_as_text, node))}]" if isinstance(node, list) else repr(node)


def _parsed(source):
    """The source's syntax tree, docstrings taken out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                del node.body[0]
    return tree


def _imported(tree, used=None, package=""):
    """Modules of the library that a syntax tree imports, with the packages around them; with `used`, of these names.

    package: the one that the tree's module lies in, for imports relative to it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [(alias.name, alias.asname or alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            named = [(f"{base}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for name, bound in named:
            parts = name.split(".")
            if (
                parts[0] != PACKAGE.name
                or (parts[1:2] and parts[1] in PLUMBING)
                or (used is not None and bound not in used)
            ):
                continue
            around = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
            yield from (module for module in around if _file(module).exists())


def _file(module):
    """The file of a module, or of a package its __init__."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
