"""A strict checker of plans, by simulation and breadth-first search alone: it shares no code with A*."""

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from paperwalk.kernels.astar.layouts import Maze, Sokoban, is_number

STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class PlanCheck(NamedTuple):
    """verdict: "optimal", "suboptimal" or "invalid"; reason: why, in words, empty for an optimal plan."""

    verdict: str
    reason: str = ""


def check_plan(layout: Maze | Sokoban, plan: list[str]) -> PlanCheck:
    """Judge the tokens `plan x y plan x y ...` of a whole plan, the start included; no bos, no eos.

    A plan is valid if every token is in its place, it begins at the start (of the worker), each step goes to one of the
    four neighbours, never into a wall, and it ends at the goal (Sokoban: replayed, boxes pushed one at a time into
    cells free of walls and boxes, all docks filled at the end). A valid plan is optimal if none is shorter.
    """
    try:
        cells = _cells(plan)
        (_check_maze if isinstance(layout, Maze) else _check_sokoban)(layout, cells)
    except _Invalid as error:
        return PlanCheck("invalid", str(error))
    steps, least = len(cells) - 1, optimal_steps(layout)
    return (
        PlanCheck("optimal") if steps == least else PlanCheck("suboptimal", f"{steps} steps where {least} are enough")
    )


@lru_cache(maxsize=4096)
def optimal_steps(layout: Maze | Sokoban) -> int | None:
    """Steps of the shortest plan, None where there is none: breadth first from the start."""
    walls = frozenset(layout.walls)
    state: Any  # a cell, or worker and boxes
    if isinstance(layout, Maze):
        state, is_goal = layout.start, lambda cell: cell == layout.goal
    else:
        state, docks = (layout.worker, frozenset(layout.boxes)), frozenset(layout.docks)
        is_goal = lambda state: state[1] == docks
    seen, ring, steps = {state}, {state}, 0
    while ring:
        if any(map(is_goal, ring)):
            return steps
        ring = {new for state in ring for new in _moves(layout, walls, state)} - seen
        seen |= ring
        steps += 1
    return None


def _moves(layout, walls, state):
    for step in STEPS:
        try:
            if isinstance(layout, Maze):
                new = _add(state, step)
                if new not in walls and _inside(layout, new):
                    yield new
            else:
                worker, boxes = state
                yield _push(walls, worker, boxes, _add(worker, step))
        except _Invalid:
            continue


class _Invalid(Exception):
    pass


def _cells(plan):
    if not plan:
        raise _Invalid("empty")
    cells = []
    for i in range(0, len(plan), 3):
        match list(plan[i : i + 3]):
            case ["plan", x, y] if is_number(x) and is_number(y):
                cells.append((int(x), int(y)))
            case group:
                raise _Invalid(f"{' '.join(map(str, group))!r} at token {i} is not plan, x, y")
    return cells


def _check_maze(maze, cells):
    walls = set(maze.walls)
    if cells[0] != maze.start:
        raise _Invalid(f"begins at {cells[0]}, not at the start {maze.start}")
    for before, cell in zip([None, *cells], cells):
        if not _inside(maze, cell):
            raise _Invalid(f"leaves the maze at {cell}")
        if cell in walls:
            raise _Invalid(f"enters the wall {cell}")
        if before:
            _check_step(before, cell)
    if cells[-1] != maze.goal:
        raise _Invalid(f"ends at {cells[-1]}, not at the goal {maze.goal}")


def _check_sokoban(board, cells):
    walls, boxes = frozenset(board.walls), frozenset(board.boxes)
    if cells[0] != board.worker:
        raise _Invalid(f"begins at {cells[0]}, not at the worker {board.worker}")
    for before, cell in pairwise(cells):
        _check_step(before, cell)
        _, boxes = _push(walls, before, boxes, cell)
    if boxes != frozenset(board.docks):
        raise _Invalid(f"leaves boxes off the docks: {sorted(boxes - set(board.docks))}")


def _push(walls, worker, boxes, cell):
    """(worker, boxes) after a step of the worker to a neighbouring cell; the border is all wall."""
    if cell in walls:
        raise _Invalid(f"enters the wall {cell}")
    if cell in boxes:
        beyond = (2 * cell[0] - worker[0], 2 * cell[1] - worker[1])
        if beyond in walls or beyond in boxes:
            raise _Invalid(f"pushes the box at {cell} against {beyond}")
        boxes = boxes - {cell} | {beyond}
    return cell, boxes


def _check_step(before, cell):
    if abs(before[0] - cell[0]) + abs(before[1] - cell[1]) != 1:
        raise _Invalid(f"jumps from {before} to {cell}")


def _inside(maze, cell):
    return all(0 <= c < maze.size for c in cell)


def _add(cell, step):
    return cell[0] + step[0], cell[1] + step[1]
