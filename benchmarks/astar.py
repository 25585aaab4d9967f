"""A* in one thread: mazes of 30 x 30 solved, against plain heapq and networkx; their traces generated, against a copy
of as many bytes; Sokoban puzzles of the chapter's size solved, against the naive form's search, a plain heapq.

The peers search and write no trace; ours writes it, too. What must agree: the lengths of the mazes' plans, since peers
break ties in other ways; all tokens of the traces; each step of the puzzles' plans.
"""

import heapq

import networkx
import numpy as np

from benchmarks.harness import Contest, Unequal, run
from paperwalk.kernels.astar import generate, naive, solve

SIZE, TASKS, GENERATED = 30, 60, 2000
SOKOBAN, PUZZLES = 7, 20
OURS = "paperwalk, one thread"


# Mazes solved


def mazes():
    """Mazes as ours take them, and as sets of free cells with start and goal, for the peers."""
    tasks = generate("maze", SIZE, TASKS, seed=0)
    plain = []
    for i in range(len(tasks)):
        layout = tasks[i].layout
        free = {(x, y) for x in range(SIZE) for y in range(SIZE)} - set(layout.walls)
        plain.append((free, layout.start, layout.goal))
    return tasks, plain


def around(free, cell):
    x, y = cell
    return [c for c in ((x, y + 1), (x, y - 1), (x - 1, y), (x + 1, y)) if c in free]


def distance(a, b):
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def with_heapq(tasks, plain):
    lengths = []
    for free, start, goal in plain:
        best, heap, closed = {start: 0}, [(distance(start, goal), start)], set()
        while heap:
            _, cell = heapq.heappop(heap)
            if cell == goal:
                break
            if cell in closed:
                continue
            closed.add(cell)
            for other in around(free, cell):
                if best[cell] + 1 < best.get(other, len(free) + 1):
                    best[other] = best[cell] + 1
                    heapq.heappush(heap, (best[other] + distance(other, goal), other))
        lengths.append(best[goal])
    return np.array(lengths)


def with_networkx(tasks, plain):
    lengths = []
    for free, start, goal in plain:
        graph = networkx.Graph((cell, other) for cell in free for other in around(free, cell))
        lengths.append(len(networkx.astar_path(graph, start, goal, distance)) - 1)
    return np.array(lengths)


def solve_mazes(tasks, plain):
    return solve(tasks, threads=1).lengths("plan") // 3 - 1  # three tokens a cell, the start among them


def check_lengths(name, result, reference):
    if not np.array_equal(result, reference):
        raise Unequal(f"astar: {name}: its plans have other lengths than ours")


# Traces generated


def generate_mazes():
    return generate("maze", SIZE, GENERATED, seed=0, threads=1)


def written(tasks):
    """The tokens' ids: of all traces, and of all plans."""
    return tasks.ids("trace")[0], tasks.ids("plan")[0]


def check_tokens(name, result, reference):
    if not all(map(np.array_equal, result, reference)):
        raise Unequal(f"astar: {name}: its tokens are not ours")


# Sokoban solved


def puzzles():
    """Puzzles as ours take them, and as the naive form's tasks."""
    tasks = generate("sokoban", SOKOBAN, PUZZLES, seed=0, deterministic=False)
    return tasks, [one.layout for one in tasks]


def solve_puzzles(tasks, layouts):
    zero = tasks.vocabulary.index("0")
    return solve(tasks, threads=1).ids("plan")[0].reshape(-1, 3)[:, 1:] - zero


def with_naive(tasks, layouts):
    cells = []
    for layout in layouts:
        task = naive.SokobanTask(layout)
        _, plan = naive.astar(task, lambda state, h, task=task: task.rank(state), list)
        cells += [worker for worker, _ in plan]
    return np.array(cells)


def check_plans(name, result, reference):
    if not np.array_equal(result, reference):
        raise Unequal(f"astar: {name}: its plans are not ours")


CONTESTS = [
    Contest(
        "astar",
        f"solve {TASKS} mazes of {SIZE} x {SIZE}",
        mazes,
        {OURS: solve_mazes, "heapq": with_heapq, "networkx": with_networkx},
        check_lengths,
    ),
    Contest(
        "astar",
        f"generate traces of {GENERATED} mazes of {SIZE} x {SIZE}",
        lambda: (generate_mazes(),),
        {
            OURS: lambda tasks: written(generate_mazes()),
            f"{OURS}, mazes given": lambda tasks: written(solve(tasks, threads=1)),
            "floor: writing the bytes": lambda tasks: [ids.copy() for ids in written(tasks)],
        },
        check_tokens,
    ),
    Contest(
        "astar",
        f"solve {PUZZLES} Sokoban puzzles of {SOKOBAN} x {SOKOBAN}",
        puzzles,
        {OURS: solve_puzzles, "heapq, the naive form": with_naive},
        check_plans,
    ),
]

if __name__ == "__main__":
    for contest in CONTESTS:
        run(contest)
