"""What the book shows, whether it is fresh, and bringing it up to date."""

import hashlib
from pathlib import Path

from paperwalk import evidence
from paperwalk.runs.execution import TIMEOUT, environment, kernel_config
from paperwalk.runs.files import (
    ANSI,
    KERNELSPEC,
    WIDGETS,
    RunError,
    cited,
    read_notebook,
    resolve_root,
    save_notebook,
    sources_of,
    tags_of,
)
from paperwalk.runs.fingerprint import measured_hash
from paperwalk.runs.parameters import chapters, defaults, notebook_path, read_mapping

DRAWN_BY = ("evidence", "show")  # rooms that make what report cells show, beside a chapter's own
SOURCES = (".py", ".css", ".js", ".html")


def notebooks(root: Path | None = None) -> list[Path]:
    """The notebooks of _toc.yml, in its order."""
    root = resolve_root(root)

    def pages(node):
        if isinstance(node, list):
            for child in node:
                yield from pages(child)
        elif isinstance(node, dict):
            for key, child in node.items():
                yield from [child] if key in ("root", "file") else pages(child)

    files = [root / f"{page.removesuffix('.ipynb')}.ipynb" for page in pages(read_mapping(root / "_toc.yml"))]
    return [file for file in files if file.exists()]


def reported_hash(notebook: Path | str, root: Path | None = None) -> str:
    """sha256 (hex) of all that report cells show: their, the `setup` cells' and the library's code, names cited,
    claims, self-tests, results, and which of the evidence is fresh.

    A chapter's notebook shows its own folder's files and the benchmarks' that these cells name, any other notebook
    those of all chapters, all benchmarks' and the report of the fault tests.
    """
    root = resolve_root(root)
    sources = sources_of(notebook, lambda tags: tags & {"setup", "report"})
    digest = hashlib.sha256(sources)
    digest.update(" ".join(cited(notebook)).encode())
    library, known = Path(__file__).parents[1], chapters(root)
    rooms = [*DRAWN_BY, *(f"papers/{chapter}" for chapter in known if chapter == Path(notebook).stem)]
    drawn_by = (file for room in rooms for file in library.glob(f"{room}/**/*"))
    for file in sorted(file for file in drawn_by if file.suffix in SOURCES):
        digest.update(file.read_bytes())
    for chapter in [Path(notebook).stem] if Path(notebook).stem in known else known:
        folder = root / "book" / chapter
        for file in [
            *folder.glob("claims.yml"),
            *folder.glob("self_test.yml"),
            *sorted(folder.glob("results/**/*.parquet")),
        ]:
            digest.update(f"\0{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
        measured = [run for scale in evidence.SCALES for run in evidence.load(folder.name, scale, root)]
        digest.update(str([evidence.is_fresh(run, root) for run in measured]).encode())
    others = [*sorted(root.glob("benchmarks/results/*.csv")), *root.glob("book/reliability/report.json")]
    for file in others:
        if Path(notebook).stem not in known or f"tables.{file.stem}(".encode() in sources:
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def stale(notebook: Path | str, root: Path | None = None) -> str | None:
    """What of the notebook is out of date: "measured" (run it), "reported" (refresh it) or None."""
    notebook = resolve_root(root) / notebook
    recorded = read_notebook(notebook)["metadata"].get("paperwalk", {})
    if notebook.stem in chapters(root):
        measured = recorded.get("measured") == measured_hash(notebook)
        if not measured or recorded.get("parameters") != defaults(notebook.stem, root):
            return "measured"
    return "reported" if recorded.get("reported") != reported_hash(notebook, root) else None


def promote(chapter: str, executed: Path, root: Path | None = None) -> Path:
    """Makes an executed notebook the chapter's, without papermill's additions; returns the chapter's path.

    Its report cells ran before its own evidence was written, so it is stale ("reported") until `refresh`.
    Raises RunError, and writes nothing, when the chapter's notebook was changed since the run.
    """
    import nbformat

    target = notebook_path(chapter, root)
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in tags_of(cell)]
    current = nbformat.read(target, as_version=4)
    if [cell.source for cell in notebook.cells] != [cell.source for cell in current.cells]:
        raise RunError(f"{chapter}: {target.name} was changed during its run and is left as it is; run it again")
    for part in [notebook, *notebook.cells]:
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
        if not part.metadata.get("tags", True):  # papermill adds empty ones
            del part.metadata["tags"]
    identity = {"measured": measured_hash(target), "parameters": defaults(chapter, root)}
    notebook.metadata.paperwalk = identity | {"reported": None}
    save_notebook(notebook, target, root)
    return target


def refresh(notebook: Path | str, root: Path | None = None) -> None:
    """Runs only the `setup` and `report` cells, in a new kernel, and puts the report cells' outputs in place.

    Everything else stays as it is. Raises RunError, and writes nothing, when a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    root = resolve_root(root)
    target = root / notebook
    before, reported = target.read_bytes(), reported_hash(target, root)
    whole = nbformat.read(target, as_version=4)
    numbered = enumerate([cell for cell in whole.cells if cell.cell_type == "code"], 1)
    chosen = [(n, cell) for n, cell in numbered if {"setup", "report"} & tags_of(cell)]
    part = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.source) for _, cell in chosen],
        metadata={"kernelspec": KERNELSPEC},
    )
    client = NotebookClient(
        part,
        timeout=TIMEOUT,
        kernel_name=KERNELSPEC["name"],
        resources={"metadata": {"path": str(root)}},
        config=kernel_config(),
    )
    try:
        with environment(PAPERWALK_ROOT=str(root)):
            client.execute()
    except (CellExecutionError, TimeoutError, RuntimeError) as error:
        ran = [n for (n, _), cell in zip(chosen, part.cells) if cell.outputs or cell.execution_count]
        what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        what = " ".join(ANSI.sub("", what).split())
        where = f"code cell {ran[-1]}" if ran else "its kernel"
        raise RunError(f"{target.stem}: {where} failed: {what}") from error
    for (_, cell), ran in zip(chosen, part.cells):
        if "report" in tags_of(cell):
            cell.execution_count = cell.execution_count or ran.execution_count
            cell.outputs = ran.outputs
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    if WIDGETS in part.metadata.get("widgets", {}):
        models = part.metadata.widgets[WIDGETS]
        kept = whole.metadata.setdefault("widgets", {}).get(WIDGETS, {}).get("state", {})
        whole.metadata.widgets[WIDGETS] = models | {"state": kept | models["state"]}
    whole.metadata.paperwalk = whole.metadata.get("paperwalk", {}) | {"reported": reported}
    if target.read_bytes() != before:
        raise RunError(f"{target.stem}: {target.name} was changed meanwhile and is left as it is; try again")
    save_notebook(whole, target, root)
