"""The compiled A* against the naive one, the data against the paper's rules, and the checkers against mutations."""

import hashlib
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from paperwalk.kernels import astar as A
from paperwalk.kernels.astar import naive
from paperwalk.papers.searchformer.plans import check_plan

PAPER = A.Maze(3, (0, 2), (1, 0), ((1, 2), (2, 0)))  # figure 1
PAPER_TRACE = (
    "create 0 2 c0 c3 close 0 2 c0 c3 create 0 1 c1 c2 close 0 1 c1 c2 create 0 0 c2 c1 create 1 1 c2 c1 "
    "close 0 0 c2 c1 create 1 0 c3 c0 close 1 0 c3 c0"
).split()


def board(text):
    """A Sokoban board drawn in the usual characters: # wall, @ worker, $ box, . dock."""
    cells = {(x, y): mark for y, row in enumerate(text.split("/")) for x, mark in enumerate(row)}
    worker, boxes, docks, walls = (tuple(cell for cell in cells if cells[cell] == mark) for mark in "@$.#")
    return A.Sokoban(6, worker[0], boxes, docks, walls)


ROOM = board("######/#@$ .#/# $ .#/######/######/######")
TWINS = board("######/# @ ##/#.$.##/# $ ##/#   ##/######")  # the upper box goes left or right in equally many steps


# The paper's examples


def test_figure_1():
    one = A.astar(PAPER)
    assert one.prompt == "start 0 2 goal 1 0 wall 2 0 wall 1 2".split()  # walls by x + 3 y
    assert one.trace == PAPER_TRACE
    assert one.plan == "plan 0 2 plan 0 1 plan 0 0 plan 1 0".split()


def test_the_released_data_set_s_first_task():
    """The 10 x 10 task that the authors' notebook prints; its 40 events go by their hash."""
    rows = ["#  ## ##  ", "      # # ", " # #  ##  ", "  # ####  ", "       ## ", " ## #     ", "     ##   "]
    rows += ["# #  #    ", "        # ", " #     ###"]
    walls = tuple((x, y) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell == "#")
    one = A.astar(A.Maze(10, (1, 3), (9, 4), walls))
    assert len(one.trace) == 5 * 40
    assert hashlib.sha256(" ".join(one.trace).encode()).hexdigest()[:16] == "e0ba87849824af57"
    assert len(one.plan) == 3 * 12


@pytest.mark.parametrize("size, tokens", [(10, 118), (20, 428), (30, 938)])
def test_vocabulary_has_the_paper_s_size(size, tokens):
    vocabulary = A.vocabulary("maze", size)
    assert len(vocabulary) == len(set(vocabulary)) == tokens
    assert vocabulary[:2] == ["bos", "eos"]


@pytest.mark.parametrize("size, quartiles", [(10, (214, 264, 342)), (20, (605, 800, 1098)), (30, (1180, 1600, 2243))])
def test_lengths_have_the_training_sets_quartiles(size, quartiles):
    tasks = A.generate("maze", size, 20_000, seed=0)
    measured = np.percentile(tasks.lengths("trace") + tasks.lengths("plan"), [25, 50, 75])
    assert np.abs(measured / quartiles - 1).max() < 0.03


def test_sokoban_lengths_and_dropped_share():
    tasks = A.generate("sokoban", 7, 3000, seed=0, deterministic=False)
    measured = np.percentile(tasks.lengths("trace") + tasks.lengths("plan"), [25, 50, 75])
    assert np.abs(measured / (2273, 4290, 6712) - 1).max() < 0.1
    assert tasks.lengths("trace").max() < 10_000
    fate = tasks.fate
    assert fate["drawn"] == 3000 + fate["unsolved"] + fate["too_short"] + fate["too_long"]
    assert 0.43 < fate["too_long"] / (fate["drawn"] - fate["unsolved"]) < 0.55


# Compiled equals naive


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    "domain, size, count",
    [
        ("maze", 2, 15),
        ("maze", 3, 300),
        ("maze", 4, 60),
        ("maze", 7, 60),
        ("maze", 13, 20),
        ("maze", 30, 4),
        ("sokoban", 6, 20),
        ("sokoban", 7, 2),
    ],
)
def test_generates_what_the_naive_form_generates(domain, size, count, deterministic):
    tasks = A.generate(domain, size, count, 11, deterministic)
    expected = naive.generate(domain, size, count, 11, deterministic)
    assert [(one.layout, one.trace, one.plan) for one in tasks] == expected


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("tie_break", [None, "paper", "coin", "low-h"])
@pytest.mark.parametrize("heuristic", ["manhattan", "perfect"])
def test_every_rule_equals_naive(deterministic, tie_break, heuristic):
    for domain, size, count in (("maze", 5, 40), ("maze", 16, 8), ("sokoban", 6, 5)):
        tasks = A.generate(domain, size, count, 2)
        options = dict(deterministic=deterministic, tie_break=tie_break, heuristic=heuristic)
        solved, lengths = A.solve(tasks, 5, **options), A.search_lengths(tasks, 2, 5, **options)
        for i, (one, length) in enumerate(zip(solved, lengths)):
            stream = [naive.Stream(5, naive.SEARCH, i, run) for run in range(2)]
            assert (one.trace, one.plan) == naive.run(one.layout, stream=stream[0], **options)
            again = naive.run(one.layout, stream=stream[1], **options)[0]
            assert length.tolist() == [events(one.trace), events(again)]


def test_cheaper_ways_are_logged_again_and_open_closed_states():
    creates = Counter(said for one in A.generate("maze", 12, 300, 0) for said in costs_of(one.trace, "create"))
    assert creates[1] > 0 and creates[2] > 0  # a cell may be created at two costs
    closes = Counter(said for one in A.generate("maze", 12, 300, 0) for said in costs_of(one.trace, "close"))
    assert closes.keys() == {1}  # a consistent heuristic closes none twice
    boards = A.generate("sokoban", 7, 400, 0, max_tokens=10**9)
    reopened = [one for one in boards if 2 in costs_of(one.trace, "close")]
    assert reopened
    shortest = min(reopened, key=lambda one: len(one.trace))
    assert (shortest.trace, shortest.plan) == naive.run(shortest.layout)
    assert A.is_valid_trace(shortest.layout, shortest.trace)


def events(trace):
    return len(events_of(trace))


def events_of(trace):
    starts = [i for i, token in enumerate(trace) if token in ("create", "close")]
    return [trace[a:b] for a, b in pairwise([*starts, len(trace)])]


def costs_of(trace, action):
    """At how many costs each state was created or closed (Sokoban: with no box docked, which the text leaves open)."""
    rows = set(map(tuple, events_of(trace)))
    told = Counter(row[:-2] for row in rows if row[0] == action and ("worker" not in row or row.count("box") == 2))
    return told.values()


# The data


@pytest.mark.parametrize("domain, size, count", [("maze", 9, 700), ("maze", 4, 700), ("sokoban", 6, 600)])
def test_depends_on_seed_and_index_alone(domain, size, count):
    def content(tasks, n):
        return [tasks.ids(part)[0][: tasks.ids(part)[1][n]].tolist() for part in ("prompt", "trace", "plan")]

    tasks = A.generate(domain, size, count, 3, False, threads=1)
    for threads in (2, 5):
        assert content(A.generate(domain, size, count, 3, False, threads=threads), count) == content(tasks, count)
    assert content(A.generate(domain, size, 300, 3, False), 300) == content(tasks, 300)
    assert content(A.generate(domain, size, count, 4, False), count) != content(tasks, count)
    assert content(A.solve(tasks, 3, False), count) == content(tasks, count)
    other = A.generate(domain, size, 50, 3, tie_break="low-h", max_tokens=10**9)
    whole = A.generate(domain, size, 50, 3, False, max_tokens=10**9)
    assert content(other, 50)[0] == content(whole, 50)[0]  # the search's rules choose no maze


@pytest.mark.parametrize("domain, size, count", [("maze", 3, 1500), ("maze", 5, 3000), ("sokoban", 6, 2000)])
def test_no_prompt_twice(domain, size, count):
    tasks = A.generate(domain, size, count, 0)
    assert len({tuple(one.prompt) for one in tasks}) == count


def test_too_few_mazes_is_an_error():
    with pytest.raises(ValueError, match="count = 200: must be smaller"):
        A.generate("maze", 2, 200, 0)


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 10, 20])
def test_mazes_follow_the_rule(size):
    cells = size * size
    shares = Counter()
    for one in A.generate("maze", size, 30 if size == 2 else 200, 1):
        shares[len(one.layout.walls)] += 1
        assert len(one.plan) >= 3 * size
        assert one.layout == A.Maze.from_prompt(one.prompt, size)
    assert min(shares) >= cells * 3 // 10 and max(shares) <= cells * 5 // 10
    if size <= 7:
        assert min(shares) == cells * 3 // 10


def test_sokoban_follows_the_rule():
    for one in A.generate("sokoban", 7, 200, 1):
        board = one.layout
        assert len(board.walls) == 24 + 2 and len(one.prompt) == 3 * (1 + 2 + 2 + 26)
        assert all(2 <= c <= 4 for box in board.boxes for c in box)
        assert board == A.Sokoban.from_prompt(one.prompt, 7)
        assert check_plan(board, one.plan).verdict == "optimal"


def test_bulk_ids_are_the_tokens():
    tasks = A.generate("sokoban", 7, 20, 0, False)
    vocabulary = A.vocabulary("sokoban", 7)
    for part in ("prompt", "trace", "plan"):
        flat, offsets = tasks.ids(part)
        assert flat.dtype == np.int16 and offsets[-1] == len(flat)
        for one, a, b in zip(tasks, offsets[:-1], offsets[1:]):
            assert [vocabulary[k] for k in flat[a:b]] == getattr(one, part)
    some = tasks[[7, 3, -1]]
    assert [one.plan for one in some] == [tasks[7].plan, tasks[3].plan, tasks[19].plan]
    assert [one.plan for one in tasks[5:8]] == [tasks[i].plan for i in (5, 6, 7)]
    with pytest.raises(IndexError):
        tasks[20]


def test_split_keeps_walls_apart():
    tasks = A.generate("maze", 4, 4000, 0)  # thousands of tasks, with few sets of walls
    sides = A.split(tasks, 0.2)
    assert sum(map(len, sides)) == 4000 and abs(len(sides[1]) - 800) < 150
    walls = [{one.layout.walls for one in side} for side in sides]
    assert not walls[0] & walls[1] and len(walls[1]) < len(sides[1])


@pytest.mark.parametrize(("domain", "size"), [("maze", 9), ("sokoban", 7)])
def test_split_goes_by_content(domain, size):
    tasks = A.generate(domain, size, 1000, 0)
    train, test = A.split(tasks, 0.1)
    assert len(train) + len(test) == 1000 and abs(len(test) - 100) < 3 * 9.5  # three standard errors
    prompts = [{tuple(one.prompt) for one in side} for side in (train, test)]
    assert not prompts[0] & prompts[1]
    shuffled = tasks[np.random.permutation(1000)]
    assert {tuple(one.prompt) for one in A.split(shuffled, 0.1)[1]} == prompts[1]
    assert len(A.split(tasks, 0)[1]) == 0 and len(A.split(tasks, 1.0)[0]) == 0


@pytest.mark.parametrize("size", [5, 10, 20, 30])
def test_no_plan_is_suboptimal(size):
    tasks = A.generate("maze", size, 2000, 5)
    for options in (dict(), dict(deterministic=False), dict(heuristic="perfect"), dict(tie_break="low-h")):
        assert A.count_suboptimal(tasks, **options) == 0
    assert A.count_suboptimal(A.generate("sokoban", 7, 200, 5), deterministic=False) == 0


def test_empty():
    tasks = A.generate("maze", 10, 0, 0)
    assert len(tasks) == 0 and list(tasks) == []
    assert A.search_lengths(tasks, 3).shape == (0, 3) and len(A.solve(tasks)) == 0 and A.count_suboptimal(tasks) == 0


# The validity of traces


def can_write(layout, trace):
    """Whether some A* writes the trace: try all choices of a state to close that agree with it so far."""
    task = naive.TASKS[layout.domain](layout)
    rows, hopeless = list(map(tuple, events_of(trace))), set()

    def say(action, state, g):
        return naive.event_tokens(task, (action, state, g, task.h(state)))

    def close(g, opened, i):
        key = i, frozenset(opened), frozenset(g.items())
        if key in hopeless:
            return False
        hopeless.add(key)
        least = min((g[state] + task.h(state) for state in opened), default=None)
        for state in [state for state in opened if g[state] + task.h(state) == least]:
            if rows[i : i + 1] != [say("close", state, g[state])]:
                continue
            if task.is_goal(state):
                if i + 1 == len(rows):
                    return True
                continue
            cost = g[state] + 1
            new = {child for child in task.children(state) if cost < g.get(child, 10**6) and task.h(child) < 10**6}
            after = i + 1 + len(new)
            if sorted(rows[i + 1 : after]) == sorted(say("create", child, cost) for child in new):
                if close(g | dict.fromkeys(new, cost), (opened - {state}) | new, after):
                    return True
        return False

    return rows[:1] == [say("create", task.start, 0)] and close({task.start: 0}, {task.start}, 1)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("tasks", ["maze 3", "maze 5", "sokoban 6", "twins"])
def test_validity_is_exact(tasks, deterministic):
    """Traces, and their one-token changes, swaps, cuts and repeats, are valid exactly if some A* writes them."""
    if tasks == "twins":
        searches, n = A.solve([TWINS] * 3, 0, deterministic), 3
    else:
        domain, size = tasks.split()
        searches, n = A.generate(domain, int(size), 20, 0, deterministic, max_tokens=600), 20
    rng, verdicts = random.Random(0), Counter()
    for one in searches:
        assert can_write(one.layout, one.trace) and A.is_valid_trace(one.layout, one.trace)
        for changed in changes(one.trace, A.vocabulary(one.layout.domain, one.layout.size), rng, n):
            verdict = bool(A.is_valid_trace(one.layout, changed))
            assert verdict == can_write(one.layout, changed), changed
            verdicts[verdict] += 1
    assert verdicts[False] > 30 and (verdicts[True] > 0 or tasks == "twins")


def changes(trace, vocabulary, rng, n):
    rows = events_of(trace)
    for _ in range(n):
        other = list(trace)
        other[rng.randrange(len(other))] = rng.choice(vocabulary)
        yield other
        i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
        swapped = list(rows)
        swapped[i], swapped[j] = rows[j], rows[i]
        for some in (swapped, rows[:i] + rows[i + 1 :], rows[:i], [*rows[:i], rows[j], *rows[i:]]):
            yield [token for row in some for token in row]


@pytest.mark.parametrize("domain, size, count", [("maze", 6, 100), ("maze", 15, 30), ("sokoban", 7, 12)])
@pytest.mark.parametrize(
    "options", [dict(), dict(deterministic=False), dict(tie_break="low-h"), dict(tie_break="coin")]
)
def test_every_search_is_valid(domain, size, count, options):
    for one in A.solve(A.generate(domain, size, count, 8), 3, **options):
        assert A.is_valid_trace(one.layout, one.trace) == (None, None)


def test_a_text_that_means_two_searches():
    """TWINS: after three steps, the upper box is on the one dock or the other, and the text is the same."""
    task, searches = naive.SokobanTask(TWINS), A.solve([TWINS] * 60, 0, False)
    twins = [((2, 2), naive.in_rows((dock, (2, 3)))) for dock in TWINS.docks]
    assert len({naive.event_tokens(task, ("close", twin, 3, task.h(twin))) for twin in twins}) == 1
    said = "close worker 2 2 box 2 3 c3 c2"
    assert any(" ".join(one.trace).count(said) == 2 for one in searches)
    for one in searches:
        assert A.is_valid_trace(TWINS, one.trace)
        assert not A.is_valid_trace(TWINS, " ".join(one.trace).replace(said, said.replace("c3", "c5")).split())


EDITS = [  # an edit of figure 1's events 0 to 8, the event at fault and the fault
    (" ".join(PAPER_TRACE), "", 0, "wrong start"),
    ("create 0 2 c0 c3", "", 0, "wrong start"),
    ("create 0 1 c1 c2", "create 0 1 c1", 2, "syntax"),
    ("create 0 1 c1 c2", "create 0 1 c1 c02", 2, "syntax"),
    ("create 0 1 c1 c2", "open 0 1 c1 c2", 2, "syntax"),
    ("create 0 1 c1 c2", "create 0 3 c1 c2", 2, "outside"),
    ("create 0 1 c1 c2", "create 1 2 c1 c2", 2, "wall"),
    ("create 0 1 c1 c2", "create 0 1 c2 c2", 2, "wrong g"),
    ("create 0 1 c1 c2", "create 0 1 c1 c1", 2, "wrong h"),
    ("close 0 1 c1 c2", "close 0 1 c1 c1", 3, "wrong h"),
    ("close 0 1 c1 c2", "close 0 1 c2 c2", 3, "wrong g"),
    ("create 0 1 c1 c2", "create 0 0 c1 c1", 2, "not adjacent"),
    ("create 0 1 c1 c2", "", 2, "missing child"),
    ("create 1 1 c2 c1", "", 5, "missing child"),
    ("create 1 1 c2 c1", "create 0 2 c2 c3", 5, "not cheaper"),
    ("create 1 1 c2 c1", "create 0 0 c2 c1", 5, "not cheaper"),
    ("close 0 0 c2 c1", "close 0 1 c1 c2", 6, "not open"),
    ("close 1 0 c3 c0", "close 1 0 c3 c0 close 1 1 c2 c1", 9, "after goal"),
    ("close 1 0 c3 c0", "", 8, "goal not closed"),
    ("create 1 0 c3 c0 close 1 0 c3 c0", "", 7, "missing child"),
]


@pytest.mark.parametrize("old, new, event, fault", EDITS)
def test_faults_are_named(old, new, event, fault):
    found = A.is_valid_trace(PAPER, " ".join(PAPER_TRACE).replace(old, new, 1).split())
    assert not found and found == (event, fault)


def test_a_close_that_is_not_minimal():
    maze = A.Maze(3, (0, 0), (2, 0), ())
    trace = A.astar(maze).trace
    up = "create 0 1 c1 c3 create 1 0 c1 c1 close 1 0 c1 c1".split()
    assert " ".join(up) in " ".join(trace)
    early = " ".join(trace).split("close 1 0")[0] + "close 0 1 c1 c3"
    assert A.is_valid_trace(maze, early.split()) == (4, "not minimal")


def test_every_fault_is_tested():
    assert {fault for *_, fault in EDITS} | {"not minimal"} == set(A.FAULTS)


@pytest.mark.parametrize("domain, size", [("maze", 8), ("sokoban", 6), ("sokoban", 7)])
def test_mutations_of_long_traces_are_rejected(domain, size):
    rng = random.Random(1)
    for one in A.generate(domain, size, 6, 2, False):
        rows = events_of(one.trace)
        for _ in range(6):
            i = rng.randrange(1, len(rows))  # dropping a close may leave another valid search: a tie not taken up
            create = rng.choice([j for j, row in enumerate(rows) if row[0] == "create"])
            before, row, after = rows[:i], rows[i], rows[i + 1 :]
            *said, g, h = row
            at = 2 if "worker" in row else 1
            mutations = {
                "a create dropped": [row for j, row in enumerate(rows) if j != create],
                "the end dropped": before,
                "an event twice": [*before, row, row, *after],
                "a later event first": [row, *before, *after],
                "wrong g": [*before, [*said, f"c{int(g[1:]) + 1}", h], *after],
                "wrong h": [*before, [*said, g, f"c{int(h[1:]) + 2}"], *after],
                "into a wall": [*before, [*row[:at], *map(str, one.layout.walls[0]), *row[at + 2 :]], *after],
                "a plan's token": [*rows, ["plan"]],
            }
            for name, mutated in mutations.items():
                assert not A.is_valid_trace(one.layout, [token for row in mutated for token in row]), name


def test_traces_of_another_maze_are_invalid():
    tasks = A.generate("maze", 8, 60, 6)
    layouts = [one.layout for one in tasks]
    assert not any(A.is_valid_trace(layout, tasks[i - 1].trace) for i, layout in enumerate(layouts))


# Plans


@pytest.mark.parametrize(
    "plan, verdict, reason",
    [
        ("plan 0 2 plan 0 1 plan 0 0 plan 1 0", "optimal", ""),
        ("plan 0 2 plan 0 1 plan 1 1 plan 1 0", "optimal", ""),
        ("plan 0 2 plan 0 1 plan 1 1 plan 0 1 plan 0 0 plan 1 0", "suboptimal", "5 steps where 3 are enough"),
        ("plan 0 2 plan 0 1 plan 0 0 plan 1 0 plan 0 0 plan 1 0", "suboptimal", "5 steps"),
        ("", "invalid", "empty"),
        ("plan 0 2", "invalid", "ends at"),
        ("plan 0 1 plan 0 0 plan 1 0", "invalid", "begins at"),
        ("plan 0 2 plan 0 0 plan 1 0", "invalid", "jumps"),
        ("plan 0 2 plan 0 2 plan 0 1 plan 0 0 plan 1 0", "invalid", "jumps"),
        ("plan 0 2 plan 0 1 plan 0 0", "invalid", "ends at"),
        ("plan 0 2 plan 1 2 plan 1 1 plan 1 0", "invalid", "enters the wall"),
        ("plan 0 2 plan 0 3 plan 0 2 plan 0 1 plan 0 0 plan 1 0", "invalid", "leaves the maze"),
        ("plan 0 2 plan 0 1 plan 0 0 plan 1", "invalid", "at token 9"),
        ("plan 0 2 plan 0 1 plan 0 0 1 plan 0", "invalid", "at token 9"),
        ("plan 0 2 plan 0 1 plan 0 0 plan 01 0", "invalid", "at token 9"),
        ("plan 0 2 plan 0 1 plan 0 0 plan 1 0 eos", "invalid", "at token 12"),
        ("plan 1 2 plan 1 1 plan 1 0", "invalid", "begins at"),  # shifted by a cell
    ],
)
def test_check_plan_of_a_maze(plan, verdict, reason):
    found = check_plan(PAPER, plan.split())
    assert found.verdict == verdict and reason in found.reason


@pytest.mark.parametrize(
    "cells, verdict, reason",
    [
        ("11 21 31 21 11 12 22 32", "optimal", ""),
        ("11 21 31 21 22 32", "invalid", "pushes the box at (2, 2) against (2, 3)"),
        ("11 21 31 21 11 12 22", "invalid", "leaves boxes off the docks"),
        ("11 21 31 21 11 21 11 12 22 32", "suboptimal", "9 steps where 7"),
        ("11 21 31 41 31 21 11 12 22 32", "invalid", "pushes the box at (4, 1) against (5, 1)"),
        ("11 10 11 21 31 21 11 12 22 32", "invalid", "enters the wall"),
        ("12 22 32 22 12 11 21 31", "invalid", "begins at"),  # shifted: the authors' checker accepts such
    ],
)
def test_check_plan_of_sokoban(cells, verdict, reason):
    plan = [token for cell in cells.split() for token in ("plan", *cell)]
    found = check_plan(ROOM, plan)
    assert found.verdict == verdict and reason in found.reason


@pytest.mark.parametrize("domain, size", [("maze", 9), ("sokoban", 6)])
def test_mutated_plans_are_rejected(domain, size):
    for one in A.generate(domain, size, 60, 3):
        rows = [one.plan[i : i + 3] for i in range(0, len(one.plan), 3)]
        assert check_plan(one.layout, one.plan).verdict == "optimal"
        shifted = [[word, str((int(x) + 1) % size), y] for word, x, y in rows]
        middle = len(rows) // 2
        for wrong in (shifted, rows[1:], rows[:-1], rows[:middle] + rows[middle + 1 :], rows[::-1], [*rows, ["eos"]]):
            assert check_plan(one.layout, [token for row in wrong for token in row]).verdict == "invalid"


# Arguments


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: A.generate("mase", 5, 1, 0), "domain = 'mase': must be one of maze, sokoban"),
        (lambda: A.generate("maze", 1, 1, 0), "size = 1: must be a whole number from 2"),
        (lambda: A.generate("maze", 5.0, 1, 0), "size = 5.0"),
        (lambda: A.generate("sokoban", 5, 1, 0), "size = 5: must be a whole number from 6 to 10 for domain sokoban"),
        (lambda: A.generate("maze", 5, -1, 0), "count = -1: must be a whole number of at least 0"),
        (lambda: A.generate("maze", 5, True, 0), "count = True"),
        (lambda: A.generate("maze", 5, 1, -1), "seed = -1"),
        (lambda: A.generate("maze", 5, 1, 2**64), "seed"),
        (lambda: A.generate("maze", 5, 1, 0, "yes"), "deterministic = 'yes'"),
        (lambda: A.generate("maze", 5, 1, 0, threads=0), "threads = 0: must be a whole number of at least 1"),
        (
            lambda: A.generate("maze", 5, 1, 0, tie_break="low_h"),
            "tie_break = 'low_h': must be one of paper, coin, low-h",
        ),
        (
            lambda: A.generate("maze", 5, 1, 0, heuristic="zero"),
            "heuristic = 'zero': must be one of manhattan, perfect",
        ),
        (lambda: A.search_lengths([PAPER], runs=0), "runs = 0"),
        (lambda: A.search_lengths([PAPER, ROOM]), "tasks: must be"),
        (lambda: A.solve([]), "tasks: must be"),
        (lambda: A.astar(A.Maze(3, (0, 0), (2, 2), ((1, 2), (2, 1)))), "task 0 must have a solution"),
        (lambda: A.split(A.generate("maze", 5, 1, 0), 1.5), "test_share = 1.5"),
        (lambda: A.generate("maze", 5, 1, 0).ids("plans"), "part = 'plans'"),
        (lambda: A.Maze(3, (0, 0), (0, 3), ()), r"goal = \(0, 3\): must be"),
        (lambda: A.Maze(3, (0, 0), (0, 1), ((0, 0),)), "walls = .* but start has it too"),
        (lambda: A.Maze.from_prompt(["start", "0", "0", "goal", "1"], 3), "prompt: 'goal 1' at token 3"),
        (lambda: A.Sokoban(6, (1, 1), ((2, 2), (3, 3)), ((4, 4), (3, 4)), ()), "must include the whole border"),
        (lambda: A.vocabulary("maze", 0), "size = 0"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
