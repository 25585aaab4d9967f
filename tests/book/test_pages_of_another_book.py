"""The pages that show evidence take the repository that it comes from as a parameter."""

import shutil

import papermill
import pytest
import yaml

from paperwalk import runs
from paperwalk.book import freshness

pytestmark = pytest.mark.full

CHAPTERS = ["another", *runs.chapters()]
PAGES = [page for page in freshness.notebooks() if page.stem not in CHAPTERS]
CLAIM = {"id": "first", "claim": "the sky falls", "source": "paper", "where": "table 1", "section": "sky"}
CLAIM |= {"paper": "yes", "not_measured": "it would hurt"}
SHOWN = {"intro": f"{len(CHAPTERS)} claims", "scoreboard": f"{len(CHAPTERS)} claims", "status": "0 results files"}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Our chapters and one more, each of which claims one thing and has measured nothing."""
    root = tmp_path_factory.mktemp("another")
    for chapter in CHAPTERS:
        (root / "book" / chapter).mkdir(parents=True)
        (root / "book" / f"{chapter}.ipynb").touch()
        (root / "book" / chapter / "parameters.yml").touch()
        (root / "book" / chapter / "claims.yml").write_text(yaml.safe_dump({"claims": [CLAIM]}))
    for folder in ("benchmarks/results", "book/reliability"):
        shutil.copytree(runs.ROOT / folder, root / folder)
    return root


@pytest.mark.parametrize("notebook", freshness.notebooks(), ids=lambda path: path.stem)
def test_every_notebook_has_one_cell_of_parameters(notebook):
    tags = [cell["metadata"].get("tags", []) for cell in runs.files.code_cells(notebook)]
    assert sum("parameters" in each for each in tags) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_another_book(page, book, tmp_path):
    done = papermill.execute_notebook(
        page, tmp_path / page.name, {"root": str(book)}, progress_bar=False, execution_timeout=120
    )
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output["data"]["text/plain"] for output in outputs if output.output_type == "execute_result"]
    assert any(SHOWN.get(page.stem, "") in text for text in texts), texts
