"""What results follow from: the code that measures, wherever it lies, and none of what only starts or shows it."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from paperwalk import runs
from paperwalk.runs import fingerprint

TRAINED = {"goldfish", "rest", "searchformer", "transformer_fam"}
MEASURED_WITH = {
    "kernels/goldfish_mask/torch_impl.py": {"goldfish"},
    "kernels/fam_scan/torch_impl.py": {"transformer_fam"},
    "kernels/astar/numba_impl.py": {"searchformer"},
    "papers/rest/clues.py": {"rest"},
    "training/loop.py": TRAINED,
    "models/decoder.py": TRAINED | {"legal_rag"},
    "data/corpora.py": {"goldfish", "legal_rag", "rest", "transformer_fam"},
    "evidence/intervals.py": set(),
    "launch/many.py": set(),
    "show/tables.py": set(),
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A copy of the library, and a folder of copies of the chapters' notebooks."""
    folder = tmp_path_factory.mktemp("copies")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(fingerprint.PACKAGE, folder / "paperwalk", ignore=ignored)
    for chapter in runs.chapters():
        shutil.copy(runs.notebook_path(chapter), folder)
    return folder


@pytest.fixture
def hashes(copies, monkeypatch):
    """hashes() -> {chapter: (measured_hash, code_hash)} of the copies as they are."""
    monkeypatch.setattr(fingerprint, "PACKAGE", copies / "paperwalk")
    return lambda: {file.stem: (runs.measured_hash(file), runs.code_hash(file)) for file in copies.glob("*.ipynb")}


@pytest.fixture
def edited(copies):
    """edited(file, text) rewrites one of the copies, until the test ends."""
    before = {}

    def edit(name, text):
        file = copies / name
        if file not in before:
            before[file] = file.read_text(), file.stat()
        assert text != file.read_text()
        file.write_text(text)

    yield edit
    for file, (text, stat) in before.items():
        file.write_text(text)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def reworded(source):
    """The same code: docstrings in other words, or where there were none; comments; line breaks."""
    told = source.splitlines(keepends=True)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for node in sorted(nodes, key=lambda node: -node.lineno):
        first = node.body[0]
        if first.lineno == node.lineno:  # all in one line
            continue
        indent, line = (
            " " * first.col_offset,
            min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))]),
        )
        if ast.get_docstring(node) is None:
            told.insert(line - 1, f'{indent}"""Said here first."""\n')
        else:
            told[line - 1] = told[line - 1].replace('"""', '"""In other words. ', 1)
    text = re.sub(
        r"^( *def \w+\()(?=\w)", r"\1  # a comment, and a line break\n            ", "".join(told), flags=re.M
    )
    return f"# what follows is as it was\n\n\n{text}\n# to here\n"


def recomputed(source):
    """Other code: the first whole number within a function is one more."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    numbers = (node for function in functions for part in function.body for node in ast.walk(part))
    numbers = [node for node in numbers if isinstance(node, ast.Constant) and type(node.value) is int]
    number, told = min(numbers, key=lambda node: (node.lineno, node.col_offset)), source.splitlines(keepends=True)
    line = told[number.lineno - 1].encode()
    changed = line[: number.col_offset] + str(number.value + 1).encode() + line[number.end_col_offset :]
    return "".join([*told[: number.lineno - 1], changed.decode(), *told[number.lineno :]])


@pytest.mark.parametrize("module", MEASURED_WITH)
def test_other_words_in_a_module_change_no_hash(copies, hashes, edited, module):
    before = hashes()
    edited(f"paperwalk/{module}", reworded((copies / "paperwalk" / module).read_text()))
    assert hashes() == before


@pytest.mark.parametrize("module", MEASURED_WITH)
def test_another_expression_in_a_module_changes_the_hash_of_the_chapters_that_import_it(copies, hashes, edited, module):
    before = hashes()
    assert before.keys() == TRAINED | {"legal_rag"}
    edited(f"paperwalk/{module}", recomputed((copies / "paperwalk" / module).read_text()))
    after = hashes()
    assert {chapter for chapter in before if after[chapter][1] != before[chapter][1]} == MEASURED_WITH[module]
    assert all(after[chapter][0] == before[chapter][0] for chapter in before)  # no notebook was changed


def cells_edited(file, change, wanted):
    """The notebook's text with the code cells changed whose tags are wanted; how many there are."""
    notebook, count = nbformat.read(file, as_version=4), 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and wanted(set(cell.metadata.get("tags", []))):
            try:
                ast.parse(cell.source)
            except SyntaxError:  # a line of IPython's own
                continue
            cell.source, count = change(cell.source), count + 1
    return nbformat.writes(notebook), count


@pytest.mark.parametrize("chapter", runs.chapters())
def test_other_words_in_a_notebooks_cells_change_no_hash(copies, hashes, edited, chapter):
    before, file = hashes(), copies / f"{chapter}.ipynb"
    text, count = cells_edited(file, reworded, lambda tags: True)
    edited(file.name, text)
    assert count > 20 and hashes() == before
    text, count = cells_edited(file, lambda source: f"{source}\nmore = 1", lambda tags: tags & {"report", "cost"})
    edited(file.name, text)
    assert count > 1 and hashes() == before  # which measure nothing


@pytest.mark.parametrize("chapter", runs.chapters())
def test_another_expression_in_a_cell_changes_the_chapters_hashes_alone(copies, hashes, edited, chapter):
    before, file = hashes(), copies / f"{chapter}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    cell = next(cell for cell in notebook.cells if re.search(r"^def .*:\n(    .*\n)*    .*\b\d", cell.source, re.M))
    cell.source = recomputed(cell.source)
    edited(file.name, nbformat.writes(notebook))
    after = hashes()
    assert {chapter for chapter in before if after[chapter] != before[chapter]} == {chapter}
    assert not set(after[chapter]) & set(before[chapter])


def test_only_lines_of_ipythons_own_are_left_out(tmp_path):
    def hashed(source):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / "a.ipynb")
        return runs.measured_hash(tmp_path / "a.ipynb")

    assert hashed("%matplotlib inline\nx = 1") == hashed("!ls\nx = 1") == hashed("x = 1")
    lines = ["x = (\n    9\n    % 2\n)", "x = (\n    9\n    % 4\n)", 'x = """\n%s"""', 'x = """\n%d"""']
    assert len(set(map(hashed, lines))) == 4  # these are Python's


def test_what_a_syntax_tree_leaves_empty_does_not_count():
    """As versions of Python differ in which of it there is."""
    told = fingerprint._as_text(ast.parse("def f(x, *y: int, z=None):\n    return {**y, 'a': []}"))
    assert "=[]" not in told and "=None" not in told
    assert told != fingerprint._as_text(ast.parse("def f(x, *y: int, z=None):\n    return {**y, 'a': [0]}"))


def test_an_import_counts_by_whatever_way_it_comes(tmp_path, monkeypatch):
    files = {
        "__init__": "",
        "used/__init__": "from .inner import f",
        "used/inner": "from . import beside\nfrom ..far.deep import g\ndef f():\n    import paperwalk.late",
        "used/beside": "from paperwalk.runs import progress",
        "used/unused": "",
        "far/__init__": "",
        "far/deep": "g = 1",
        "late": "from paperwalk import launch, last as x",
        "last": "",
        "runs": "import paperwalk.only_run",
        "only_run": "",
        "launch/__init__": "",
        "reported": "",
    }
    for name, text in files.items():
        file = tmp_path / "paperwalk" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    cells = [("from paperwalk import used, reported", []), ("used.f()", []), ("reported.show()", ["report"])]
    made = [nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), tmp_path / "a.ipynb")
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "paperwalk")
    found = fingerprint.modules(tmp_path / "a.ipynb")
    wanted = ["far", "far.deep", "last", "late", "used", "used.beside", "used.inner"]
    assert found == ["paperwalk", *(f"paperwalk.{name}" for name in wanted)]


# Imports the modules named on its input; what was loaded, and which module asked for which.
PROBE = """
import builtins, importlib, importlib.util, json, sys
asked, ordinary = [], builtins.__import__
def noting(name, globals=None, locals=None, fromlist=(), level=0):
    module = ordinary(name, globals, locals, fromlist, level)
    whole = importlib.util.resolve_name("." * level + name, globals["__package__"]) if level else name
    asked.extend(((globals or {}).get("__name__"), n) for n in [whole, *(f"{whole}.{each}" for each in fromlist or ())])
    return module
builtins.__import__ = noting
for name in json.load(sys.stdin):
    importlib.import_module(name)
loaded = [name for name in sys.modules if name.split(".")[0] == "paperwalk"]
print(json.dumps([loaded, [[by, name] for by, name in asked if name in loaded]]))
"""


@pytest.mark.full
@pytest.mark.parametrize("chapter", runs.chapters())
def test_nothing_that_measures_is_missed(chapter):
    """What else the listed modules load is plumbing, or was asked for by plumbing and by what only that loads."""
    listed = fingerprint.modules(runs.notebook_path(chapter))
    env = {name: value for name, value in os.environ.items() if not name.startswith("PAPERWALK")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input=json.dumps(listed), env=env, cwd=runs.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded, asked = json.loads(done.stdout)

    def missed(listed):
        plumbing = lambda name: name.split(".")[1] in fingerprint.PLUMBING
        rest = [name for name in loaded if name not in listed and not plumbing(name)]
        by = {name: {who for who, what in asked if f"{what}.".startswith(f"{name}.")} for name in rest}
        return [name for name in rest if not by[name] or by[name] & set(listed)]

    assert set(listed) <= set(loaded) and missed(listed) == []
    assert missed(set(listed) - {"paperwalk.models.layers"}) == ["paperwalk.models.layers"]  # it would be seen
