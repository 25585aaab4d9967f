"""A* and the task generators in plain Python: the truth that the compiled form is tested against.

`astar` is the whole algorithm; a `Task` tells it what it searches.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Protocol, TypeVar, cast

from .layouts import Cell, Maze, Sokoban, border

LAYOUT, SEARCH = 0, 1  # what a random stream is for
State = TypeVar("State", bound=Hashable)
SokobanState = tuple[Cell, tuple[Cell, ...]]
Item = TypeVar("Item")


class Task(Protocol[State]):
    """What is searched. rank: the order in which the deterministic search takes states of equal f."""

    start: State

    def children(self, state: State, /) -> list[State]: ...

    def h(self, state: State, /) -> float: ...

    def is_goal(self, state: State, /) -> bool: ...

    def rank(self, state: State, /) -> tuple: ...


def astar(
    task: Task[State], tie: Callable[[State, float], tuple], shuffle: Callable[[Iterable[State]], list[State]]
) -> tuple[list[tuple[str, State, int, float]], list[State] | None]:
    """The events (action, state, g, h) of one search, and its plan: the states from start to goal, or None.

    tie(state, h): the tuple by which states of equal f = g + h are ordered. shuffle(states): the order in which
    children are looked at.
    """
    heap: list[tuple] = []
    entry, g, parent, log = {}, {}, {}, []  # entry: the open states, with their place in the heap

    def create(state, cost, origin):
        h = task.h(state)
        g[state], parent[state], entry[state] = cost, origin, (cost + h, *tie(state, h), state)
        heappush(heap, entry[state])
        log.append(("create", state, cost, h))

    if task.h(task.start) < inf:
        create(task.start, 0, None)
    while heap:
        state = heappop(heap)[-1]
        del entry[state]
        log.append(("close", state, g[state], task.h(state)))
        if task.is_goal(state):
            return log, path(parent, state)
        for child in shuffle(task.children(state)):
            if g[state] + 1 >= g.get(child, inf) or task.h(child) == inf:
                continue  # known at no greater cost, open or closed, or hopeless
            if child in entry:  # a cheaper way to an open state
                heap.remove(entry[child])
                heapify(heap)
            create(child, g[state] + 1, state)
    return log, None


def path(parent: dict[State, State | None], state: State | None) -> list[State]:
    states = []
    while state is not None:
        states.append(state)
        state = parent[state]
    return states[::-1]


class MazeTask:
    """State: the cell (x, y). heuristic "manhattan", or "perfect": the exact distance to the goal."""

    def __init__(self, maze: Maze, heuristic: str = "manhattan"):
        self.start, self.goal = maze.start, maze.goal
        self.free = {(x, y) for x in range(maze.size) for y in range(maze.size)} - set(maze.walls)
        self.exact = distances([self.goal], self.children) if heuristic == "perfect" else None

    def children(self, cell: Cell) -> list[Cell]:
        x, y = cell
        return [c for c in ((x, y + 1), (x, y - 1), (x - 1, y), (x + 1, y)) if c in self.free]  # up is y + 1

    def h(self, cell: Cell) -> float:
        return manhattan(cell, self.goal) if self.exact is None else self.exact.get(cell, inf)

    def is_goal(self, cell: Cell) -> bool:
        return cell == self.goal

    def rank(self, cell: Cell) -> tuple:
        return cell[::-1]  # the authors' x + 100000 * y


class SokobanTask:
    """State: (worker, boxes), boxes sorted by y, then x. heuristic as for MazeTask."""

    def __init__(self, board: Sokoban, heuristic: str = "manhattan"):
        self.walls, self.docks = set(board.walls), set(board.docks)
        self.start = (board.worker, in_rows(board.boxes))
        self.exact = self.distances_to_goal() if heuristic == "perfect" else None

    def children(self, state: SokobanState) -> list[SokobanState]:
        (x, y), boxes = state
        moves = []
        for dx, dy in ((0, -1), (0, 1), (-1, 0), (1, 0)):  # up is y - 1 here
            worker, beyond = (x + dx, y + dy), (x + 2 * dx, y + 2 * dy)
            if worker in self.walls or (worker in boxes and (beyond in self.walls or beyond in boxes)):
                continue
            moves.append((worker, in_rows(beyond if box == worker else box for box in boxes)))
        return moves

    def h(self, state: SokobanState) -> float:
        """The sum over boxes off the docks of the distance to the nearest dock without a box; infinite where such a
        box is stuck in a corner of walls."""
        if self.exact is not None:
            return self.exact.get(state, inf)
        boxes, free_docks = set(state[1]) - self.docks, self.docks - set(state[1])
        if any(self.is_stuck(box) for box in boxes):
            return inf
        return sum(min(manhattan(box, dock) for dock in free_docks) for box in boxes)

    def is_stuck(self, box: Cell) -> bool:
        x, y = box
        return bool({(x - 1, y), (x + 1, y)} & self.walls and {(x, y - 1), (x, y + 1)} & self.walls)

    def is_goal(self, state: SokobanState) -> bool:
        return set(state[1]) == self.docks

    def rank(self, state: SokobanState) -> tuple:
        (x, y), boxes = state
        return (y, x), *(box[::-1] for box in boxes)

    def distances_to_goal(self) -> dict[SokobanState, int]:
        """Exact distances of the states that can be reached: forward to find them, backward to measure."""
        states = distances([self.start], self.children)
        before: dict[SokobanState, list[SokobanState]] = {state: [] for state in states}
        for state in states:
            for child in self.children(state):
                before[child].append(state)
        return distances([state for state in states if self.is_goal(state)], before.__getitem__)


TASKS: dict[str, Any] = {"maze": MazeTask, "sokoban": SokobanTask}


def manhattan(a: Cell, b: Cell) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def in_rows(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: (cell[1], cell[0])))


def distances(sources: Sequence[State], neighbours: Callable[[State], Iterable[State]]) -> dict[State, int]:
    """{state: number of steps from the nearest source}, breadth first."""
    steps, queue = dict.fromkeys(sources, 0), deque(sources)
    while queue:
        state = queue.popleft()
        for other in neighbours(state):
            if other not in steps:
                steps[other] = steps[state] + 1
                queue.append(other)
    return steps


def run(
    layout: Maze | Sokoban,
    deterministic: bool = True,
    stream: "Stream | None" = None,
    tie_break: str | None = None,
    heuristic: str = "manhattan",
) -> tuple[list[str], list[str] | None]:
    """(trace, plan) as lists of tokens, plan None where there is none; the options are those of `astar.astar`.

    stream: the `Stream` that a search with shuffled children or coins draws from.
    """
    task = TASKS[layout.domain](layout, heuristic)
    coin = tie_break == "coin" or (not deterministic and tie_break != "paper")

    def tie(state, h):
        last = (Coin(stream),) if coin else task.rank(state)
        return (h, *last) if tie_break == "low-h" else last

    log, plan = astar(task, tie, list if deterministic else cast(Stream, stream).shuffled)
    trace = [token for event in log for token in event_tokens(task, event)]
    return trace, plan and [token for state in plan for token in ("plan", *map(str, position(task, state)))]


def event_tokens(task: MazeTask | SokobanTask, event: tuple[str, Any, int, float]) -> tuple[str, ...]:
    action, state, g, h = event
    x, y = position(task, state)
    if isinstance(task, MazeTask):
        return action, str(x), str(y), f"c{g}", f"c{h}"
    boxes = sorted(set(state[1]) - task.docks)  # a box on a dock is not told
    return action, "worker", str(x), str(y), *(t for x, y in boxes for t in ("box", str(x), str(y))), f"c{g}", f"c{h}"


def position(task: MazeTask | SokobanTask, state: Any) -> Cell:
    return state if isinstance(task, MazeTask) else state[0]


class Coin:
    """Compares with another by a toss, drawn anew each time, as the authors' nodes of equal f do."""

    def __init__(self, stream):
        self.stream = stream

    def __lt__(self, other):
        return self.stream.below(2) == 1


class Stream:
    """Random numbers that depend on the keys alone: SplitMix64 (Steele et al. 2014) with the keys mixed in."""

    def __init__(self, *keys: int):
        self.state = 0
        for key in keys:
            self.state = _mix(self.state + (key + 1) * 0x9E3779B97F4A7C15)

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        self.state += 0x9E3779B97F4A7C15
        return (_mix(self.state) >> 32) * n >> 32

    def shuffled(self, items: Iterable[Item]) -> list[Item]:
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def sample(self, items: Iterable[Item], k: int) -> list[Item]:
        """k of the items, without replacement, in random order."""
        items = list(items)
        for i in range(k):
            j = i + self.below(len(items) - i)
            items[i], items[j] = items[j], items[i]
        return items[:k]


def _mix(z):
    z %= 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def draw_maze(stream: Stream, size: int) -> Maze:
    cells = [(x, y) for y in range(size) for x in range(size)]
    low, high = len(cells) * 3 // 10, len(cells) * 5 // 10
    n_walls = low + stream.below(high - low + 1)
    *walls, start, goal = stream.sample(cells, n_walls + 2)
    return Maze(size, start, goal, tuple(walls))


def draw_sokoban(stream: Stream, size: int) -> Sokoban:
    walls = set(border(size))
    inside = [(x, y) for y in range(1, size - 1) for x in range(1, size - 1)]
    walls |= set(stream.sample(inside, 2))
    pushable = [cell for cell in inside if cell not in walls and {*cell}.isdisjoint({1, size - 2})]
    box, other = boxes = stream.sample(pushable, 2)
    free = [cell for cell in inside if cell not in walls and cell not in boxes]
    (worker,) = stream.sample(free, 1)
    dock, last = stream.sample([cell for cell in free if cell != worker], 2)
    return Sokoban(size, worker, (box, other), (dock, last), tuple(walls))


def generate(
    domain: str, size: int, count: int, seed: int, deterministic: bool = True, max_tokens: int = 10_000
) -> list[tuple[Maze | Sokoban, list[str], list[str]]]:
    """[(layout, trace, plan), ...]: what `astar.generate` gives, one task after another."""
    kept, seen = [], set()
    for i in range(count):
        layout_stream = Stream(seed, LAYOUT, i, 0)
        attempt = 0
        while True:
            layout = draw_maze(layout_stream, size) if domain == "maze" else draw_sokoban(layout_stream, size)
            trace, plan = run(layout, deterministic, Stream(seed, SEARCH, i, 0))
            if plan is None or (domain == "maze" and len(plan) < 3 * size):
                continue
            if domain == "sokoban" and len(trace) >= max_tokens:
                continue
            if layout not in seen:
                break
            attempt += 1
            layout_stream = Stream(seed, LAYOUT, i, attempt)
        seen.add(layout)
        kept.append((layout, trace, plan))
    return kept
