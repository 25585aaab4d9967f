"""Chapters, their profiles, and what parameters.yml allows their parameters to be."""

import ast
import ctypes
import hashlib
import json
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import yaml

from paperwalk.runs.files import code_cells, resolve_root, tags_of

PROFILES = ("ci", "laptop", "gpu", "paper")
_TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool}
_WORDS = {
    "int": ("a whole number", "whole numbers"),
    "float": ("a number", "numbers"),
    "str": ("text", "texts"),
    "bool": ("true or false", "true or false"),
}


class ParameterError(ValueError):
    """A parameter is unknown, missing or not allowed; one line names it, its value and what is allowed."""


def chapters(root=None) -> list[str]:
    """Names of the folders of book/ that have a parameters.yml and a notebook beside them, sorted."""
    folders = (file.parent for file in resolve_root(root).glob("book/*/parameters.yml"))
    return sorted(folder.name for folder in folders if folder.with_suffix(".ipynb").exists())


def notebook_path(chapter: str, root=None) -> Path:
    """book/<chapter>.ipynb. Raises ParameterError for an unknown chapter."""
    known = chapters(root)
    if chapter not in known:
        raise ParameterError(f"chapter = {chapter!r}: must be one of {', '.join(known)}")
    return resolve_root(root) / "book" / f"{chapter}.ipynb"


def schema(chapter: str, root=None) -> dict[str, dict]:
    """What parameters.yml says of each parameter: {name: {type, help, min, max, below, choices, in, heads, length}}.

    `type` is int, float, str, bool or a list of one of them ([int]); `length` is how many elements such a list holds
    at least. `min`, `max` and `below` are numbers or the names of other parameters; `in` names a list that holds the
    value; `heads` names a number of attention heads, into which the value parts evenly, each of even width.
    Raises ParameterError for an unknown chapter or a broken file.
    """
    return read_mapping(notebook_path(chapter, root).with_suffix("") / "parameters.yml")


def defaults(chapter: str, root=None) -> dict:
    """Values of the notebook's `parameters` cell. Raises ParameterError where they are not plain literals."""
    file = notebook_path(chapter, root)
    values = {}
    for cell in code_cells(file):
        if "parameters" in tags_of(cell):
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
    return defaults(chapter, root) | read_mapping(profile_file(chapter, profile, root))


def run_name(chapter: str, parameters: dict, root=None) -> str:
    """Name of the run with these parameters (profile and seed among them): of its folder, and of its results file.

    `laptop-seed0` for a profile's own values, `laptop-h=5,k=8-1f2e3d4c-seed0` where others take their place: two
    runs whose parameters differ never share a name.
    """
    profile, seed = parameters["profile"], parameters["seed"]
    of_profile = profile_values(chapter, profile, root) | {"seed": seed}
    changed = {name: value for name, value in parameters.items() if of_profile.get(name, ...) != value}
    if not changed:
        return f"{profile}-seed{seed}"
    exact = json.dumps(changed, sort_keys=True)
    readable = ",".join(f"{name}={value}" for name, value in sorted(changed.items()))
    readable = re.sub(r"[^\w.,=-]+", "_", readable, flags=re.ASCII)[:60]
    return f"{profile}-{readable}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}-seed{seed}"


def check(chapter: str, values: dict, only_known: bool = False, elsewhere: bool = False, root=None) -> SimpleNamespace:
    """The chapter's parameters out of `values`, each found to be what parameters.yml allows.

    With `only_known`, `values` is a notebook's `globals()`: names that are no parameters are passed over,
    unless papermill injected them. With `elsewhere`, for a run on another machine, this one may lack a GPU.
    Raises ParameterError for what is unknown, missing or not allowed.
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
    if values.get("device") == "cuda" and not elsewhere and not has_cuda_device():
        raise ParameterError("device = 'cuda': must be auto or cpu here (no CUDA device was found)")
    return SimpleNamespace(**{name: values[name] for name in specs})


def validate(
    chapter: str, profile: str, seed: int, overrides: dict | None = None, elsewhere: bool = False, root=None
) -> dict:
    """The values that a run injects: the profile file's, the seed and `overrides`. Raises ParameterError.

    `elsewhere` as for `check`.
    """
    overrides = overrides or {}
    for name in ("profile", "seed"):
        if name in overrides:
            raise ParameterError(f"{name} = {_short(overrides[name])}: must not be overridden, it belongs to the run")
    file = profile_file(chapter, profile, root)
    injected = read_mapping(file) | {"seed": seed} | overrides
    if injected.get("profile") != profile:
        raise ParameterError(
            f"profile = {_short(injected.get('profile'))}: must be {profile} in {profile}.yml of {chapter}"
        )
    check(chapter, defaults(chapter, root) | injected, elsewhere=elsewhere, root=root)
    return injected


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


def has_cuda_device():
    """Whether the CUDA driver reports a device; asks the driver itself: importing torch takes seconds."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def profile_file(chapter: str, profile: str, root=None) -> Path:
    """profiles/<profile>.yml of the chapter. Raises ParameterError where there is none."""
    known = profiles(chapter, root)
    if profile not in known:
        raise ParameterError(f"profile = {profile!r}: must be one of {', '.join(known)}")
    return notebook_path(chapter, root).with_suffix("") / "profiles" / f"{profile}.yml"


def read_mapping(file: Path) -> dict:
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
