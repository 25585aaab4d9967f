"""A* and the task generators compiled with numba: the same events, tokens and random draws as naive.py.

A board is a grid of cells with walls all round (a maze gets a border of its own), a cell the index y * width + x, so
that the four neighbours always exist. A maze state is a cell; a Sokoban state is worker, box and box (box < box) as one
number in base width * width. Whole batches go by in ragged int16 arrays of token ids, and the interpreter's lock is
released, so that threads share the work.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from .layouts import SOKOBAN_COSTS, WORDS

compiled = njit(cache=True, nogil=True)
inlined = njit(cache=True, nogil=True, inline="always")  # a call with arrays costs more than what these do

INFINITE = 1 << 20  # above every cost
STATE_BITS, TIE_BITS = 24, 16  # a key of the open list is f, tie, state, the most telling bits first
STATE_MASK = (1 << STATE_BITS) - 1
CREATE, CLOSE = 0, 1
LAYOUT, SEARCH = np.uint64(0), np.uint64(1)  # naive.LAYOUT, naive.SEARCH
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
DRAWN, UNSOLVED, TOO_SHORT, TOO_LONG = range(4)  # what became of the tasks that were drawn
BIT_OF = np.zeros(67, np.int64)  # the powers of 2 modulo 67 are all different: BIT_OF[2**i % 67] = i
BIT_OF[[2**i % 67 for i in range(64)]] = range(64)
NUMBERS = {domain: 2 + len(words) for domain, words in WORDS.items()}  # id of the token "0"; bos and eos come first
MAZE_0, SOKOBAN_0 = NUMBERS["maze"], NUMBERS["sokoban"]
START, GOAL, MAZE_WALL, MAZE_CREATE, _, MAZE_PLAN = range(2, MAZE_0)
WORKER, BOX, DOCK, SOKOBAN_WALL, SOKOBAN_CREATE, _, SOKOBAN_PLAN = range(2, SOKOBAN_0)

Board = namedtuple("Board", "sokoban size width shift grid points x y")
"""sokoban: the domain; shift: 1 for a maze's own border; grid (width**2,) uint8: 1 for a wall; points (5,): start and
goal, or worker, boxes and docks; x, y (width**2,): coordinates of a cell as the tokens have them."""

Flood = namedtuple("Flood", "free reached next")
"""Three sets of a maze's cells, (width,) uint64 each: bit x of row y. Wider mazes have none."""

Rules = namedtuple("Rules", "deterministic coin low_h perfect")
"""Python hands them over as a plain tuple: what numba does to recognise a named one takes as long as many searches."""

Scratch = namedtuple("Scratch", "g parent h heap rings child log stream")
"""g, parent, h: cost, parent and heuristic of each state (h not for Sokoban with Manhattan distances, which has none in
advance); g is INFINITE for all between searches. heap: an open list; rings (2, words) uint64: another, a bit a cell.
log (rows, 3): the events as state * 2 + action, g, h."""


@compiled
def new_board(sokoban, size):
    shift = 0 if sokoban else 1
    width = size + 2 * shift
    cells = np.arange(width * width)
    x, y = (cells % width - shift).astype(np.int32), (cells // width - shift).astype(np.int32)
    return Board(sokoban, size, width, shift, np.ones(width * width, np.uint8), np.zeros(5, np.int32), x, y)


@compiled
def new_scratch(board, perfect):
    states = board.grid.size**3 if board.sokoban else board.grid.size
    return Scratch(
        np.full(states, INFINITE, np.int32),
        np.empty(states, np.int32),
        np.empty(states if perfect or not board.sokoban else 0, np.int32),
        np.empty(states, np.int64),
        np.zeros((2, 0 if board.sokoban else (states + 63) // 64), np.uint64),
        np.empty(4, np.int64),
        np.empty((5 * states, 3), np.int32),  # mazes need no more; Sokoban reaches few of its states
        np.zeros(1, np.uint64),
    )


# Random numbers: naive.Stream


@inlined
def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def seed_stream(stream, seed, purpose, task, attempt):
    state = np.uint64(0)
    for key in (np.uint64(seed), purpose, np.uint64(task), np.uint64(attempt)):
        state = mix(state + (key + np.uint64(1)) * GOLDEN)
    stream[0] = state


@inlined
def below(stream, n):
    stream[0] += GOLDEN
    return np.int64(((mix(stream[0]) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@compiled
def sample(stream, draws, items, n, k):
    """Move a random k of the first n items, in random order, to the front; draws: room for k numbers."""
    state = stream[0]
    for i in range(k):  # as `below` draws them, but many at a time
        draws[i] = mix(state + np.uint64(i + 1) * GOLDEN) >> np.uint64(32)
    stream[0] = state + np.uint64(k) * GOLDEN
    for i in range(k):
        j = i + np.int64((draws[i] * np.uint64(n - i)) >> np.uint64(32))
        items[i], items[j] = items[j], items[i]


# The open list: heapq's binary heap step by step, since a search that tosses coins depends on each comparison


@inlined
def less(a, b, coin, stream):
    if coin and a >> STATE_BITS == b >> STATE_BITS:
        return below(stream, 2) == 1
    return a < b


@inlined
def sift_up(heap, first, i, coin, stream):
    key = heap[i]
    while i > first:
        above = (i - 1) >> 1
        if not less(key, heap[above], coin, stream):
            break
        heap[i] = heap[above]
        i = above
    heap[i] = key


@inlined
def sift_down(heap, n, i, coin, stream):
    key, first = heap[i], i
    lower = 2 * i + 1
    while lower < n:
        if lower + 1 < n and not less(heap[lower], heap[lower + 1], coin, stream):
            lower += 1
        heap[i] = heap[lower]
        i = lower
        lower = 2 * i + 1
    heap[i] = key
    sift_up(heap, first, i, coin, stream)


@compiled
def remove(heap, n, key, coin, stream):
    """Take out a key if it is there; return the new length."""
    i = 0
    while i < n and heap[i] != key:
        i += 1
    if i == n:
        return n
    for j in range(i, n - 1):
        heap[j] = heap[j + 1]
    for i in range((n - 1) // 2 - 1, -1, -1):
        sift_down(heap, n - 1, i, coin, stream)
    return n - 1


# The two domains: naive.MazeTask, naive.SokobanTask


@inlined
def join(cells, worker, a, b):
    return (worker * cells + min(a, b)) * cells + max(a, b)


@compiled
def start_state(board):
    if not board.sokoban:
        return np.int64(board.points[0])
    return np.int64(join(board.grid.size, board.points[0], board.points[1], board.points[2]))


@inlined
def is_goal(sokoban, cells, points, state):
    if not sokoban:
        return state == points[1]
    return state % (cells * cells) == join(cells, 0, points[3], points[4])


@inlined
def children(sokoban, grid, width, state, child):
    """Fill in the children in the deterministic search's order; return how many."""
    n, cells = 0, grid.size
    if not sokoban:
        for step in (width, -width, -1, 1):
            if not grid[state + step]:
                child[n] = state + step
                n += 1
        return n
    worker, a, b = state // (cells * cells), state // cells % cells, state % cells
    for step in (-width, width, -1, 1):
        to, beyond = worker + step, worker + 2 * step
        if grid[to]:
            continue
        if to != a and to != b:
            child[n] = join(cells, to, a, b)
        elif grid[beyond] or beyond == a or beyond == b:
            continue
        else:
            child[n] = join(cells, to, beyond, b if to == a else a)
        n += 1
    return n


@inlined
def heuristic(sokoban, perfect, grid, width, points, x, y, exact, state):
    if perfect:
        return np.int64(exact[state])
    if not sokoban:
        return np.int64(manhattan(x, y, state, points[1]))
    cells = grid.size
    a, b, c, d = state // cells % cells, state % cells, points[3], points[4]
    total = np.int64(0)
    for box in (a, b):
        if box == c or box == d:
            continue
        if (grid[box - 1] or grid[box + 1]) and (grid[box - width] or grid[box + width]):
            return np.int64(INFINITE)
        nearest = INFINITE
        for dock in (c, d):
            if dock != a and dock != b:
                nearest = min(nearest, manhattan(x, y, box, dock))
        total += nearest
    return total


@inlined
def manhattan(x, y, a, b):
    return abs(x[a] - x[b]) + abs(y[a] - y[b])


@compiled
def measure(board, exact):
    """Fill in the exact distance of every state to the goal, breadth first from the goal backwards."""
    grid, points, width, cells = board.grid, board.points, board.width, board.grid.size
    exact[:] = INFINITE
    queue, n, done = np.empty(exact.size, np.int64), 0, 0
    for worker in range(cells if board.sokoban else 1):
        goal = join(cells, worker, points[3], points[4]) if board.sokoban else points[1]
        if not board.sokoban or not (grid[worker] or worker == points[3] or worker == points[4]):
            queue[n], exact[goal] = goal, 0
            n += 1
    before = np.empty(8, np.int64)
    while done < n:
        state = queue[done]
        done += 1
        k = parents(board.sokoban, grid, width, state, before)
        for i in range(k):
            if exact[before[i]] == INFINITE:
                exact[before[i]] = exact[state] + 1
                queue[n] = before[i]
                n += 1


@compiled
def parents(sokoban, grid, width, state, before):
    """Fill in the states that a state is a child of; return how many."""
    if not sokoban:
        return children(sokoban, grid, width, state, before)
    n, cells = 0, grid.size
    worker, a, b = state // (cells * cells), state // cells % cells, state % cells
    for step in (-width, width, -1, 1):
        back, pulled = worker - step, worker + step
        if grid[back] or back == a or back == b:
            continue
        before[n] = join(cells, back, a, b)
        n += 1
        if pulled == a or pulled == b:  # the step may have been a push
            before[n] = join(cells, back, worker, b if pulled == a else a)
            n += 1
    return n


# The search: naive.astar


@compiled
def search(board, rules, scratch):
    """One search. Returns the number of events, which fill the log, and the goal or -1."""
    sokoban, width, grid, points, x, y = board.sokoban, board.width, board.grid, board.points, board.x, board.y
    g, parent, exact, heap = scratch.g, scratch.parent, scratch.h, scratch.heap
    child, log, stream = scratch.child, scratch.log, scratch.stream
    shuffle, coin, low_h, perfect = not rules.deterministic, rules.coin, rules.low_h, rules.perfect
    if perfect:
        measure(board, exact)
    if not (sokoban or shuffle or coin or low_h):
        return ordered_search(board, perfect, scratch)
    state = start_state(board)
    h = heuristic(sokoban, perfect, grid, width, points, x, y, exact, state)
    if h >= INFINITE:
        return 0, np.int64(-1)
    g[state], parent[state] = 0, -1
    heap[0] = key_of(low_h, 0, h, state)
    log[0, 0], log[0, 1], log[0, 2] = state * 2 + CREATE, 0, h
    n_open, n = 1, 1
    while n_open:
        key = heap[0]
        n_open -= 1
        if n_open:
            heap[0] = heap[n_open]
            sift_down(heap, n_open, 0, coin, stream)
        state = key & STATE_MASK
        cost = np.int64(g[state])
        if n + 5 > len(log):
            raise MemoryError("the search is longer than its log")
        log[n, 0], log[n, 1], log[n, 2] = state * 2 + CLOSE, cost, (key >> (STATE_BITS + TIE_BITS)) - cost
        n += 1
        if is_goal(sokoban, grid.size, points, state):
            return n, state
        k = children(sokoban, grid, width, state, child)
        if shuffle:
            for i in range(k - 1, 0, -1):
                j = below(stream, i + 1)
                child[i], child[j] = child[j], child[i]
        cost += 1
        for i in range(k):
            new = child[i]
            old = np.int64(g[new])
            if cost >= old:
                continue
            h = heuristic(sokoban, perfect, grid, width, points, x, y, exact, new)
            if h >= INFINITE:
                continue
            if old < INFINITE:
                n_open = remove(heap, n_open, key_of(low_h, old, h, new), coin, stream)
            g[new], parent[new] = cost, state
            heap[n_open] = key_of(low_h, cost, h, new)
            sift_up(heap, 0, n_open, coin, stream)
            n_open += 1
            log[n, 0], log[n, 1], log[n, 2] = new * 2 + CREATE, cost, h
            n += 1
    return n, np.int64(-1)


@compiled
def ordered_search(board, perfect, scratch):
    """The same for the paper's deterministic search of a maze, several times as fast.

    With unit steps and a consistent heuristic, a child's f is its parent's or 2 more, so that the open list is two
    sets of cells, of this f and of the next, a bit a cell; the cell to close is the lowest of this f.
    """
    width, grid, x, y, start, goal = board.width, board.grid, board.x, board.y, board.points[0], board.points[1]
    g, parent, h, log = scratch.g, scratch.parent, scratch.h, scratch.log
    now, later = scratch.rings[0], scratch.rings[1]
    if not perfect:
        for cell in range(h.size):
            h[cell] = manhattan(x, y, cell, goal)
    now[:] = 0
    later[:] = 0
    f = np.int64(h[start])
    if f >= INFINITE:
        return 0, np.int64(-1)
    g[start], parent[start] = 0, -1
    log[0, 0], log[0, 1], log[0, 2] = start * 2 + CREATE, 0, f
    now[start >> 6] = bit(start)
    word, n = start >> 6, 1
    while True:
        while word < now.size and not now[word]:
            word += 1
        if word == now.size:
            if not later.any():
                return n, np.int64(-1)
            now, later, word, f = later, now, 0, f + 2
            continue
        cell = (word << 6) + lowest_bit(now[word])
        now[word] ^= bit(cell)
        cost = np.int64(g[cell])
        log[n, 0], log[n, 1], log[n, 2] = cell * 2 + CLOSE, cost, f - cost
        n += 1
        if cell == goal:
            return n, cell
        cost += 1
        for step in (width, -width, -1, 1):
            child = cell + step
            if (grid[child] != 0) | (cost >= g[child]):  # one branch
                continue
            if g[child] < INFINITE:  # open, at two more
                later[child >> 6] ^= bit(child)
            if cost + h[child] == f:
                now[child >> 6] |= bit(child)
                word = min(word, child >> 6)
            else:
                later[child >> 6] |= bit(child)
            g[child], parent[child] = cost, cell
            log[n, 0], log[n, 1], log[n, 2] = child * 2 + CREATE, cost, h[child]
            n += 1


@inlined
def bit(i):
    return np.uint64(1) << np.uint64(i & 63)


@inlined
def lowest_bit(word):
    return BIT_OF[(word & (~word + np.uint64(1))) % np.uint64(67)]


@inlined
def key_of(low_h, cost, h, state):
    return (((cost + h) << TIE_BITS) + (h if low_h else 0)) << STATE_BITS | state


@compiled
def forget(g, log, n):
    for i in range(n):
        g[log[i, 0] >> 1] = INFINITE


# Tokens


@compiled
def buffer(tasks, tokens):
    """Room for a batch; ample, as what stays unused takes no memory."""
    return np.empty(tasks * tokens, np.int16)


@compiled
def room(tokens, used, more):
    if used + more <= tokens.size:
        return tokens
    longer = np.empty(max(2 * tokens.size, used + more), np.int16)
    longer[:used] = tokens[:used]
    return longer


@inlined
def put_cell(out, n, word, number, x, y, cell):
    out[n], out[n + 1], out[n + 2] = word, number + x[cell], number + y[cell]
    return n + 3


@compiled
def put_pair(out, n, word, number, x, y, a, b):
    """Two cells, the one of lower x (then y) first."""
    if x[b] < x[a] or (x[b] == x[a] and y[b] < y[a]):
        a, b = b, a
    return put_cell(out, put_cell(out, n, word, number, x, y, a), word, number, x, y, b)


@compiled
def write_prompt(board, out, n):
    width, grid, points, x, y = board.width, board.grid, board.points, board.x, board.y
    if not board.sokoban:
        n = put_cell(out, n, START, MAZE_0, x, y, points[0])
        n = put_cell(out, n, GOAL, MAZE_0, x, y, points[1])
        for row in range(1, width - 1):
            for cell in range(row * width + 1, row * width + width - 1):
                put_cell(out, n, MAZE_WALL, MAZE_0, x, y, cell)  # a branch less, which would be hard to predict
                n += 3 * grid[cell]
        return n
    n = put_cell(out, n, WORKER, SOKOBAN_0, x, y, points[0])
    n = put_pair(out, n, BOX, SOKOBAN_0, x, y, points[1], points[2])
    n = put_pair(out, n, DOCK, SOKOBAN_0, x, y, points[3], points[4])
    for column in range(width):
        for cell in range(column, grid.size, width):
            if grid[cell]:
                n = put_cell(out, n, SOKOBAN_WALL, SOKOBAN_0, x, y, cell)
    return n


@compiled
def read_prompt(board, ids):
    grid, points, width, shift = board.grid, board.points, board.width, board.shift
    number, wall = (SOKOBAN_0, SOKOBAN_WALL) if board.sokoban else (MAZE_0, MAZE_WALL)
    grid.reshape(width, width)[1:-1, 1:-1] = 0
    n = 0
    rows = ids.reshape(-1, 3)
    for i in range(len(rows)):
        cell = (rows[i, 2] - number + shift) * width + rows[i, 1] - number + shift
        if rows[i, 0] == wall:
            grid[cell] = 1
        else:
            points[n] = cell
            n += 1


@compiled
def write_trace(board, log, events, out, n):
    sokoban, cells, x, y = board.sokoban, board.grid.size, board.x, board.y
    c, d = board.points[3], board.points[4]
    cost = (SOKOBAN_0 if sokoban else MAZE_0) + board.size
    if not sokoban:
        end = n + 5 * events
        rows = out[n:end].reshape(events, 5)
        for i in range(events):
            state, action = log[i, 0] >> 1, log[i, 0] & 1
            rows[i, 0], rows[i, 1], rows[i, 2] = MAZE_CREATE + action, MAZE_0 + x[state], MAZE_0 + y[state]
            rows[i, 3], rows[i, 4] = cost + log[i, 1], cost + log[i, 2]
        return end
    for i in range(events):
        state, action, g, h = log[i, 0] >> 1, log[i, 0] & 1, log[i, 1], log[i, 2]
        out[n] = SOKOBAN_CREATE + action
        n = put_cell(out, n + 1, WORKER, SOKOBAN_0, x, y, state // (cells * cells))
        a, b = state // cells % cells, state % cells
        a_off, b_off = a != c and a != d, b != c and b != d  # a box on a dock is not told
        if a_off and b_off:
            n = put_pair(out, n, BOX, SOKOBAN_0, x, y, a, b)
        elif a_off or b_off:
            n = put_cell(out, n, BOX, SOKOBAN_0, x, y, a if a_off else b)
        out[n], out[n + 1] = cost + g, cost + h
        n += 2
    return n


@compiled
def write_plan(board, g, parent, goal, out, n):
    """The plan is followed backwards, so it is written from its end; returns where that is."""
    sokoban, cells, x, y = board.sokoban, board.grid.size, board.x, board.y
    word, number = (SOKOBAN_PLAN, SOKOBAN_0) if sokoban else (MAZE_PLAN, MAZE_0)
    end = n + 3 * (g[goal] + 1)
    for at in range(end - 3, n - 1, -3):
        put_cell(out, at, word, number, x, y, goal // (cells * cells) if sokoban else goal)
        goal = np.int64(parent[goal])
    return end


@compiled
def highest_cost(log, n):
    highest = 0
    for i in range(n):
        highest = max(highest, log[i, 1], log[i, 2])
    return highest


# Drawing: naive.draw_maze, naive.draw_sokoban


@compiled
def draw_maze(board, flood, stream, draws, cells):
    size, width, grid, x, y, free = board.size, board.width, board.grid, board.x, board.y, flood.free
    total, n = size * size, 0
    for row in range(1, size + 1):
        first = row * width + 1
        for column in range(size):
            grid[first + column] = 0
        for column in range(size):
            cells[n + column] = first + column
        n += size
    low, high = total * 3 // 10, total * 5 // 10
    walls = low + below(stream, high - low + 1)
    sample(stream, draws, cells, total, walls + 2)
    free[1:-1] = np.uint64(((1 << size) - 1) << 1)
    for i in range(walls):
        cell = cells[i]
        grid[cell] = 1
        if free.size:
            free[y[cell] + 1] ^= np.uint64(1) << np.uint64(x[cell] + 1)
    board.points[0], board.points[1] = cells[walls], cells[walls + 1]


@compiled
def draw_sokoban(board, stream, draws, cells):
    size, grid, points = board.size, board.grid, board.points
    points[:] = 0
    for row in range(1, size - 1):
        for column in range(1, size - 1):
            grid[row * size + column] = 0
    sample(stream, draws, cells, inside(grid, points, size, 1, cells), 2)
    grid[cells[0]] = grid[cells[1]] = 1
    for first, last, margin in ((1, 3, 2), (0, 1, 1), (3, 5, 1)):  # boxes (not at the border), worker, docks
        sample(stream, draws, cells, inside(grid, points, size, margin, cells), last - first)
        for i in range(first, last):
            points[i] = cells[i - first]


@compiled
def inside(grid, points, size, margin, cells):
    """Fill in the cells that are no wall, box or worker; return how many."""
    n = 0
    for row in range(margin, size - margin):
        for cell in range(row * size + margin, row * size + size - margin):
            if not grid[cell] and cell != points[0] and cell != points[1] and cell != points[2]:
                cells[n] = cell
                n += 1
    return n


@compiled
def new_flood(board):
    rows = board.width if not board.sokoban and board.width <= 64 else 0
    return Flood(np.zeros(rows, np.uint64), np.zeros(rows, np.uint64), np.zeros(rows, np.uint64))


@compiled
def steps_to_goal(board, flood):
    """Steps of a maze's shortest plan, or -1: breadth first, all cells of a distance at a time."""
    width, start, goal = board.width, board.points[0], board.points[1]
    free, reached, new = flood.free, flood.reached, flood.next
    reached[:] = 0
    reached[start // width] = bit(start % width)
    goal_row, goal_bit = goal // width, bit(goal % width)
    steps, changed = 0, np.uint64(1)
    while changed:
        if reached[goal_row] & goal_bit:
            return steps
        steps, changed = steps + 1, np.uint64(0)
        for y in range(1, width - 1):
            row = reached[y]
            new[y] = (row | row << np.uint64(1) | row >> np.uint64(1) | reached[y - 1] | reached[y + 1]) & free[y]
            changed |= new[y] ^ row
        reached, new = new, reached
    return -1


# Batches


@compiled
def make_tasks(sokoban, size, rules, seed, indices, attempt, max_tokens, prompts, traces, plans):
    """Draw tasks until one is kept, for each index. prompts, traces, plans: buffers, the first large enough.

    Returns the buffers, or longer ones, filled with the ids of all tasks one after another; their lengths (N, 3), the
    prompts' hashes (N,) and the counts of tasks drawn, unsolved, too short, too long (4,).
    """
    board, rules = new_board(sokoban, size), Rules(*rules)
    scratch = new_scratch(board, rules.perfect)
    log, flood = scratch.log, new_flood(board)
    cells, draws = np.empty(board.grid.size, np.int32), np.empty(board.grid.size, np.uint64)
    lengths, hashes = np.zeros((indices.size, 3), np.int64), np.zeros(indices.size, np.uint64)
    fate = np.zeros(4, np.int64)
    p = t = q = np.int64(0)  # typed: for a literal 0 numba would compile the writers once more
    layout_stream = np.zeros(1, np.uint64)
    for i in range(indices.size):
        seed_stream(layout_stream, seed, LAYOUT, indices[i], attempt)
        while True:
            if sokoban:
                draw_sokoban(board, layout_stream, draws, cells)
            else:
                draw_maze(board, flood, layout_stream, draws, cells)
            fate[DRAWN] += 1
            if flood.free.size:  # a search is worth its while only if the maze is kept
                steps = steps_to_goal(board, flood)
                if steps + 1 < size:
                    fate[UNSOLVED if steps < 0 else TOO_SHORT] += 1
                    continue
            seed_stream(scratch.stream, seed, SEARCH, indices[i], 0)
            n, goal = search(board, rules, scratch)
            if goal < 0:
                fate[UNSOLVED] += 1
            elif not sokoban and scratch.g[goal] + 1 < size:
                fate[TOO_SHORT] += 1
            else:
                traces = room(traces, t, 12 * n)
                new_t = write_trace(board, log, n, traces, t)
                if not sokoban or (new_t - t < max_tokens and highest_cost(log, n) < SOKOBAN_COSTS):
                    break
                fate[TOO_LONG] += 1
            forget(scratch.g, log, n)
        plans = room(plans, q, 3 * (scratch.g[goal] + 1))
        new_q = write_plan(board, scratch.g, scratch.parent, goal, plans, q)
        forget(scratch.g, log, n)
        new_p = write_prompt(board, prompts, p)
        digest = np.uint64(0)
        for j in range(p, new_p, 3):
            cell = prompts[j] << 32 | prompts[j + 1] << 16 | prompts[j + 2]
            digest = (digest + np.uint64(cell + 1)) * GOLDEN
        hashes[i] = digest
        lengths[i, 0], lengths[i, 1], lengths[i, 2] = new_p - p, new_t - t, new_q - q
        p, t, q = new_p, new_t, new_q
    return prompts, traces, plans, lengths, hashes, fate


@compiled
def solve_tasks(sokoban, size, rules, seed, first, prompts, offsets):
    """Traces and plans of given tasks, ids one after another, and their lengths (2, N): 0 where there is no plan, -1
    where a cost has no token."""
    board, rules = new_board(sokoban, size), Rules(*rules)
    scratch = new_scratch(board, rules.perfect)
    log = scratch.log
    traces, plans = buffer(offsets.size, 4096), buffer(offsets.size, 256)
    lengths = np.zeros((2, offsets.size - 1), np.int64)
    t = q = np.int64(0)
    for i in range(offsets.size - 1):
        read_prompt(board, prompts[offsets[i] : offsets[i + 1]])
        seed_stream(scratch.stream, seed, SEARCH, first + i, 0)
        n, goal = search(board, rules, scratch)
        if sokoban and highest_cost(log, n) >= SOKOBAN_COSTS:
            lengths[1, i] = -1
        elif goal >= 0:
            traces = room(traces, t, 12 * n)
            plans = room(plans, q, 3 * (scratch.g[goal] + 1))
            new_t = write_trace(board, log, n, traces, t)
            new_q = write_plan(board, scratch.g, scratch.parent, goal, plans, q)
            lengths[0, i], lengths[1, i] = new_t - t, new_q - q
            t, q = new_t, new_q
        forget(scratch.g, log, n)
    return traces[:t], plans[:q], lengths


@compiled
def count_events(sokoban, size, rules, seed, first, prompts, offsets, runs):
    """Events of each search, (N, runs), and whether its plan is optimal (N, runs)."""
    board, rules = new_board(sokoban, size), Rules(*rules)
    scratch = new_scratch(board, rules.perfect)
    log = scratch.log
    events, optimal = np.zeros((offsets.size - 1, runs), np.int32), np.zeros((offsets.size - 1, runs), np.bool_)
    exact = np.empty(scratch.g.size, np.int32)
    for i in range(offsets.size - 1):
        read_prompt(board, prompts[offsets[i] : offsets[i + 1]])
        measure(board, exact)
        for run in range(runs):
            seed_stream(scratch.stream, seed, SEARCH, first + i, run)
            n, goal = search(board, rules, scratch)
            events[i, run] = n
            cost = scratch.g[goal] if goal >= 0 else INFINITE
            optimal[i, run] = cost == exact[start_state(board)]
            forget(scratch.g, log, n)
    return events, optimal
