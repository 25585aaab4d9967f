"""The library's types: mypy finds no error, and what is public says its types."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from paperwalk import runs

LIBRARY = runs.ROOT / "lib" / "paperwalk"
# Decorators of numba's and Triton's functions, which know other types
COMPILED = {"compiled", "inlined", "njit", "jit"}


def test_mypy():
    """By the settings of pyproject.toml; a minute without a cache, seconds with one."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=runs.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


def test_public_functions_are_annotated():
    files = [*LIBRARY.rglob("*.py"), *(runs.ROOT / "deploy").rglob("*.py")]
    found = [f"{file.relative_to(runs.ROOT)}:{where}" for file in files for where in unannotated(file)]
    assert not found, f"{len(found)} of them:\n" + "\n".join(sorted(found))


def unannotated(file) -> Iterator[str]:
    """LINE NAME of each public function or method that lacks the type of a parameter or of what it returns."""
    for function, is_method in public(ast.parse(file.read_text(encoding="utf-8"))):
        decorators = {part.split("(")[0].split(".")[-1] for part in map(ast.unparse, function.decorator_list)}
        if decorators & COMPILED:
            continue
        given = function.args
        parameters = [*given.posonlyargs, *given.args]
        parameters = parameters[is_method and "staticmethod" not in decorators :]  # without self or cls
        parameters += [*given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
        if function.returns is None or any(parameter.annotation is None for parameter in parameters):
            yield f"{function.lineno} {function.name}"


def public(tree, in_class=False) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """(function, whether it is a method) of each whose name, and whose class's name, begins with no underscore."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                yield node, in_class
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield from public(node, True)
        else:
            yield from public(node, in_class)


@pytest.mark.parametrize(
    "source, found",
    [
        ("def f(x): ...", ["1 f"]),
        ("def f(x: int): ...", ["1 f"]),
        ("def f(x: int, *rest) -> int: ...", ["1 f"]),
        ("async def f(*, x) -> int: ...", ["1 f"]),
        ("if True:\n    def f(): ...", ["2 f"]),
        ("class A:\n    def f(self, x) -> int: ...", ["2 f"]),
        ("class A:\n    @staticmethod\n    def f(x) -> int: ...", ["3 f"]),
        ("class A:\n    @classmethod\n    def f(cls, x: int) -> int: ...", []),
        ("class A:\n    class B:\n        def f(self): ...", ["3 f"]),
        ("class A:\n    def __init__(self, x): ...", []),
        ("class _A:\n    def f(self): ...", []),
        ("def f() -> None:\n    def inner(x): ...", []),
        ("@triton.jit\ndef f(x): ...", []),
        ("@njit(cache=True)\ndef f(x): ...", []),
    ],
)
def test_what_counts_as_annotated(tmp_path, source, found):
    file = tmp_path / "module.py"
    file.write_text(source)
    assert list(unannotated(file)) == found
