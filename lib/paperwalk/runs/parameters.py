"""Chapters, their profiles, and what parameters.yml allows their parameters to be.

pydantic checks what people write into YAML files. It is imported where it does so: what only looks around, such as
`python -m paperwalk list`, or lays out packages on a bare machine, starts without it.
"""

import ast
import ctypes
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import yaml

from paperwalk.runs.files import code_cells, resolve_root, tags_of

PROFILES = ("ci", "laptop", "evening", "gpu", "paper")
Kind = Literal["int", "float", "str", "bool"]
Bound = int | float | str
_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
_WORDS = {
    "int": ("a whole number", "whole numbers"),
    "float": ("a number", "numbers"),
    "str": ("text", "texts"),
    "bool": ("true or false", "true or false"),
}
_FITS = {"string_type": "text", "string_too_short": "text", "list_type": "a list"}
_FITS |= {"int_type": "a whole number", "float_type": "a number"}
_MISSING_OR_UNKNOWN = ("missing", "unexpected_keyword_argument", "invalid_key")


class ParameterError(ValueError):
    """A parameter is unknown, missing or not allowed; one line names it, its value and what is allowed."""


@dataclass(frozen=True)
class Spec:
    """What parameters.yml says of one parameter.

    type: of the value; in a list of one, of the elements of a list, which holds at least `length` of them. min, max,
    below: numbers, or the names of other parameters. in_ (in the file `in`): name of a list that holds the value.
    heads: name of a number of attention heads, into which the value parts evenly, each of even width.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "alias_generator": lambda name: name.removesuffix("_")}
    type: Kind | list[Kind]
    help: str = ""
    min: Bound | None = None
    max: Bound | None = None
    below: Bound | None = None
    choices: list[Bound] | None = None
    in_: str | None = None
    heads: str | None = None
    length: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.type, list) and len(self.type) != 1:
            raise ValueError(f"type = {self.type!r}: must be a type, or a list of one")


def chapters(root: Path | None = None) -> list[str]:
    """Names of the folders of book/ that have a parameters.yml and a notebook beside them, sorted.

    Raises ParameterError where there is no book.
    """
    if not (resolve_root(root) / "book").is_dir():
        if named := os.environ.get("PAPERWALK_ROOT"):
            raise ParameterError(f"PAPERWALK_ROOT = {named!r}: must be a folder with book/")
        raise ParameterError(
            "no book (_toc.yml and book/) was found here or above: go into a checkout, or set PAPERWALK_ROOT=FOLDER"
        )
    folders = (file.parent for file in resolve_root(root).glob("book/*/parameters.yml"))
    return sorted(folder.name for folder in folders if folder.with_suffix(".ipynb").exists())


def notebook_path(chapter: str, root: Path | None = None) -> Path:
    """book/<chapter>.ipynb. Raises ParameterError for an unknown chapter."""
    known = chapters(root)
    if chapter not in known:
        raise ParameterError(f"chapter = {chapter!r}: must be one of {', '.join(known)}")
    return resolve_root(root) / "book" / f"{chapter}.ipynb"


def schema(chapter: str, root: Path | None = None) -> dict[str, Spec]:
    """What parameters.yml says of each parameter. Raises ParameterError for an unknown chapter or a broken file."""
    file = notebook_path(chapter, root).with_suffix("") / "parameters.yml"
    entries = read_mapping(file).items()
    specs = {name: fitted(Spec, entry, f"{file.name}: {name!r}", ParameterError) for name, entry in entries}
    for name, spec in specs.items():
        for key in ("min", "max", "below", "in_", "heads"):
            other, wanted = getattr(spec, key), "a list" if key == "in_" else "a number"
            if isinstance(other, str) and (other not in specs or isinstance(specs[other].type, list) != (key == "in_")):
                key = key.removesuffix("_")
                raise ParameterError(
                    f"{file.name}: {name!r}: {key} = {other!r}: must name a parameter that is {wanted}"
                )
    return specs


def defaults(chapter: str, root: Path | None = None) -> dict:
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


def profiles(chapter: str, root: Path | None = None) -> list[str]:
    """Names of the chapter's profiles, the smallest scale first."""
    folder = notebook_path(chapter, root).with_suffix("") / "profiles"
    return [name for name in PROFILES if (folder / f"{name}.yml").exists()]


def profile_values(chapter: str, profile: str, root: Path | None = None) -> dict:
    """The defaults, overridden by profiles/<profile>.yml. Raises ParameterError for an unknown profile."""
    return defaults(chapter, root) | read_mapping(profile_file(chapter, profile, root))


def run_name(chapter: str, parameters: dict, root: Path | None = None) -> str:
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


def check(
    chapter: str, values: dict, only_known: bool = False, elsewhere: bool = False, root: Path | None = None
) -> SimpleNamespace:
    """The chapter's parameters out of `values`, each found to be what parameters.yml allows.

    With `only_known`, `values` is a notebook's `globals()`: names that are no parameters are passed over,
    unless papermill injected them. With `elsewhere`, for a run on another machine, this one may lack a GPU.
    Raises ParameterError for what is unknown, missing or not allowed.
    A bool is no number; an int is accepted for a float; NaN, infinity and empty lists are refused.
    """
    specs = schema(chapter, root)
    given = list(values)
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
    chapter: str,
    profile: str,
    seed: int,
    overrides: dict | None = None,
    elsewhere: bool = False,
    root: Path | None = None,
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


def _check_one(name: str, value: Any, spec: Spec, values: dict) -> None:
    """Raises ParameterError unless `value` is of the type, in the range and among the choices of `spec`.

    Our own words and tests, not pydantic's: a message says all that is allowed, beside these other values.
    """
    is_list = isinstance(spec.type, list)
    kind = spec.type[0] if isinstance(spec.type, list) else spec.type
    elements = value if is_list and isinstance(value, list) else [value]
    lies_within, range_in_words = _range(kind, spec, values)
    choices = values[spec.in_] if spec.in_ else spec.choices
    choices = choices if isinstance(choices, list) else None  # what is none is refused where it is checked itself
    heads = values[spec.heads] if spec.heads and _has_type(values[spec.heads], "int") else None

    def allowed(element: Any) -> bool:
        if not _has_type(element, kind) or (heads and element % (2 * heads)):
            return False
        return element in choices if choices else lies_within(element)

    bad = [element for element in elements if not allowed(element)]
    if not bad and isinstance(value, list) == is_list and (not is_list or len(elements) >= spec.length):
        return
    some = f"a list of at least {'one element' if spec.length == 1 else f'{spec.length} elements'}"
    if choices:
        wanted = f"one of {', '.join(map(str, choices))}"
        wanted = f"{some}, each {wanted}" if is_list else wanted
    else:
        words = _WORDS[kind][is_list] + range_in_words
        words += f", divisible by 2 x {spec.heads} = {2 * heads}" if heads else ""
        wanted = f"{some}, {words}" if is_list else words
    culprit = f"; {_short(bad[0])} is not" if is_list and isinstance(value, list) and bad else ""
    raise ParameterError(f"{name} = {_short(value)}: must be {wanted}{culprit}")


def _has_type(value: Any, kind: Kind) -> bool:
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, float) and not math.isfinite(value))


def _range(kind: Kind, spec: Spec, values: dict) -> tuple[Callable[[Any], bool], str]:
    """(test of a value, words) for the bounds `min`, `max`, `below`; a bound may name another parameter."""
    bounds, notes = {}, []
    for key, word in (("min", "at least"), ("max", "at most"), ("below", "below")):
        bound = getattr(spec, key)
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


def fitted(form: Any, entry: object, where: str, refusal: type[Exception]) -> Any:
    """An entry of a YAML file as an instance of the dataclass `form`, whose annotations say what its fields may be.

    Raises `refusal` with one line that begins with `where`: the first field that is wrong, its value, what it must be.
    """
    from pydantic import ValidationError

    try:
        return _adapter(form).validate_python(entry)
    except ValidationError as error:
        raise refusal(f"{where}: {_first(error.errors(), entry)}") from error


@cache
def _adapter(form: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(form)


def _first(errors: list, entry: Any) -> str:
    """What pydantic found wrong, in one line: the first field alone. What a `__post_init__` says is left as it is."""
    if odd := [str(error["loc"][0]) for error in errors if error["type"] in _MISSING_OR_UNKNOWN]:
        return f"missing or unknown: {', '.join(sorted(odd))}"
    if errors[0]["type"] == "value_error":
        return str(errors[0]["ctx"]["error"])
    if not errors[0]["loc"]:
        return f"must be a mapping of names, is {_short(entry)}"
    name, given = errors[0]["loc"][0], errors[0]["input"]
    of_field = [error for error in errors if error["loc"][0] == name]  # of a union, one for each of its types
    words = [_FITS.get(error["type"]) or error["msg"].removeprefix("Input should be ") for error in of_field]
    culprit = f"; {_short(given)} is not" if given is not entry[name] else ""
    return f"{name} = {_short(entry[name])}: must be {' or '.join(dict.fromkeys(words))}{culprit}"


def _short(value: object) -> str:
    """repr in one line of at most 100 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:97] + "..."


def has_cuda_device() -> bool:
    """Whether the CUDA driver reports a device; asks the driver itself: importing torch takes seconds."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def profile_file(chapter: str, profile: str, root: Path | None = None) -> Path:
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


def _assigned(source: str) -> dict[str, ast.expr]:
    """{name: syntax tree of its value} of the plain assignments in a cell's source, several to a line or not."""
    assigned: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs: Iterable[tuple[ast.expr, ast.expr]] = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts)
            assigned |= {name.id: given for name, given in pairs if isinstance(name, ast.Name)}
    return assigned
