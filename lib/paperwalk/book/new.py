"""A new chapter, made from the template: it builds, passes the tests, and stands on the scoreboard as not measured."""

import re
from pathlib import Path

from paperwalk.runs import ParameterError, write_atomically
from paperwalk.runs.files import KERNELSPEC, resolve_root

TEMPLATE = Path(__file__).parent / "template"
NAME = "new_paper"  # what the chapter is called in the template
REFERENCE = """
@misc{new_paper,
  title = {Title of the paper},
  author = {Last, First},
  year = {2026},
  url = {https://arxiv.org/abs/0000.00000},
}
"""


def make(slug: str, root: Path | None = None) -> list[Path]:
    """Makes book/<slug>.ipynb and what belongs to it, and lists the chapter in _toc.yml and references.bib.

    Returns the files made or changed. Raises ParameterError, and leaves everything as it was, for a name that is taken
    or is not made of a-z, 0-9 and _; what fails later is taken back.
    """
    root = resolve_root(root)
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", slug):
        raise ParameterError(f"slug = {slug!r}: must be 2 to 40 of a-z, 0-9 and _, and begin with a letter")
    toc, references = root / "_toc.yml", root / "book" / "references.bib"
    before = {file: file.read_text(encoding="utf-8") for file in (toc, references)}
    if re.search(rf"file: book/{slug}$", before[toc], re.M) or f"{{{slug}," in before[references]:
        raise ParameterError(f"slug = {slug!r}: must be a new name, {toc.name} or {references.name} has it")
    after = _files(slug, root)
    for file in (*after, root / "book" / slug):
        if file.exists():
            raise ParameterError(f"slug = {slug!r}: must be a new name, {file.relative_to(root)} exists")
    after[references] = before[references].rstrip("\n") + "\n" + REFERENCE.replace(NAME, slug)
    after[toc] = _listed(slug, before[toc])
    try:
        for file, text in after.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text)
    except BaseException:
        _take_back(after, before, root / "book" / slug)
        raise
    return list(after)


def _files(slug: str, root: Path) -> dict[Path, str]:
    """{file to make: its text}; the notebook is the last, since it makes the folder a chapter."""
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(TEMPLATE.rglob("*")) if file.is_file()}
    places = {".yml": root / "book", ".svg": root / "book" / "_static" / "ideas"}
    made = {
        places[file.suffix] / str(file.relative_to(TEMPLATE)).replace(NAME, slug): text.replace(NAME, slug)
        for file, text in texts.items()
        if file.suffix in places
    }
    page = texts[TEMPLATE / f"{NAME}.md"].replace(NAME, slug)
    return made | {root / "book" / f"{slug}.ipynb": _notebook(page, slug)}


def _notebook(page: str, slug: str) -> str:
    """A page in MyST Markdown as the text of a notebook that has not run."""
    import jupytext
    import nbformat

    notebook = jupytext.reads(page, fmt="md:myst")
    notebook.metadata = {"kernelspec": KERNELSPEC}
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"{slug}-{number:02}"
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _listed(slug: str, toc: str) -> str:
    """The table of contents with the chapter before the page on speed, or at its end."""
    line = f"  - file: book/{slug}\n"
    return re.sub(r"(?=  - file: book/performance\n)|\Z", line, toc, count=1)


def _take_back(after, before, folder):
    for file in after:
        if file in before:
            write_atomically(file, before[file])
        else:
            file.unlink(missing_ok=True)
    for directory in (folder / "profiles", folder):
        if directory.exists():
            directory.rmdir()
