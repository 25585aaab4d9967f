"""Cases that the checkers of plans and traces must decide rightly: every tiny maze, and logs and plans spoiled."""

import itertools
from collections.abc import Iterable, Iterator

from paperwalk.kernels.astar import Maze, Trace, is_valid_trace
from paperwalk.papers.searchformer.plans import check_plan, optimal_steps


def tiny_mazes(n: int = 3) -> Iterator[Maze]:
    """Every maze of n x n cells that has a way from start to goal."""
    cells = [(x, y) for y in range(n) for x in range(n)]
    for start, goal in itertools.permutations(cells, 2):
        rest = [cell for cell in cells if cell not in (start, goal)]
        for flags in itertools.product((False, True), repeat=len(rest)):
            maze = Maze(n, start, goal, tuple(itertools.compress(rest, flags)))
            if optimal_steps(maze) is not None:
                yield maze


def wrong_ones(task: Trace) -> Iterator[tuple[str, list[list[str]]]]:
    """Logs that no A* writes, each made from the maze's own: (what is wrong, events of five tokens)."""
    log = [task.trace[i : i + 5] for i in range(0, len(task.trace), 5)]
    creates = [i for i, event in enumerate(log) if event[0] == "create"]
    i, f = creates[-1], [int(g[1:]) + int(h[1:]) for *_, g, h in log]
    kind, x, y, g, h = log[i]
    yield "a create dropped", log[:i] + log[i + 1 :]
    yield "a cost off by one", [*log[:i], [kind, x, y, f"c{int(g[1:]) + 1}", h], *log[i + 1 :]]
    yield "a wall entered", [*log[:i], [kind, *map(str, task.layout.walls[0]), g, h], *log[i + 1 :]]
    for late, (kind, *cell) in enumerate(log):
        lower = [j for j in range(late) if log[j][0] == "close" and f[j] < f[late] and ["create", *cell] in log[:j]]
        if kind == "close" and lower:  # it was open when one of lower f was closed
            first = lower[0]
            yield "a close out of order", [*log[:first], log[late], *log[first:late], *log[late + 1 :]]
            break


def verdicts_on_wrong(tasks: Iterable[Trace]) -> dict[str, list[str]]:
    """What is wrong -> what the checkers say of it, a verdict a log or plan.

    tasks: mazes with A*'s traces and plans; raises AssertionError where one of these traces is refused.
    """
    said: dict[str, list[str]] = {}
    for task in tasks:
        assert is_valid_trace(task.layout, task.trace).fault is None
        for what, log in wrong_ones(task):
            fault = is_valid_trace(task.layout, list(itertools.chain(*log))).fault
            said.setdefault(what, []).append(fault or "accepted")
        moved = [str(int(word) + 1) if at % 3 == 1 else word for at, word in enumerate(task.plan)]
        said.setdefault("the plan moved by one cell", []).append(check_plan(task.layout, moved).verdict)
    return said
