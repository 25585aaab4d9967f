"""Text of the command line as values. Raises ParameterError, one line that names option, text and what is allowed."""

import re
from collections.abc import Collection
from typing import Any

import yaml

from paperwalk.runs import ParameterError


def count(text: str, name: str = "seeds") -> int:
    """A whole number of at least 1."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise ParameterError(f"{name} = {text!r}: must be a whole number of at least 1")
    return int(text)


def seeds(text: str) -> list[int]:
    """The seeds of "3" (0 to 2), "100-104" (from the one to the other) or "100,107" (these)."""
    if match := re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text):
        first, last = int(match[1]), int(match[2])
        if first <= last < first + 10_000:
            return list(range(first, last + 1))
    elif re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})+", text):
        listed = list(map(int, text.split(",")))
        if len(set(listed)) == len(listed):
            return listed
    elif re.fullmatch(r"[0-9]{1,9}", text) and int(text):
        return list(range(int(text)))
    raise ParameterError(
        f"seeds = {text!r}: must be a number of seeds like 3, a range like 100-104, or a list like 100,107"
    )


def share(text: str) -> float:
    """Any number; which ones are allowed is for `costs.plan` to say."""
    try:
        return float(text)
    except ValueError as error:
        raise ParameterError(f"mfu = {text!r}: must be a number above 0 and at most 1") from error


def _split(option, setting):
    """(name, text) of NAME=TEXT."""
    name, separator, text = setting.partition("=")
    if not separator or not name:
        raise ParameterError(f"{option} = {setting!r}: must be NAME=VALUE")
    return name, text


def _value(name, text):
    """VALUE as YAML, or a number like 1e-3, which YAML takes for text."""
    try:
        return _number(yaml.safe_load(text) if not _is_number(text) else text)
    except (ValueError, yaml.YAMLError) as error:
        raise ParameterError(f"{name} = {text!r}: must be a YAML value") from error


def _is_number(value):
    return isinstance(value, str) and re.fullmatch(r"[-+\d.]+[eE][-+]?\d+", value)


def _number(value):
    return float(value) if _is_number(value) else value


def overrides(settings: list[str]) -> dict[str, Any]:
    """{name: value} of NAME=VALUE texts."""
    return {name: _value(name, text) for name, text in (_split("set", setting) for setting in settings)}


def sweep(settings: list[str]) -> dict[str, list]:
    """{name: values} of NAME=A,B,... texts; a value may be a list in square brackets."""
    swept: dict[str, list] = {}
    for setting in settings:
        name, text = _split("sweep", setting)
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            values = None
        if not values or None in values:
            raise ParameterError(f"sweep {name} = {text!r}: must be YAML values with commas between, none empty")
        if name in swept:
            raise ParameterError(f"sweep {name}: must be given once")
        swept[name] = [_number(value) for value in values]
    return swept


def resources(settings: list[str], known: Collection[str]) -> dict[str, float]:
    """{name: number} of NAME=NUMBER texts, the names among the known ones."""
    wanted: dict[str, float] = {}
    for setting in settings:
        name, text = _split("resources", setting)
        if name not in known:
            raise ParameterError(f"resources {name!r}: must be one of {', '.join(known)}")
        try:
            wanted[name] = float(text)
        except ValueError:
            wanted[name] = -1.0
        if not 0 <= wanted[name] < 1e6:  # NaN neither
            raise ParameterError(f"resources {name} = {text!r}: must be a number from 0 to below 1e6")
        if name == "gpus" and wanted[name] > 1 and wanted[name] % 1:
            raise ParameterError(f"resources gpus = {text!r}: must be a whole number, or a share of one GPU")
    return wanted
