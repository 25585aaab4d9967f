"""Parameters, freshness, promotion and refreshing of notebooks."""

import json
import subprocess
import sys
import time

import nbformat
import pytest
import yaml

from paperwalk import runs
from paperwalk.book import freshness
from paperwalk.runs import parameters


def refuse(book, **values):
    """The message with which check() refuses the defaults with `values`; a value `...` is left out."""
    values = {k: v for k, v in (runs.defaults("demo", book) | values).items() if v is not ...}
    with pytest.raises(runs.ParameterError) as caught:
        runs.check("demo", values, root=book)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def code_cells(file):
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]


def edit(file, old, new):
    """Replaces a text in the notebook's only cell that holds it."""
    content = nbformat.read(file, as_version=4)
    (cell,) = [cell for cell in content.cells if old in cell.source]
    cell.source = cell.source.replace(old, new)
    nbformat.write(content, file)


# Parameters


def test_the_defaults_are_taken_as_they_are(book):
    p = runs.check("demo", runs.defaults("demo", book), root=book)
    assert (p.profile, p.h, p.hs, p.lr, p.scale, p.bf16) == ("laptop", 13, [2, 4], -0.5, 1, False)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"h": 300}, "h = 300: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": 96}, "h = 96: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": 10, "text_tokens": 10}, "h = 10: must be a whole number from 1 to 9 (below text_tokens = 10)"),
        ({"h": 0}, "h = 0: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": True}, "h = True: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": 2.0}, "h = 2.0: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": "2"}, "h = '2': must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": [2]}, "h = [2]: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"h": None}, "h = None: must be a whole number from 1 to 95 (below text_tokens = 96)"),
        ({"warmup": 5}, "warmup = 5: must be a whole number from 0 to 4 (at most steps = 4)"),
        ({"steps": 51}, "steps = 51: must be a whole number from 1 to 50"),
        ({"seed": -1}, "seed = -1: must be a whole number of at least 0"),
        ({"text_tokens": "many"}, "text_tokens = 'many': must be a whole number of at least 2"),
        ({"share": 1.0}, "share = 1.0: must be a number from 0 to below 1"),
        ({"share": True}, "share = True: must be a number from 0 to below 1"),
        ({"lr": 1.5}, "lr = 1.5: must be a number of at most 1"),
        ({"lr": float("nan")}, "lr = nan: must be a number of at most 1"),
        ({"lr": float("-inf")}, "lr = -inf: must be a number of at most 1"),
        ({"scale": 2.5}, "scale = 2.5: must be a number below 2.5"),
        ({"scale": 10**400}, f"scale = 1{'0' * 96}...: must be a number below 2.5"),
        ({"bf16": 1}, "bf16 = 1: must be true or false"),
        ({"articles": 3}, "articles = 3: must be text"),
        ({"articles": ["a\nb"]}, "articles = ['a\\nb']: must be text"),
        ({"profile": "laptp"}, "profile = 'laptp': must be one of ci, laptop, evening, gpu, paper"),
        ({"device": "tpu"}, "device = 'tpu': must be one of auto, cpu, cuda"),
        (
            {"hs": [2, 96, 4]},
            "hs = [2, 96, 4]: must be a list of at least one element, whole numbers from 1 to 95 "
            "(below text_tokens = 96); 96 is not",
        ),
        (
            {"hs": [2, True]},
            "hs = [2, True]: must be a list of at least one element, whole numbers from 1 to 95 "
            "(below text_tokens = 96); True is not",
        ),
        (
            {"hs": []},
            "hs = []: must be a list of at least one element, whole numbers from 1 to 95 (below text_tokens = 96)",
        ),
        (
            {"hs": 2},
            "hs = 2: must be a list of at least one element, whole numbers from 1 to 95 (below text_tokens = 96)",
        ),
        (
            {"arms": ["hash", "none"]},
            "arms = ['hash', 'none']: must be a list of at least one element, each one of standard, hash; "
            "'none' is not",
        ),
    ],
)
def test_a_bad_value_is_refused_in_one_line(book, values, message):
    assert refuse(book, **values) == message


def test_unknown_and_missing_parameters_are_named(book):
    message = refuse(book, hh=3)
    assert message.startswith("unknown parameter 'hh': allowed are arms, articles, bf16, device, fail, h, hs,")
    assert refuse(book, h=...).startswith("missing parameter 'h': ")


@pytest.mark.parametrize(
    "entry, message",
    [
        ("int", "must be a mapping of names, is 'int'"),
        ("{help: what it is}", "missing or unknown: type"),
        ("{type: int, minimum: 1}", "missing or unknown: minimum"),
        ("{type: integer}", "type = 'integer': must be 'int', 'float', 'str' or 'bool' or a list"),
        ("{type: [int, str]}", "type = ['int', 'str']: must be a type, or a list of one"),
        ("{type: int, min: [1]}", "min = [1]: must be a whole number or a number or text"),
        ("{type: int, below: tokens}", "below = 'tokens': must name a parameter that is a number"),
        ("{type: int, max: hs}", "max = 'hs': must name a parameter that is a number"),
        ("{type: int, in: steps}", "in = 'steps': must name a parameter that is a list"),
    ],
)
def test_a_broken_schema_is_refused_in_one_line(book, entry, message):
    file = book / "book/demo/parameters.yml"
    file.write_text(f"{file.read_text()}\nh: {entry}\n")  # of two entries of a name, YAML takes the last
    assert refuse(book) == f"parameters.yml: 'h': {message}"


@pytest.mark.parametrize("name, value", [("ks", 5), ("n_heads", "many"), ("n_heads", True)])
def test_what_others_are_measured_by_may_be_wrong_itself(name, value):
    with pytest.raises(runs.ParameterError, match=f"^{name} = {value!r}: must be "):
        runs.check("goldfish", runs.defaults("goldfish") | {name: value})


def test_cuda_is_refused_where_there_is_none(book, monkeypatch):
    monkeypatch.setattr(parameters, "has_cuda_device", lambda: False)
    assert refuse(book, device="cuda").startswith("device = 'cuda': must be auto or cpu")
    monkeypatch.setattr(parameters, "has_cuda_device", lambda: True)
    runs.check("demo", runs.defaults("demo", book) | {"device": "cuda"}, root=book)


def test_the_probe_for_cuda_agrees_with_torch():
    torch = pytest.importorskip("torch")
    assert parameters.has_cuda_device() == (torch.cuda.device_count() > 0)


def test_globals_of_a_notebook_may_hold_other_names_but_papermill_may_not_inject_them(book):
    names = runs.defaults("demo", book) | {"json": json, "figure": 3, "In": ["", "figure = 3"]}
    assert not hasattr(runs.check("demo", names, only_known=True, root=book), "figure")
    names["In"].append("# Parameters\nhh = 3\nlr = float('nan')\n")
    with pytest.raises(runs.ParameterError, match="unknown parameter 'hh'"):
        runs.check("demo", names, only_known=True, root=book)


def test_a_bad_value_is_found_within_a_second_of_a_fresh_process(book):
    code = (
        "import sys; from paperwalk import runs\n"
        "try: runs.check('demo', runs.profile_values('demo', 'gpu') | {'h': 300})\n"
        "except runs.ParameterError as error: print(error)\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'scipy', 'papermill', 'nbformat'} & set(sys.modules)))"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PAPERWALK_ROOT": str(book), "PATH": ""},
        text=True,
        capture_output=True,
    )
    assert time.monotonic() - started < 1
    assert done.stdout.splitlines() == [refuse(book, h=300), "[]"], done.stderr


def test_a_profile_overrides_the_defaults_and_is_checked(book):
    defaults = runs.defaults("demo", book)
    assert runs.profile_values("demo", "gpu", book) == defaults | {
        "profile": "gpu",
        "steps": 50,
        "hs": [2, 50],
    }
    assert runs.profiles("demo", book) == ["ci", "laptop", "evening", "gpu", "paper"]
    with pytest.raises(runs.ParameterError, match=r"profile = 'laptp': must be one of ci, laptop, evening, gpu, paper"):
        runs.profile_values("demo", "laptp", book)
    with pytest.raises(runs.ParameterError, match=r"chapter = 'dmo': must be one of demo"):
        runs.profile_values("dmo", "laptop", book)
    file = book / "book/demo/profiles/gpu.yml"
    for text, message in [
        ("profile: laptop", "profile = 'laptop': must be gpu"),
        ("profile: gpu\nlr: 1e-3", "lr = '1e-3': must be a number"),
        ("profile: gpu\nhh: 1", "unknown parameter 'hh'"),
        ("profile: [gpu", "gpu.yml: is no valid YAML"),
        ("- gpu", "gpu.yml: must be a mapping"),
    ]:
        file.write_text(text)
        with pytest.raises(runs.ParameterError) as caught:
            runs.validate("demo", "gpu", 0, root=book)
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_several_defaults_may_stand_on_a_line(book):
    alone = runs.defaults("demo", book)
    edit(book / "book/demo.ipynb", "h = 13", "h, more = 13, [1, 2]")
    assert runs.defaults("demo", book) == alone | {"h": 13, "more": [1, 2]}


def test_defaults_must_be_literals(book):
    edit(book / "book/demo.ipynb", "h = 13", "h = 12 + steps")
    with pytest.raises(runs.ParameterError, match=r"h = 12 \+ steps: must be a literal"):
        runs.defaults("demo", book)


@pytest.mark.parametrize("chapter", runs.chapters())
def test_the_chapters_own_parameters_and_profiles_fit_their_schema(chapter, monkeypatch):
    monkeypatch.setattr(parameters, "has_cuda_device", lambda: True)
    assert list(runs.defaults(chapter)) == list(runs.schema(chapter))
    for profile in runs.profiles(chapter):
        runs.validate(chapter, profile, seed=0)
        values = yaml.safe_load((runs.ROOT / f"book/{chapter}/profiles/{profile}.yml").read_text())
        same = {k for k, v in values.items() if runs.defaults(chapter)[k] == v} - {"profile"}
        assert not same, f"{profile}.yml overrides only what differs"


# Freshness


def test_hashes_follow_the_cells_that_they_stand_for(book):
    file = book / "book/demo.ipynb"
    measured, reported = runs.measured_hash(file), freshness.reported_hash(file, book)

    def changed():
        return runs.measured_hash(file) != measured, freshness.reported_hash(file, book) != reported

    for old, new, expected in [
        ("# Demo", "# Another title", (False, False)),
        ("h = 13", "h = 12", (False, False)),  # a parameter
        ("time.sleep(0.2)", "time.sleep(0.2)   ", (False, False)),  # white space
        ("time.sleep(0.2)", "time.sleep(0.2)  # a while", (False, False)),  # a comment
        ("sorted(evidence", "list(evidence", (False, True)),  # report
        ("time.sleep(0.2)", "time.sleep(0.3)", (True, False)),  # measures
        ("import time", "import math, time", (True, True)),  # setup
        ("import time", "import time  # of day", (False, True)),  # which is shown
    ]:
        before = file.read_bytes()
        edit(file, old, new)
        assert changed() == expected, new
        file.write_bytes(before)
    content = nbformat.read(file, as_version=4)
    injected = nbformat.v4.new_code_cell("h = 3", metadata={"tags": ["injected-parameters"]})
    content.cells.insert(4, injected)
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="hello")]
    nbformat.write(content, file)
    assert changed() == (False, False)
    content.cells[5], content.cells[6] = content.cells[6], content.cells[5]
    nbformat.write(content, file)
    assert changed() == (True, False)  # the order counts


def test_reports_depend_on_the_files_that_they_show(book):
    demo, scoreboard = book / "book/demo.ipynb", book / "book/scoreboard.ipynb"
    (book / "book/other").mkdir()
    (book / "book/other/parameters.yml").write_text("{}")
    (book / "book/other.ipynb").write_bytes(scoreboard.read_bytes())
    seen = {(freshness.reported_hash(demo, book), freshness.reported_hash(scoreboard, book))}
    for n, (name, changes_demo) in enumerate(
        [
            ("demo/claims.yml", True),
            ("demo/results/superseded/2026-01-01/evening-seed100.parquet", True),
            ("other/claims.yml", False),
        ],
        2,
    ):
        file = book / "book" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = freshness.reported_hash(demo, book)
        file.write_text(f"{n}")
        assert (freshness.reported_hash(demo, book) != before) == changes_demo, name
        seen.add((freshness.reported_hash(demo, book), freshness.reported_hash(scoreboard, book)))
        assert len({scoreboard for _, scoreboard in seen}) == n  # shows all chapters


def test_a_chapter_depends_on_the_benchmarks_that_its_reports_name(book):
    demo, file = book / "book/demo.ipynb", book / "benchmarks/results/fam_cost.csv"
    file.parent.mkdir(parents=True)
    before = freshness.reported_hash(demo, book)
    file.write_text("pass")
    assert freshness.reported_hash(demo, book) == before
    page = nbformat.read(demo, as_version=4)
    page.cells.append(nbformat.v4.new_code_cell("tables.fam_cost()", metadata={"tags": ["report"]}))
    nbformat.write(page, demo)
    before = freshness.reported_hash(demo, book)
    file.write_text("other")
    assert freshness.reported_hash(demo, book) != before


def test_a_page_is_out_of_date_once_the_evidence_that_it_calls_fresh_is_not(book, put):
    put(1)
    hashes = lambda: [freshness.reported_hash(book / f"book/{name}.ipynb", book) for name in ("demo", "scoreboard")]
    before, profile = hashes(), book / "book/demo/profiles/evening.yml"
    assert hashes() == before
    profile.write_text(profile.read_text() + "steps: 5\n")
    assert not set(hashes()) & set(before)


def test_stale_tells_what_to_do(book):
    file = book / "book/demo.ipynb"
    assert freshness.stale(file, book) == "measured"  # never run

    def record(**values):
        content = nbformat.read(file, as_version=4)
        content.metadata.paperwalk = {"parameters": runs.defaults("demo", book)} | values
        nbformat.write(content, file)

    measured, reported = runs.measured_hash(file), freshness.reported_hash(file, book)
    record(measured=measured, reported=reported)
    assert freshness.stale(file, book) is None
    record(measured=measured, reported=None)
    assert freshness.stale(file, book) == "reported"
    record(measured="0", reported=reported)
    assert freshness.stale(file, book) == "measured"
    record(measured=measured, reported=reported, parameters={"steps": 9})
    assert freshness.stale(file, book) == "measured"
    assert freshness.stale("book/scoreboard.ipynb", book) == "reported"  # has nothing to measure


def test_notebooks_are_those_of_the_table_of_contents(book):
    assert {f.name for f in freshness.notebooks(book)} == {"demo.ipynb", "scoreboard.ipynb"}


# Promotion and refreshing

WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def widget(**state):
    return {"model_name": "M", "model_module": "m", "model_module_version": "1", "state": state}


def executed(book):
    """What papermill leaves behind, made by hand: outputs with paths, colours and widgets, and metadata."""
    content = nbformat.read(book / "book/demo.ipynb", as_version=4)
    content.metadata.papermill = {"input_path": str(book / "book/demo.ipynb"), "duration": 1.5}
    content.metadata.widgets = {
        WIDGETS: {
            "version_major": 2,
            "version_minor": 0,
            "state": {
                "aa": widget(layout="IPY_MODEL_bb"),
                "bb": widget(),
                "cc": widget(source=["IPY_MODEL_aa", "value"], target=["IPY_MODEL_dd", "index"]),
                "dd": widget(),
                "ee": widget(layout="IPY_MODEL_ff"),
                "ff": widget(),
            },
        }
    }
    for cell in content.cells:
        cell.metadata.setdefault("tags", [])
        cell.metadata.papermill = {"start_time": "2026-01-01T00:00:00", "status": "completed"}
        cell.metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00"}
    content.cells[5].outputs = [
        nbformat.v4.new_output("stream", text=f"\x1b[31m{book}/lib/x.py\x1b[0m: red\nin {book}\n"),
        nbformat.v4.new_output("display_data", {"text/html": f"<a href='{book}/a'>", VIEW: {"model_id": "aa"}}),
    ]
    content.cells[5].execution_count = 5
    injected = nbformat.v4.new_code_cell("# Parameters\nseed = 0", metadata={"tags": ["injected-parameters"]})
    content.cells.insert(4, injected)
    path = runs.work_dir("demo", "laptop", 0, book) / "demo.ipynb"
    nbformat.write(content, path)
    return path


def test_promotion_leaves_only_what_belongs_to_the_book(book):
    before = nbformat.read(book / "book/demo.ipynb", as_version=4)
    file = freshness.promote("demo", executed(book), book)
    text = file.read_text()
    assert file == book / "book/demo.ipynb"
    assert str(book) not in text and "papermill" not in text and "\\u001b" not in text
    assert "injected" not in text and "2026-01-01" not in text
    after = nbformat.read(file, as_version=4)
    nbformat.validate(after)
    kept = ("id", "source", "metadata")
    assert [[c[k] for k in kept] for c in after.cells] == [[c[k] for k in kept] for c in before.cells]
    assert after.cells[5].outputs[0].text == "lib/x.py: red\nin .\n"
    assert after.cells[5].outputs[1].data["text/html"] == "<a href='a'>"
    assert set(after.metadata.widgets[WIDGETS].state) == {"aa", "bb", "cc", "dd"}  # ee and ff are not shown
    identity = {"measured": runs.measured_hash(file), "parameters": runs.defaults("demo", book)}
    assert after.metadata.paperwalk == identity | {"reported": None}
    assert freshness.stale(file, book) == "reported"
    assert list(file.parent.glob(".*")) == []  # no temporary file


def test_promotion_never_overwrites_an_edit(book):
    file, path = book / "book/demo.ipynb", executed(book)
    edit(file, "# Demo", "# Edited while the run went on")
    before = file.read_bytes()
    with pytest.raises(runs.RunError, match=r"demo\.ipynb was changed during its run"):
        freshness.promote("demo", path, book)
    assert file.read_bytes() == before


def test_refresh_runs_setup_and_report_cells_only(book, put):
    file = freshness.promote("demo", executed(book), book)
    before = code_cells(file)
    put(7)
    freshness.refresh(file, book)
    after = code_cells(file)
    assert after[1].outputs[0].data["text/plain"] == "[7.0]"
    assert after[:1] + after[2:] == before[:1] + before[2:]
    assert freshness.stale(file, book) is None
    metadata = nbformat.read(file, as_version=4).metadata
    assert set(metadata.widgets[WIDGETS].state) == {"aa", "bb", "cc", "dd"}
    put(8)
    assert freshness.stale(file, book) == "reported"


def test_a_refresh_that_fails_changes_nothing(book):
    file = book / "book/scoreboard.ipynb"
    edit(file, "sorted(evidence", "1 / 0; sorted(evidence")
    before = file.read_bytes()
    with pytest.raises(runs.RunError, match=r"^scoreboard: code cell 2 failed: ZeroDivisionError: division by"):
        freshness.refresh(file, book)
    assert file.read_bytes() == before


def test_refresh_keeps_the_widgets_of_report_cells_without_piling_them_up(book):
    file = book / "book/scoreboard.ipynb"
    edit(file, "sorted(evidence", "import ipywidgets; display(ipywidgets.IntSlider()); sorted(evidence")
    for _ in range(2):
        freshness.refresh(file, book)
        state = nbformat.read(file, as_version=4).metadata.widgets[WIDGETS].state
        assert sorted(model.model_name for model in state.values()) == [
            "IntSliderModel",
            "LayoutModel",
            "SliderStyleModel",
        ]


# Failing runs


@pytest.mark.parametrize(
    "how, message",
    [
        ("hang", r"^demo: code cell 6 \(if p\.fail == .*\) failed: it took longer than 5 s; what ran until"),
        ("die", r"^demo: code cell 6 \(if p\.fail == .*\) failed: Kernel died \(out of memory\?\); what ran"),
    ],
)
def test_a_run_that_hangs_or_dies_is_told_apart(book, how, message):
    before = (book / "book/demo.ipynb").read_bytes()
    with pytest.raises(runs.RunError, match=message) as caught:
        runs.execute("demo", "ci", 0, {"fail": how}, timeout=5, root=book)
    assert "\n" not in str(caught.value)
    (executed,) = (book / "_runs/demo").glob(f"ci-fail={how}-*-seed0/demo.ipynb")
    assert str(caught.value).endswith(f"{executed.relative_to(book)}")
    assert (book / "book/demo.ipynb").read_bytes() == before
    assert not (book / "book/demo/results").exists()


# Small things


def test_progress_tells_the_runner_and_prints_nothing(tmp_path, monkeypatch, capfd):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("PAPERWALK_PROGRESS", str(file))
    seen = []
    for item in runs.progress("abc", 3, "letters"):
        seen.append((item, json.loads(file.read_text())))
    assert seen == [(c, {"label": "letters", "n": n, "total": 3}) for n, c in enumerate("abc")]
    assert json.loads(file.read_text())["n"] == 3
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_plain_bar_elsewhere(monkeypatch, capfd):
    monkeypatch.delenv("PAPERWALK_PROGRESS", raising=False)
    assert list(runs.progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert "letters: 100%" in capfd.readouterr().err


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    runs.write_atomically(file, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        runs.write_atomically(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_lists_know_their_length_members_and_heads(book):
    file = book / "book/demo/parameters.yml"
    specs = yaml.safe_load(file.read_text())
    specs["hs"]["length"] = 2
    specs["h"] = {"type": "int", "in": "hs"}
    specs["steps"]["heads"] = "warmup"
    file.write_text(yaml.safe_dump(specs, sort_keys=False))
    good = runs.defaults("demo", book) | {"h": 2}
    assert runs.check("demo", good, root=book).h == 2
    for changed, message in [
        ({"hs": [2]}, r"hs = \[2\]: must be a list of at least 2 elements"),
        ({"h": 3}, r"h = 3: must be one of 2, 4"),
        ({"steps": 6}, r"steps = 6: .*divisible by 2 x warmup = 4"),
    ]:
        with pytest.raises(runs.ParameterError, match=message):
            runs.check("demo", good | changed, root=book)
