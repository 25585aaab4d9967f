"""The repository's public address: for launch buttons, the citation file, and a cell that fetches the book on Colab."""

import json
import re
from pathlib import Path

from paperwalk.runs import ParameterError, chapters, notebook_path, write_atomically
from paperwalk.runs.files import resolve_root

CELL = "fetch-the-book"  # id of the cell
SOURCE = """# On Colab the book is not there yet: fetch it and install what it needs. Elsewhere this does nothing.
import importlib.util
import sys

if not importlib.util.find_spec("paperwalk"):
    !git clone --quiet --depth 1 --branch {branch} {url} paperwalk
    %pip install --quiet --editable "paperwalk[book,legal]"
    sys.path.insert(0, "paperwalk/lib")"""


def publish(url: str, branch: str = "main", root: Path | None = None) -> list[Path]:
    """Sets the address in _config.yml and CITATION.cff and puts a first code cell into each chapter; may be repeated.

    Returns the files changed. Raises ParameterError unless url is https://HOST/OWNER/NAME and branch a plain name.
    """
    root = resolve_root(root)
    url = url.rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", url):
        raise ParameterError(f"url = {url!r}: must be like https://github.com/OWNER/NAME")
    if not re.fullmatch(r"[\w./-]+", branch):
        raise ParameterError(f"branch = {branch!r}: must be the name of a branch")
    config, citation = root / "_config.yml", root / "CITATION.cff"
    settings, cited = (file.read_text(encoding="utf-8").rstrip("\n") for file in (config, citation))
    settings = re.sub(r"(repository_url: ).*", rf'\1"{url}"', settings)
    settings = re.sub(r"(repository_branch: ).*", rf"\1{branch}", settings)
    cited = re.sub(r"\nrepository-code: .*", "", cited)
    after = {config: f"{settings}\n", citation: f'{cited}\nrepository-code: "{url}"\n'}
    for chapter in chapters(root):
        file = notebook_path(chapter, root)
        after[file] = _with_cell(file, SOURCE.format(url=url, branch=branch))
    changed = [file for file, text in after.items() if file.read_text(encoding="utf-8") != text]
    for file in changed:
        write_atomically(file, after[file])
    return changed


def _with_cell(file: Path, source: str) -> str:
    """The notebook's text with the cell as its first code cell; tagged `report`, so that it measures nothing."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell.get("id") != CELL]
    first = next(number for number, cell in enumerate(cells) if cell["cell_type"] == "code")
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": CELL,
        "metadata": {"tags": ["report", "remove-cell"]},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
    notebook["cells"] = [*cells[:first], cell, *cells[first:]]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
