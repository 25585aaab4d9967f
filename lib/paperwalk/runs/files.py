"""Notebook files and the repository that they lie in: reading, hashing, writing."""

import glob
import json
import os
import platform
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGETS = "application/vnd.jupyter.widget-state+json"
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class RunError(RuntimeError):
    """A notebook did not run to its end; one line names the notebook, the cell and the error."""


class Interrupted(RunError):
    """A run ended for a cause outside its code, a killed kernel or a full disk: it may go better the next time."""


def _find_root():
    """The folder that PAPERWALK_ROOT names, else the book around the current folder, else the one around this file.

    Where there is none the current folder stands for it, in which `parameters.chapters` finds no book and says so.
    """
    if named := os.environ.get("PAPERWALK_ROOT"):
        return Path(named).resolve()
    places = [*_upwards(), Path(__file__).resolve().parents[3]]
    found = (place for place in places if (place / "_toc.yml").is_file() and (place / "book").is_dir())
    return next(found, places[0])


def _upwards():
    """The current folder and those above it; none where it has been removed."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return []
    return [here, *here.parents]


ROOT: Path = _find_root()


def resolve_root(root: Path | str | None) -> Path:
    """The repository's root: the one given, or for None the default."""
    return Path(ROOT if root is None else root).resolve()


def read_notebook(notebook: Path | str) -> dict:
    """The notebook file as plain JSON, each cell's source as one string (importing nbformat is slow)."""
    content = json.loads(Path(notebook).read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
    return content


def code_cells(notebook: Path | str) -> list[dict]:
    """The code cells of a notebook file, as plain JSON."""
    return [cell for cell in read_notebook(notebook)["cells"] if cell["cell_type"] == "code"]


def tags_of(cell: dict) -> set[str]:
    """The tags of a cell, of either form."""
    return set(cell["metadata"].get("tags", []))


def sources_of(notebook: Path | str, wanted: Callable[[set[str]], object]) -> bytes:
    """The sources of the code cells whose set of tags is `wanted`, as bytes; each ends in a zero byte."""
    chosen = [cell["source"] for cell in code_cells(notebook) if wanted(tags_of(cell))]
    stripped = ("\n".join(line.rstrip() for line in source.splitlines()).rstrip() for source in chosen)
    return "".join(f"{source}\0" for source in stripped).encode()


def cited(notebook: Path | str) -> list[str]:
    """The names that the notebook file's text cites with the role glue:text, sorted, each once."""
    text = "\n".join(cell["source"] for cell in read_notebook(notebook)["cells"] if cell["cell_type"] == "markdown")
    return sorted(set(re.findall(r"\{glue:text\}`([^`:]+)", text)))


def save_notebook(notebook: "NotebookNode", target: Path, root: Path | None) -> None:
    """Writes the notebook without warnings (stderr), colour codes, this machine's paths and widgets not shown."""
    import nbformat

    notebook.metadata.kernelspec = KERNELSPEC  # papermill wants the language, editors drop it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            said = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = _clean(said, resolve_root(root))
    _prune_widgets(notebook)
    write_atomically(target, nbformat.writes(notebook).rstrip("\n") + "\n")


def _clean(value, root):
    if isinstance(value, str):
        relative = ANSI.sub("", value).replace(f"{root}/", "")
        return re.sub(re.escape(str(root)) + r"(?![\w.-])", ".", relative)
    if isinstance(value, list):
        return [_clean(item, root) for item in value]
    if isinstance(value, dict):
        return type(value)({key: _clean(item, root) for key, item in value.items()})
    return value


def _prune_widgets(notebook):
    """Keeps the models that outputs show and all connected with them, in either direction (jslinks)."""
    if WIDGETS not in notebook.metadata.get("widgets", {}):
        return
    models = notebook.metadata.widgets[WIDGETS]["state"]
    points_at = {name: set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(model))) for name, model in models.items()}
    outputs = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    kept = set(re.findall(r'"model_id": "(\w+)"', outputs)) & set(models)
    more = kept
    while more:
        kept |= more
        neighbours = set().union(*(points_at[name] for name in kept)) & set(models)
        neighbours |= {name for name in models if points_at[name] & kept}
        more = neighbours - kept
    notebook.metadata.widgets[WIDGETS]["state"] = {name: models[name] for name in sorted(kept)}
    if not kept:
        del notebook.metadata["widgets"]


def in_words(error: OSError) -> str:
    """What is wrong, and with which file where that is known."""
    return f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Writes bytes, or text as UTF-8, so that whoever reads `path` finds the old file or the new one, never a part.

    What a process of this machine left that was killed in the middle of writing `path` is removed.
    """
    path = Path(path)
    ours = f".{path.name}.{platform.node()},"  # no machine's name has a comma, so it is no other's
    for left in path.parent.glob(f"{glob.escape(ours)}*.tmp"):
        import psutil

        if not psutil.pid_exists(int(left.name.split(",")[-2])):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{ours}{os.getpid()},{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say where
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
