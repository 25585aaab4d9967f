"""A* on mazes of 30 x 30: ours, compiled, one thread and several, against plain heapq and networkx. Only the search is
compared: the plans' lengths must agree."""

import heapq

import networkx
import numpy as np

from benchmarks.harness import Contest, Unequal, run
from paperwalk.kernels.astar import generate, solve

SIZE, TASKS = 30, 60


def inputs():
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


def ours(threads):
    def plans(tasks, plain):
        solved = solve(tasks, 0, True, threads=threads)
        return solved.lengths("plan") // 3 - 1  # three tokens a cell, the start among them

    return plans


def check(name, result, reference):
    if not np.array_equal(result, reference):
        raise Unequal(f"astar: {name}: its plans have other lengths than ours")


CONTESTS = [
    Contest(
        "astar",
        f"{TASKS} mazes of {SIZE} x {SIZE}",
        inputs,
        {"paperwalk": ours(1), "paperwalk, all cores": ours(None), "heapq": with_heapq, "networkx": with_networkx},
        check,
    )
]

if __name__ == "__main__":
    for contest in CONTESTS:
        run(contest)
