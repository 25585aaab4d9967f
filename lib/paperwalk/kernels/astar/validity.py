"""Whether a trace is one that A* could have written, under ANY tie-break and any order of children."""

from math import inf
from typing import NamedTuple

from . import naive
from .layouts import Cell, Maze, Sokoban, is_number

FAULTS = (  # of two searches that fail at the same event, the one with the later fault got further
    "syntax",  # not action, cell(s), c<g>, c<h>
    "outside",  # a cell beyond the grid
    "wall",  # a cell in a wall
    "wrong start",  # the first event is not the creation of the start
    "after goal",  # an event after the goal was closed
    "missing child",  # a close, or the end, before all children of the last closed node were created
    "not adjacent",  # a created node that is no child of the last closed node
    "not open",  # a close of a node that is not in the open list
    "wrong g",  # not the parent's cost plus one; or not the cost with which the closed node was created
    "wrong h",
    "not cheaper",  # a create of a node that is known, open or closed, at no greater cost
    "not minimal",  # a close of a node while an open one has a lower f
    "goal not closed",  # the trace ends before
)


class Validity(NamedTuple):
    """Truthy iff the trace is valid. fault: one of `FAULTS`, in event number `event` (from 0); both None if valid.

    A trace that stops too early is faulty in the event that is missing, whose number is the number of its events.
    """

    event: int | None = None
    fault: str | None = None

    def __bool__(self):
        return self.fault is None


class Event(NamedTuple):
    action: str
    cells: tuple  # the cell; or the worker, and the boxes off the docks
    g: int
    h: int


def is_valid_trace(layout: Maze | Sokoban, trace: list[str]) -> Validity:
    """Replay the tokens `create ... close ...` (no plan, no bos, no eos) on the layout.

    Exact: valid iff some A* with the paper's heuristic, which closes any open node of least f and creates the children
    of a closed node in any order, writes these tokens. In Sokoban the tokens do not tell which dock has the one box
    that is docked, so a text can mean several searches: all are followed, and the fault is that of the last to fail.
    """
    task = naive.TASKS[layout.domain](layout)
    searches, number = [_Search(task)], 0
    for number, event in enumerate(_events(layout.domain, trace)):
        if fault := _misplaced(layout, event):
            return Validity(number, fault)
        followed, faults = [], []
        for search in searches:
            outcomes = {state: search.fault(event, state) for state in _meanings(layout, event)}
            fitting = [state for state, fault in outcomes.items() if fault is None]
            faults += [fault for fault in outcomes.values() if fault]
            followed += [search.copy().follow(event, state) for state in fitting[1:]]
            followed += [search.follow(event, state) for state in fitting[:1]]
        if not followed:
            return Validity(number, max(faults, key=FAULTS.index))
        searches = list({search.key(): search for search in followed}.values()) if len(followed) > 1 else followed
    ends = [search.fault_of_the_end() for search in searches]
    return Validity() if None in ends else Validity(number + 1 if trace else 0, max(ends, key=FAULTS.index))


class _Search:
    """A search as far as it was told: g of the known states, f of the open ones, g of the children still to come."""

    def __init__(self, task):
        self.task, self.g, self.open, self.due, self.closed = task, {}, {}, {}, None

    def copy(self):
        other = _Search(self.task)
        other.g, other.open, other.due, other.closed = dict(self.g), dict(self.open), dict(self.due), self.closed
        return other

    def key(self):
        return self.closed, *(frozenset(table.items()) for table in (self.g, self.open, self.due))

    def fault(self, event, state):
        """Why the search cannot go on with this event, or None."""
        task, (action, _, g, h) = self.task, event
        if not self.g:
            expected = 0 if action == "create" and state == task.start else "wrong start"
        elif self.is_done():
            return "after goal"
        elif action == "create":
            adjacent = self.closed is not None and state in task.children(self.closed)
            expected = self.g[self.closed] + 1 if adjacent else "not adjacent"
        elif self.due:
            return "missing child"
        else:
            expected = self.g[state] if state in self.open else "not open"
        if isinstance(expected, str):
            return expected
        if g != expected:
            return "wrong g"
        if h != task.h(state):
            return "wrong h"
        if action == "create" and self.g and state not in self.due:
            return "not cheaper"
        if action == "close" and g + h > min(self.open.values()):
            return "not minimal"
        return None

    def follow(self, event, state):
        if event.action == "create":
            self.due.pop(state, None)
            self.g[state], self.open[state] = event.g, event.g + event.h
            return self
        self.closed = state
        del self.open[state]
        if not self.is_done():
            cost = event.g + 1
            children = self.task.children(state)
            self.due = {c: cost for c in children if cost < self.g.get(c, inf) and self.task.h(c) < inf}
        return self

    def is_done(self):
        return self.closed is not None and self.task.is_goal(self.closed)

    def fault_of_the_end(self):
        if not self.g:
            return "wrong start"
        return None if self.is_done() else "missing child" if self.due else "goal not closed"


def _events(domain, trace):
    """The events told by the tokens; None, and no more, where they are none."""
    i = 0
    while i < len(trace):
        event, i = (_read_maze if domain == "maze" else _read_sokoban)(trace, i)
        yield event
        if event is None:
            return


def _read_maze(trace, i):
    match list(trace[i : i + 5]):
        case ["create" | "close" as action, x, y, g, h] if _numbers(x, y) and _costs(g, h):
            return Event(action, ((int(x), int(y)),), int(g[1:]), int(h[1:])), i + 5
    return None, i


def _read_sokoban(trace, i):
    if trace[i] not in ("create", "close"):
        return None, i
    action, i = trace[i], i + 1
    cells: list[Cell] = []
    while len(cells) < 3:
        match list(trace[i : i + 3]):
            case [word, x, y] if word == ("box" if cells else "worker") and _numbers(x, y):
                cells.append((int(x), int(y)))
                i += 3
            case _:
                break
    match list(trace[i : i + 2]):
        case [g, h] if cells and _costs(g, h) and cells[1:] == sorted(set(cells[1:])):
            return Event(action, tuple(cells), int(g[1:]), int(h[1:])), i + 2
    return None, i


def _numbers(*tokens):
    return all(map(is_number, tokens))


def _costs(*tokens):
    return all(isinstance(token, str) and token[:1] == "c" and is_number(token[1:]) for token in tokens)


def _misplaced(layout, event):
    if event is None:
        return "syntax"
    if any(c >= layout.size for cell in event.cells for c in cell):
        return "outside"
    return "wall" if set(event.cells) & set(layout.walls) else None


def _meanings(layout, event):
    """The states that the text of an event may mean, one or two."""
    if isinstance(layout, Maze):
        return event.cells
    worker, *boxes = event.cells
    docked = [layout.docks] if not boxes else [(dock,) for dock in layout.docks] if len(boxes) == 1 else [()]
    return [(worker, naive.in_rows((*boxes, *docks))) for docks in docked]
