"""`make lab` as a newcomer uses it: JupyterLab opens on the chapters, and the first cells of one run in the browser."""

import os
import re
import subprocess

import pytest

from paperwalk import runs

pytestmark = [pytest.mark.full, pytest.mark.browser]
ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, token) of a JupyterLab that `make lab` started, with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    environment = os.environ | {name: str(home) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    options = "LAB=--no-browser --allow-root --ip=127.0.0.1 --port=0 --expose-app-in-browser"
    command = ["make", "lab", options]
    with subprocess.Popen(command, cwd=runs.ROOT, env=environment, text=True, stderr=subprocess.PIPE) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := ADDRESS.search(line):
                break
        else:
            pytest.fail("".join(said)[-2000:])
        yield found.groups()
        process.terminate()


def test_the_first_cells_of_a_chapter_run(lab, browser):
    """The parameters, the check of them and the imports run; the notebook on the disk stays as it is."""
    address, token = lab
    file = runs.notebook_path("goldfish")
    before = file.read_bytes()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/lab/tree/goldfish.ipynb?token={token}&reset")
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    cells.first.wait_for(timeout=120_000)
    # cells may be run when the kernel is ready; what earlier runs left must not be taken for their results
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready }")
    page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    cells.first.locator(".jp-InputArea-prompt", has_text="[ ]").wait_for()
    for number in range(3):
        cells.nth(number).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        done = cells.nth(number).locator(".jp-InputArea-prompt", has_text=f"[{number + 1}]")
        done.wait_for(timeout=120_000)
        assert cells.nth(number).locator(".jp-OutputArea [data-mime-type*=error]").count() == 0
    page.close()
    assert file.read_bytes() == before
