"""Checks of what a caller gives: a ValueError of one line names the parameter, its value and what is allowed."""

import math
from typing import Any


def is_whole(value: Any, least: int, most: float = math.inf) -> bool:
    """Whether it is an int (no bool) from least to most."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float (no bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def require(name: str, value: Any, holds: object, allowed: str) -> None:
    """Raises ValueError unless it holds; `allowed` ends the line "NAME = VALUE: must be ..."."""
    if not holds:
        raise ValueError(f"{name} = {value!r}: must be {allowed}")


def require_whole(least: int, **values: Any) -> None:
    """Each of the values, given by name, is a whole number of at least `least`."""
    for name, value in values.items():
        require(name, value, is_whole(value, least), f"a whole number of at least {least}")


def require_positive(**values: Any) -> None:
    """Each of the values, given by name, is a finite number above 0."""
    for name, value in values.items():
        require(name, value, is_number(value) and value > 0, "a finite number above 0")
