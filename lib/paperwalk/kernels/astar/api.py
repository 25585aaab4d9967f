"""Batches of planning tasks with their A* traces: checked arguments, threads, and the sequence that comes back."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from . import numba_impl as impl
from .layouts import LAYOUTS, Maze, Sokoban, check_size, token_ids, vocabulary

TIE_BREAKS = ("paper", "coin", "low-h")
HEURISTICS = ("manhattan", "perfect")
PARTS = ("prompt", "trace", "plan")
START_AND_GOAL = 6  # tokens of a maze's prompt before its walls
PIECE = 256  # tasks a thread takes at a time
MOST_ATTEMPTS = 500  # draws of one task before a domain counts as used up
Ragged = tuple[np.ndarray, np.ndarray]  # token ids of all items one after another, and the offsets between them


class Trace(NamedTuple):
    """One task with a search and its plan, as the paper's tokens (bos and eos are the training code's to add)."""

    layout: Maze | Sokoban
    prompt: list[str]
    trace: list[str]
    plan: list[str]


class Traces(Sequence[Trace]):
    """N tasks of one domain and size: a sequence of `Trace`; a slice or an index array gives a smaller `Traces`.

    ids(part): the same tokens in bulk, part "prompt", "trace" or "plan": a flat int16 array of token ids (positions
    in `vocabulary`) and int64 offsets (N + 1,): item i is flat[offsets[i]:offsets[i + 1]].
    fate: how many tasks were drawn, and how many of them dropped as unsolved, too_short (a maze whose plan has fewer
    cells than a side) or too_long (Sokoban); empty for tasks that were given.
    """

    def __init__(self, domain: str, size: int, ragged: dict[str, Ragged], fate: dict[str, int] | None = None):
        self.domain, self.size, self.fate = domain, size, fate or {}
        self._ragged = ragged

    @cached_property
    def vocabulary(self) -> list[str]:
        return vocabulary(self.domain, self.size)

    def ids(self, part: str) -> Ragged:
        _one_of("part", part, PARTS)
        return self._ragged[part]

    def lengths(self, part: str) -> np.ndarray:
        """Tokens of each item, int64 (N,)."""
        return np.diff(self.ids(part)[1])

    def __len__(self):
        return len(self._ragged["prompt"][1]) - 1

    def __getitem__(self, i):
        if not isinstance(i, int | np.integer):
            return Traces(self.domain, self.size, {part: _take(*self._ragged[part], i) for part in PARTS})
        i = range(len(self))[i]
        tokens = []
        for part in PARTS:
            flat, offsets = self._ragged[part]
            tokens.append([self.vocabulary[k] for k in flat[offsets[i] : offsets[i + 1]]])
        return Trace(LAYOUTS[self.domain].from_prompt(tokens[0], self.size), *tokens)


Tasks = Traces | Iterable[Maze | Sokoban]


def generate(
    domain: str,
    size: int,
    count: int,
    seed: int,
    deterministic: bool = True,
    *,
    tie_break: str | None = None,
    heuristic: str = "manhattan",
    max_tokens: int = 10_000,
    threads: int | None = None,
) -> Traces:
    """Draw `count` different tasks and search each with A*, by the authors' rules (released code).

    maze: of the size^2 cells, a uniform share of 30 to 50 % (floor(.3 size^2) to floor(.5 size^2), both included) are
    walls; start and goal are two of the others. The authors write size^2 // 10 * 3 and size^2 // 10 * 5, which is the
    same for their sizes 10, 20 and 30; ours also holds for small mazes. A task is kept if it has a plan of at least
    `size` cells. They keep up to 100 starts and goals of one set of walls, so that open mazes count for more; we draw
    the walls anew with each try, which has the same distribution without the repeated walls.
    sokoban: a border, 2 inner walls, 2 boxes at least two cells from the edge, worker and 2 docks on other cells; kept
    if it can be solved and its trace has fewer than max_tokens tokens.

    Task i depends on seed and i alone, whatever count and threads are, but for one that would repeat an earlier prompt
    and is drawn again: no two prompts are equal. deterministic, tie_break and heuristic change no maze. threads: all
    cores by default.
    For the other options see `astar`. Raises ValueError for bad arguments, and where there are too few different tasks.
    """
    check_size(domain, size)
    _whole("count", count, 0)
    _whole("seed", seed, 0)
    _whole("max_tokens", max_tokens, 1)
    rules = _rules(deterministic, tie_break, heuristic)
    sokoban = domain == "sokoban"

    def make(indices: np.ndarray, attempt: int) -> tuple[dict[str, Ragged], list[int], np.ndarray]:
        spare: list[list[np.ndarray]] = []  # buffers to write in again: memory costs most when it is touched first

        def work(some):
            try:
                buffers = spare.pop()
            except IndexError:
                buffers = [np.empty(PIECE * tokens, np.int16) for tokens in (3 * (size + 2) ** 2, 4096, 256)]
            part = indices[some.start : some.stop]
            return impl.make_tasks(sokoban, size, rules, seed, part, attempt, max_tokens, *buffers)

        flats, pieces, hashes, fate = [_Flat() for _ in PARTS], [], [], np.zeros(4, np.int64)
        for *buffers, some_lengths, some_hashes, some_fate in _parallel(work, len(indices), threads):
            for flat, buffer, used in zip(flats, buffers, some_lengths.sum(0)):
                flat.extend(buffer[:used], len(indices) / len(some_lengths))
            spare.append(buffers)
            pieces.append(some_lengths)
            hashes += some_hashes.tolist()
            fate += some_fate
        lengths = np.concatenate(pieces)
        ragged = {part: (flat.filled, _offsets(lengths[:, j])) for j, (part, flat) in enumerate(zip(PARTS, flats))}
        return ragged, hashes, fate

    if count == 0:
        return Traces(domain, size, {part: (np.zeros(0, np.int16), np.zeros(1, np.int64)) for part in PARTS})
    ragged, hashes, fate = make(np.arange(count), 0)
    if len(set(hashes)) < count:
        order, seen = np.arange(count), set()
        for i in range(count):
            attempt = 0
            while hashes[i] in seen:
                if (attempt := attempt + 1) > MOST_ATTEMPTS:
                    raise ValueError(
                        f"count = {count}: must be smaller, there are too few different tasks of size {size}"
                    )
                redrawn, (hashes[i],), more = make(np.array([i]), attempt)
                ragged = {part: _append(ragged[part], redrawn[part]) for part in PARTS}
                order[i], fate = len(ragged["prompt"][1]) - 2, fate + more
            seen.add(hashes[i])
        ragged = {part: _take(*ragged[part], order) for part in PARTS}
    names = ("drawn", "unsolved", "too_short", "too_long")
    return Traces(domain, size, ragged, dict(zip(names, fate.tolist())))


def solve(
    tasks: Tasks,
    seed: int = 0,
    deterministic: bool = True,
    *,
    tie_break: str | None = None,
    heuristic: str = "manhattan",
    threads: int | None = None,
) -> Traces:
    """Search given tasks (a `Traces`, or layouts of one domain and size) again; options as in `astar`.

    With the seed and options of `generate` the traces are the same. Raises ValueError where a task has no solution.
    """
    domain, size, (prompts, offsets) = _tasks(tasks)
    _whole("seed", seed, 0)
    rules = _rules(deterministic, tie_break, heuristic)

    def work(some):
        part = offsets[some.start : some.stop + 1]
        return impl.solve_tasks(domain == "sokoban", size, rules, seed, some.start, prompts, part)

    if len(offsets) == 1:
        return Traces(domain, size, {part: (prompts, offsets) for part in PARTS})
    traces, plans, pieces = zip(*_parallel(work, len(offsets) - 1, threads))
    lengths = np.concatenate(pieces, 1)
    for bad, why in ((0, "must have a solution"), (-1, f"must cost less than {impl.SOKOBAN_COSTS} steps")):
        if bad in lengths[1]:
            raise ValueError(f"tasks: task {lengths[1].tolist().index(bad)} {why}")
    searched = {"trace": _ragged(traces, lengths[0]), "plan": _ragged(plans, lengths[1])}
    return Traces(domain, size, {"prompt": (prompts, offsets), **searched})


def astar(
    layout: Maze | Sokoban,
    deterministic: bool = True,
    seed: int = 0,
    *,
    tie_break: str | None = None,
    heuristic: str = "manhattan",
) -> Trace:
    """One A* search (unit steps; f = g + h) with its log, by the authors' rules (released code).

    Each state is logged as `create` with its costs g and h when it enters the open list, the start first, and as
    `close` when it leaves, the goal last. A cheaper way to an open state replaces it and is logged as a second create;
    a cheaper way to a closed state opens it again (Sokoban only: its heuristic is not consistent).
    deterministic: children in the order up, down, left, right (up is y + 1 in a maze, y - 1 in Sokoban), else shuffled.
    tie_break, among open states of equal f: "paper": the lowest x + 100000 y (Sokoban: worker, then boxes, by y, then
    x; the authors' code has no such order, it hashes a string with a salt); "coin": a toss a comparison in the binary
    heap; "low-h": the lower h, what is equal still by the paper's order if deterministic, else by coin. Default:
    "paper" if deterministic, else "coin", the paper's two modes.
    heuristic: "manhattan" (Sokoban: the sum over boxes off the docks of the distance to the nearest dock without a box,
    infinite for such a box in a corner of walls), or "perfect": the exact distance to the goal.
    """
    return solve([layout], seed, deterministic, tie_break=tie_break, heuristic=heuristic, threads=1)[0]


def search_lengths(
    tasks: Tasks,
    runs: int = 64,
    seed: int = 0,
    *,
    deterministic: bool = False,
    tie_break: str | None = None,
    heuristic: str = "manhattan",
    threads: int | None = None,
) -> np.ndarray:
    """Events (creates and closes) of `runs` searches of each task, int32 (N, runs); options as in `astar`.

    Run 0 of task i is the search that `solve` makes with the same seed.
    """
    return _count(tasks, runs, seed, _rules(deterministic, tie_break, heuristic), threads)[0]


def count_suboptimal(
    tasks: Tasks,
    seed: int = 0,
    deterministic: bool = True,
    *,
    runs: int = 1,
    tie_break: str | None = None,
    heuristic: str = "manhattan",
    threads: int | None = None,
) -> int:
    """How many of the searches find a plan whose length is not the breadth-first distance; options as in `astar`."""
    optimal = _count(tasks, runs, seed, _rules(deterministic, tie_break, heuristic), threads)[1]
    return int((~optimal).sum())


def _count(tasks, runs, seed, rules, threads):
    domain, size, (prompts, offsets) = _tasks(tasks)
    _whole("runs", runs, 1)
    _whole("seed", seed, 0)

    def work(some):
        part = offsets[some.start : some.stop + 1]
        return impl.count_events(domain == "sokoban", size, rules, seed, some.start, prompts, part, runs)

    if len(offsets) == 1:
        return np.zeros((0, runs), np.int32), np.zeros((0, runs), bool)
    events, optimal = zip(*_parallel(work, len(offsets) - 1, threads))
    return np.concatenate(events), np.concatenate(optimal)


def split(tasks: Traces, test_share: float = 0.1) -> tuple[Traces, Traces]:
    """(train, test), about test_share of the tasks for testing, with no walls of a test maze among the training mazes.

    A maze goes by the hash of its walls (BLAKE2b of the int16 ids, as a share of 2^64): whatever its start and goal, it
    lands on the same side in every data set, process and machine. A Sokoban puzzle goes by its whole prompt, since two
    inner walls make only a few hundred sets.
    """
    if not isinstance(test_share, int | float) or not 0 <= test_share <= 1:
        raise ValueError(f"test_share = {test_share!r}: must be a number from 0 to 1")
    flat, offsets = tasks.ids("prompt")
    flat = flat.astype("<i2")
    walls = START_AND_GOAL if tasks.domain == "maze" else 0
    digests = (blake2b(flat[a + walls : b].tobytes(), digest_size=8).digest() for a, b in pairwise(offsets))
    test = np.array([int.from_bytes(digest, "little") < test_share * 2**64 for digest in digests], bool)
    return tasks[np.flatnonzero(~test)], tasks[np.flatnonzero(test)]


def _tasks(tasks):
    """(domain, size, (prompt ids, offsets)) of a Traces or of layouts."""
    if isinstance(tasks, Traces):
        return tasks.domain, tasks.size, tasks.ids("prompt")
    tasks = list(tasks)
    kinds = {(getattr(task, "domain", None), getattr(task, "size", None)) for task in tasks}
    if len(kinds) != 1 or not all(isinstance(task, Maze | Sokoban) for task in tasks):
        raise ValueError("tasks: must be a Traces, or one or more Maze or Sokoban layouts of one size")
    ((domain, size),) = kinds
    ids = token_ids(domain, size)
    prompts = [np.array([ids[token] for token in task.prompt], np.int16) for task in tasks]
    return domain, size, _ragged(prompts, [len(prompt) for prompt in prompts])


def _rules(deterministic, tie_break, heuristic):
    if not isinstance(deterministic, bool | np.bool_):
        raise ValueError(f"deterministic = {deterministic!r}: must be True or False")
    if tie_break is not None:
        _one_of("tie_break", tie_break, TIE_BREAKS)
    _one_of("heuristic", heuristic, HEURISTICS)
    coin = tie_break == "coin" or (not deterministic and tie_break != "paper")
    return bool(deterministic), bool(coin), tie_break == "low-h", heuristic == "perfect"


class _Flat:
    """An array of token ids that grows at its end."""

    def __init__(self):
        self.ids, self.size = np.empty(0, np.int16), 0

    def extend(self, ids, pieces):
        """Append ids, one of about so many pieces of like size."""
        if (size := self.size + ids.size) > self.ids.size:
            longer = np.empty(int(max(1.1 * pieces * ids.size, 1.5 * size)), np.int16)  # what stays unused is free
            longer[: self.size] = self.filled
            self.ids = longer
        self.ids[self.size : size] = ids
        self.size = size

    @property
    def filled(self):
        return self.ids[: self.size]


def _parallel(work, count, threads):
    """Yield work(range of tasks) in order, on threads: the compiled code releases the interpreter's lock."""
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    _whole("threads", threads, 1)
    pieces = [range(first, min(first + PIECE, count)) for first in range(0, count, PIECE)]
    if threads == 1 or len(pieces) == 1:
        yield from map(work, pieces)
    else:
        with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
            yield from pool.map(work, pieces)


def _ragged(flats, lengths):
    return flats[0] if len(flats) == 1 else np.concatenate(flats), _offsets(lengths)


def _offsets(lengths):
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _append(ragged: Ragged, other: Ragged) -> Ragged:
    (flat, offsets), (more, more_offsets) = ragged, other
    return np.concatenate([flat, more]), np.concatenate([offsets, offsets[-1] + more_offsets[1:]])


def _take(flat, offsets, index):
    """The items of a ragged array at a slice, positions or a mask."""
    items = np.arange(len(offsets) - 1)[index]
    lengths = np.diff(offsets)[items]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return flat[np.repeat(offsets[items] - ends[:-1], lengths) + np.arange(ends[-1])], ends


def _whole(name, value, least):
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value < 2**63:
        raise ValueError(f"{name} = {value!r}: must be a whole number of at least {least}")


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(allowed)}")
