"""Parameters, runs and freshness of the book's notebooks.

A chapter is a notebook `book/<chapter>.ipynb` and a folder `book/<chapter>/` of the same name that holds its
parameters.yml, profiles, claims and results. Tags say what a notebook's cell is for: `parameters` (plain
assignments of the laptop's values), `setup` (imports and light definitions), `report` (only reads results
files and claims); all other code measures. Functions take the repository's root; the default is the one that
this package lies in.
"""

import ast
import ctypes
import hashlib
import json
import math
import os
import re
import shlex
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import yaml

# The environment variable PAPERWALK_ROOT names another root than the one this package lies in.
ROOT = Path(os.environ.get("PAPERWALK_ROOT") or Path(__file__).parents[2]).resolve()
PROFILES = ("ci", "laptop", "gpu", "paper")
TIMEOUT = 3600  # seconds that one cell may take
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGETS = "application/vnd.jupyter.widget-state+json"

_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}
_WORDS = {
    "int": ("a whole number", "whole numbers"),
    "float": ("a number", "numbers"),
    "str": ("text", "texts"),
    "bool": ("true or false", "true or false"),
}


class ParameterError(ValueError):
    """A parameter is unknown, missing or not allowed; one line names it, its value and what is allowed."""


class RunError(RuntimeError):
    """A notebook did not run to its end; one line names the notebook, the cell and the error."""


# Chapters and their parameters


def chapters(root=None) -> list[str]:
    """Names of the folders of book/ that have a parameters.yml and a notebook beside them, sorted."""
    folders = (file.parent for file in _root(root).glob("book/*/parameters.yml"))
    return sorted(folder.name for folder in folders if folder.with_suffix(".ipynb").exists())


def notebook_path(chapter: str, root=None) -> Path:
    """book/<chapter>.ipynb. Raises ParameterError for an unknown chapter."""
    known = chapters(root)
    if chapter not in known:
        raise ParameterError(f"chapter = {chapter!r}: must be one of {', '.join(known)}")
    return _root(root) / "book" / f"{chapter}.ipynb"


def schema(chapter: str, root=None) -> dict[str, dict]:
    """What parameters.yml says of each parameter: {name: {type, help, min, max, below, choices, in, heads, length}}.

    `type` is int, float, str, bool or a list of one of them ([int]); `length` is how many elements such a list holds
    at least. `min`, `max` and `below` are numbers or the names of other parameters; `in` names a list that holds the
    value; `heads` names a number of attention heads, into which the value parts evenly, each of even width.
    Raises ParameterError for an unknown chapter or a broken file.
    """
    return _mapping(notebook_path(chapter, root).with_suffix("") / "parameters.yml")


def defaults(chapter: str, root=None) -> dict:
    """Values of the notebook's `parameters` cell. Raises ParameterError where they are not plain literals."""
    file = notebook_path(chapter, root)
    values = {}
    for cell in _code_cells(file):
        if "parameters" in _tags(cell):
            for name, node in _assigned(cell["source"]).items():
                try:
                    values[name] = ast.literal_eval(node)
                except ValueError as error:
                    raise ParameterError(f"{name} = {ast.unparse(node)}: must be a literal in {file.name}") from error
    return values


def profiles(chapter: str, root=None) -> list[str]:
    """Names of the chapter's profiles, the smallest scale first."""
    folder = notebook_path(chapter, root).with_suffix("") / "profiles"
    return [name for name in PROFILES if (folder / f"{name}.yml").exists()]


def profile_values(chapter: str, profile: str, root=None) -> dict:
    """The defaults, overridden by profiles/<profile>.yml. Raises ParameterError for an unknown profile."""
    return defaults(chapter, root) | _mapping(_profile_file(chapter, profile, root))


def check(chapter: str, values: dict, only_known: bool = False, root=None) -> SimpleNamespace:
    """The chapter's parameters out of `values`, each found to be what parameters.yml allows.

    With `only_known`, `values` is a notebook's `globals()`: names that are no parameters are passed over,
    unless papermill injected them. Raises ParameterError for what is unknown, missing or not allowed.
    A bool is no number; an int is accepted for a float; NaN, infinity and empty lists are refused.
    """
    specs = schema(chapter, root)
    given = values
    if only_known:
        injected = (source for source in values.get("In", []) if source.startswith("# Parameters\n"))
        given = [name for source in injected for name in _assigned(source)]
    for name in given:
        if name not in specs:
            raise ParameterError(f"unknown parameter {name!r}: allowed are {', '.join(sorted(specs))}")
    for name in specs:
        if name not in values:
            raise ParameterError(f"missing parameter {name!r}: all of {', '.join(sorted(specs))} are needed")
    for name, spec in specs.items():
        _check_one(name, values[name], spec, values)
    if values.get("device") == "cuda" and not _has_cuda_device():
        raise ParameterError("device = 'cuda': must be auto or cpu here (no CUDA device was found)")
    return SimpleNamespace(**{name: values[name] for name in specs})


def _check_one(name, value, spec, values):
    """Raises ParameterError unless `value` is of the type, in the range and among the choices of `spec`."""
    is_list = isinstance(spec["type"], list)
    kind = spec["type"][0] if is_list else spec["type"]
    elements = value if is_list and isinstance(value, list) else [value]
    lies_within, range_in_words = _range(kind, spec, values)
    choices = values[spec["in"]] if "in" in spec else spec.get("choices")
    heads = values[spec["heads"]] if "heads" in spec else None

    def allowed(element):
        if not _has_type(element, kind) or (heads and element % (2 * heads)):
            return False
        return element in choices if choices else lies_within(element)

    bad = [element for element in elements if not allowed(element)]
    length = spec.get("length", 1)
    if not bad and isinstance(value, list) == is_list and (not is_list or len(elements) >= length):
        return
    some = f"a list of at least {'one element' if length == 1 else f'{length} elements'}"
    if choices:
        wanted = f"one of {', '.join(map(str, choices))}"
        wanted = f"{some}, each {wanted}" if is_list else wanted
    else:
        words = _WORDS[kind][is_list] + range_in_words
        words += f", divisible by 2 x {spec['heads']} = {2 * heads}" if heads else ""
        wanted = f"{some}, {words}" if is_list else words
    culprit = f"; {_short(bad[0])} is not" if is_list and isinstance(value, list) and bad else ""
    raise ParameterError(f"{name} = {_short(value)}: must be {wanted}{culprit}")


def _has_type(value, kind):
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, float) and not math.isfinite(value))


def _range(kind, spec, values):
    """(test of a value, words) for the bounds `min`, `max`, `below`; a bound may name another parameter."""
    bounds, notes = {}, []
    for key, word in (("min", "at least"), ("max", "at most"), ("below", "below")):
        bound = spec.get(key)
        if isinstance(bound, str):
            notes.append(f"{word} {bound} = {_short(values[bound])}")
            bound = values[bound]
        if _has_type(bound, "float"):  # a bound that is no number is refused where it is checked itself
            bounds[key] = bound
    low, high, below = bounds.get("min", -math.inf), bounds.get("max", math.inf), bounds.get("below", math.inf)
    if kind == "int" and below < math.inf:
        high, below = min(high, math.ceil(below) - 1), math.inf
    words = ""
    if low > -math.inf:
        words += f" from {low}" if min(high, below) < math.inf else f" of at least {low}"
    if min(high, below) < math.inf:
        top = f"{high}" if high < below else f"below {below}"
        words += f" to {top}" if low > -math.inf else f" {'of at most ' * (high < below)}{top}"
    if notes:
        words += f" ({', '.join(notes)})"
    return (lambda value: kind in ("str", "bool") or (low <= value <= high and value < below)), words


def _short(value):
    """repr in one line of at most 100 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:97] + "..."


def _has_cuda_device():
    """Whether the CUDA driver reports a device; asks the driver itself: importing torch takes seconds."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


# Running


def work_dir(chapter: str, profile: str, seed: int, root=None) -> Path:
    """Folder for a run's executed notebook and checkpoints; made if need be."""
    folder = _root(root) / "_runs" / chapter / f"{profile}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkpoint_dir(chapter: str, parameters: dict, root=None) -> Path:
    """Folder for the checkpoints of a run with these parameters (profile and seed among them) and the present code.

    Another value, or another line of measuring code in the notebook or of kernels, models and training in the library,
    means another folder: a run never goes on from a stranger's checkpoint.
    """
    identity = measured_hash(notebook_path(chapter, root)) + json.dumps(parameters, sort_keys=True)
    library = Path(__file__).parent
    for file in sorted([*library.glob("kernels/**/*.py"), *library.glob("models/*.py"), library / "training.py"]):
        identity += file.read_text(encoding="utf-8")
    folder = work_dir(chapter, parameters["profile"], parameters["seed"], root)
    folder /= f"checkpoints-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    return folder


def validate(chapter: str, profile: str, seed: int, overrides: dict | None = None, root=None) -> dict:
    """The values that a run injects: the profile file's, the seed and `overrides`. Raises ParameterError."""
    overrides = overrides or {}
    for name in ("profile", "seed"):
        if name in overrides:
            raise ParameterError(f"{name} = {_short(overrides[name])}: must not be overridden, it belongs to the run")
    file = _profile_file(chapter, profile, root)
    injected = _mapping(file) | {"seed": seed} | overrides
    if injected.get("profile") != profile:
        raise ParameterError(
            f"profile = {_short(injected.get('profile'))}: must be {profile} in {profile}.yml of {chapter}"
        )
    check(chapter, defaults(chapter, root) | injected, root=root)
    return injected


def execute(
    chapter: str, profile: str, seed: int, overrides: dict | None = None, timeout: int = TIMEOUT, root=None
) -> Path:
    """Runs the chapter's notebook with papermill; path of the executed notebook, in `work_dir`.

    `timeout` in seconds, a cell. Prints the plain papermill command it stands for; bars on stderr show the
    cells and, within a cell, `progress`. Raises ParameterError before anything is written, and RunError when
    a cell fails.
    """
    injected = validate(chapter, profile, seed, overrides, root)
    import papermill
    from papermill.exceptions import PapermillExecutionError

    root = _root(root)
    source = notebook_path(chapter, root)
    executed = work_dir(chapter, profile, seed, root) / source.name
    files = (source, executed, _profile_file(chapter, profile, root))
    book, result, values = (file.relative_to(root).as_posix() for file in files)
    rest = yaml.safe_dump({"seed": seed} | (overrides or {}), default_flow_style=True, width=math.inf).strip()
    command = ["papermill", book, result, "-f", values, "-y", rest, "--execution-timeout", str(timeout)]
    print(shlex.join(command), flush=True)

    progress_file = executed.with_name("progress.json")
    progress_file.unlink(missing_ok=True)
    try:
        with (
            _environment(
                PAPERWALK_ROOT=str(root),
                PAPERWALK_PROGRESS=str(progress_file),
                PAPERWALK_CODE=measured_hash(source),  # what runs, should the file change meanwhile
            ),
            _live_bar(progress_file),
        ):
            papermill.execute_notebook(
                source,
                executed,
                injected,
                kernel_name=KERNELSPEC["name"],
                language=KERNELSPEC["language"],
                progress_bar={"desc": f"{chapter} {profile} seed {seed}"},
                cwd=root,
                execution_timeout=timeout,
                config=_kernel_config(),
            )
    except PapermillExecutionError as error:
        raise _run_error(executed, f"{error.ename}: {error.evalue}", root) from error
    except TimeoutError as error:
        raise _run_error(executed, f"it took longer than {timeout} s", root) from error
    except RuntimeError as error:  # the kernel died, or did not start
        raise _run_error(executed, f"{error} (out of memory?)", root) from error
    finally:
        progress_file.unlink(missing_ok=True)
    return executed


def progress(iterable, total: int, label: str):
    """Yields the items of `iterable` and shows how many of `total` are done, as tqdm does.

    In a kernel that `execute` started, nothing is printed (it would stay in the notebook): after each item
    {"label", "n", "total"} goes to the file that PAPERWALK_PROGRESS names, and `execute` shows it.
    """
    file = os.environ.get("PAPERWALK_PROGRESS")
    if not file:
        from tqdm.auto import tqdm

        yield from tqdm(iterable, total=total, desc=label)
        return
    for n, item in enumerate(iterable):
        write_atomically(file, json.dumps({"label": label, "n": n, "total": total}))
        yield item
    write_atomically(file, json.dumps({"label": label, "n": total, "total": total}))


def _kernel_config():
    """Encrypts the talk with the kernel where that can be had; without it each kernel prints a warning."""
    import zmq
    from traitlets.config import Config

    return Config(KernelManager={"transport_encryption": "auto" if zmq.has("curve") else "disabled"})


def _run_error(executed, what, root):
    """RunError for the last cell that papermill ended in the notebook saved at `executed`."""
    cells = [cell for cell in _code_cells(executed) if "injected-parameters" not in _tags(cell)]
    ended = [n for n, cell in enumerate(cells, 1) if cell["metadata"].get("papermill", {}).get("end_time")]
    where = "its kernel"
    if ended:
        first_line = cells[ended[-1] - 1]["source"].strip().split("\n")[0]
        where = f"code cell {ended[-1]} ({first_line[:60]})"
    what = " ".join(_ANSI.sub("", what).split())
    part = executed.relative_to(root).as_posix()
    return RunError(f"{executed.stem}: {where} failed: {what}; what ran until then is in {part}")


@contextmanager
def _environment(**variables):
    """Sets environment variables, which kernels started in the block inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _live_bar(file):
    """Shows on stderr, under papermill's bar, the state that `progress` writes to `file`."""
    from tqdm import tqdm

    stop = threading.Event()

    def watch():
        bar = None
        while not stop.wait(0.3):
            try:
                state = json.loads(file.read_text())
            except OSError:  # no such cell yet
                continue
            if bar is not None and (state["label"] != bar.desc or state["n"] >= state["total"]):
                bar.close()
                bar = None
            if bar is None and state["n"] < state["total"]:
                bar = tqdm(total=state["total"], desc=state["label"], position=1, leave=False, file=sys.stderr)
            if bar is not None:
                bar.n = state["n"]
                bar.refresh()
        if bar is not None:
            bar.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# What the book shows, and whether it is fresh


def notebooks(root=None) -> list[Path]:
    """The notebooks of _toc.yml, in its order."""
    root = _root(root)

    def pages(node):
        if isinstance(node, list):
            for child in node:
                yield from pages(child)
        elif isinstance(node, dict):
            for key, child in node.items():
                yield from [child] if key in ("root", "file") else pages(child)

    files = [root / f"{page.removesuffix('.ipynb')}.ipynb" for page in pages(_mapping(root / "_toc.yml"))]
    return [file for file in files if file.exists()]


def measured_hash(notebook) -> str:
    """sha256 (hex) of the notebook file's code that measures: all but the parameters and the `report` cells.

    White space at the ends of lines does not count.
    """
    skipped = {"parameters", "injected-parameters", "report"}
    return hashlib.sha256(_sources(notebook, lambda tags: not tags & skipped)).hexdigest()


def reported_hash(notebook, root=None) -> str:
    """sha256 (hex) of all that report cells show: `setup` and `report` cells' code, claims and results files.

    A chapter's notebook shows its own folder's files, any other notebook those of all chapters.
    """
    root = _root(root)
    digest = hashlib.sha256(_sources(notebook, lambda tags: tags & {"setup", "report"}))
    known = chapters(root)
    for chapter in [Path(notebook).stem] if Path(notebook).stem in known else known:
        folder = root / "book" / chapter
        for file in [*folder.glob("claims.yml"), *sorted(folder.glob("results/*.json"))]:
            digest.update(f"\0{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def stale(notebook, root=None) -> str | None:
    """What of the notebook is out of date: "measured" (run it), "reported" (refresh it) or None."""
    notebook = _root(root) / notebook
    recorded = _load(notebook)["metadata"].get("paperwalk", {})
    if notebook.stem in chapters(root):
        measured = recorded.get("measured") == measured_hash(notebook)
        if not measured or recorded.get("parameters") != defaults(notebook.stem, root):
            return "measured"
    return "reported" if recorded.get("reported") != reported_hash(notebook, root) else None


def promote(chapter: str, executed, root=None) -> Path:
    """Makes an executed notebook the chapter's, without papermill's additions; returns the chapter's path.

    Its report cells ran before its own evidence was written, so it is stale ("reported") until `refresh`.
    Raises RunError, and writes nothing, when the chapter's notebook was changed since the run.
    """
    import nbformat

    target = notebook_path(chapter, root)
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in _tags(cell)]
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
    _save(notebook, target, root)
    return target


def refresh(notebook, root=None) -> None:
    """Runs only the `setup` and `report` cells, in a new kernel, and puts the report cells' outputs in place.

    Everything else stays as it is. Raises RunError, and writes nothing, when a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    root = _root(root)
    target = root / notebook
    before, reported = target.read_bytes(), reported_hash(target, root)
    notebook = nbformat.read(target, as_version=4)
    numbered = enumerate([cell for cell in notebook.cells if cell.cell_type == "code"], 1)
    chosen = [(n, cell) for n, cell in numbered if {"setup", "report"} & _tags(cell)]
    part = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.source) for _, cell in chosen],
        metadata={"kernelspec": KERNELSPEC},
    )
    client = NotebookClient(
        part,
        timeout=TIMEOUT,
        kernel_name=KERNELSPEC["name"],
        resources={"metadata": {"path": str(root)}},
        config=_kernel_config(),
    )
    try:
        with _environment(PAPERWALK_ROOT=str(root)):
            client.execute()
    except (CellExecutionError, TimeoutError, RuntimeError) as error:
        ran = [n for (n, _), cell in zip(chosen, part.cells) if cell.outputs or cell.execution_count]
        what = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        what = " ".join(_ANSI.sub("", what).split())
        where = f"code cell {ran[-1]}" if ran else "its kernel"
        raise RunError(f"{target.stem}: {where} failed: {what}") from error
    for (_, cell), ran in zip(chosen, part.cells):
        if "report" in _tags(cell):
            cell.execution_count = cell.execution_count or ran.execution_count
            cell.outputs = ran.outputs
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    if WIDGETS in part.metadata.get("widgets", {}):
        models = part.metadata.widgets[WIDGETS]
        kept = notebook.metadata.setdefault("widgets", {}).get(WIDGETS, {}).get("state", {})
        notebook.metadata.widgets[WIDGETS] = models | {"state": kept | models["state"]}
    notebook.metadata.paperwalk = notebook.metadata.get("paperwalk", {}) | {"reported": reported}
    if target.read_bytes() != before:
        raise RunError(f"{target.stem}: {target.name} was changed meanwhile and is left as it is; try again")
    _save(notebook, target, root)


# Notebooks and files

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def write_atomically(path, text: str) -> None:
    """Writes `text` (UTF-8) so that whoever reads `path` finds the old file or the new one, never a part."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _root(root):
    return ROOT if root is None else Path(root).resolve()


def _profile_file(chapter, profile, root):
    known = profiles(chapter, root)
    if profile not in known:
        raise ParameterError(f"profile = {profile!r}: must be one of {', '.join(known)}")
    return notebook_path(chapter, root).with_suffix("") / "profiles" / f"{profile}.yml"


def _mapping(file):
    """The YAML mapping in `file`; an empty file is an empty mapping."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{file.name}: is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ParameterError(f"{file.name}: must be a mapping of names, is {_short(content)}")
    return content


def _assigned(source):
    """{name: syntax tree of its value} of the plain assignments in a cell's source."""
    assignments = (node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    return {node.targets[0].id: node.value for node in assignments if isinstance(node.targets[0], ast.Name)}


def _load(notebook):
    """The notebook file as plain JSON, each cell's source as one string (importing nbformat is slow)."""
    content = json.loads(Path(notebook).read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
    return content


def _code_cells(notebook):
    return [cell for cell in _load(notebook)["cells"] if cell["cell_type"] == "code"]


def _tags(cell):
    return set(cell["metadata"].get("tags", []))


def _sources(notebook, wanted):
    """The sources of the code cells whose set of tags is `wanted`, as bytes; each ends in a zero byte."""
    chosen = [cell["source"] for cell in _code_cells(notebook) if wanted(_tags(cell))]
    stripped = ("\n".join(line.rstrip() for line in source.splitlines()).rstrip() for source in chosen)
    return "".join(f"{source}\0" for source in stripped).encode()


def _save(notebook, target, root):
    """Writes the notebook without colour codes, this machine's paths and widgets that no output shows."""
    import nbformat

    notebook.metadata.kernelspec = KERNELSPEC  # papermill wants the language, editors drop it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _clean(cell.outputs, _root(root))
    _prune_widgets(notebook)
    write_atomically(target, nbformat.writes(notebook).rstrip("\n") + "\n")


def _clean(value, root):
    if isinstance(value, str):
        relative = _ANSI.sub("", value).replace(f"{root}/", "")
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
