"""What a run's time goes into: `python -m paperwalk profile CHAPTER`."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

PHASES = ("data", "forward", "backward", "optimiser", "evaluation", "generation")
PROFILED = "PAPERWALK_PROFILED"  # names a file: this process notes there what its time goes into


class _Clock:
    """The time of this process by what it went into: a phase's own, without the phases within it."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.within, self.since = ["other"], time.perf_counter()

    def turn(self):
        """Puts the time since the last turn down to the innermost phase."""
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self.within[-1]] += now - self.since
        self.since = now


_clock = _Clock()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Puts the block's time down to one of PHASES, in a run that is profiled."""
    if PROFILED not in os.environ:
        yield
        return
    _clock.turn()
    _clock.within.append(name)
    try:
        yield
    finally:
        _clock.turn()
        _clock.within.pop()


@contextmanager
def profiled(arm: str) -> Iterator[None]:
    """Adds a line to the profile: {"arm", "seconds": {a phase or "other": seconds}} of the block."""
    if PROFILED not in os.environ:
        yield
        return
    global _clock
    outer, _clock = _clock, _Clock()
    try:
        yield
    finally:
        _clock.turn()
        line = json.dumps({"arm": arm, "seconds": _clock.seconds}) + "\n"
        outer.since, _clock = time.perf_counter(), outer
        with open(os.environ[PROFILED], "a") as file:  # one write a line: other processes write to it too
            file.write(line)


def table(arms: Sequence[Mapping[str, Any]], wall: float) -> str:
    """A profile as text: seconds of each arm and of all, and the share of them that each phase took.

    wall: seconds of the whole run; arms run side by side, so theirs can add up to more.
    """
    names: tuple[str, ...] = (*PHASES, "other")
    whole: dict[str, float] = defaultdict(float)
    for each in arms:
        for name, seconds in each["seconds"].items():
            whole[name] += seconds
    width = max([4, *(len(each["arm"]) for each in arms)])
    row = (f"{{:<{width}}} {{:>9}}" + " {:>11}" * len(names)).format
    lines = [row("arm", "seconds", *names)]
    for arm, seconds in [*((each["arm"], each["seconds"]) for each in arms), ("all", whole)]:
        total = sum(seconds.values())
        shares = (f"{seconds.get(name, 0) / total:.0%}" if seconds.get(name) else "-" for name in names)
        lines.append(row(arm, f"{total:.1f}", *shares))
    return "\n".join([*lines, f"the whole run, from the start of its kernel: {wall:.1f} s"])
