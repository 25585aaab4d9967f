"""The two planning domains of Searchformer (arXiv 2402.14083): boards, their prompts and their vocabulary."""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

from paperwalk.checks import is_whole, require

Cell = tuple[int, int]  # (x, y), each from 0 to size - 1


@dataclass(frozen=True)
class Maze:
    """A size x size maze: go from start to goal over free cells, one unit step at a time.

    walls may be given in any order and are kept sorted by x + y * size, the prompt's order. Raises ValueError
    naming the field for a cell outside the grid, given twice, or used both as a wall and as start or goal.
    """

    domain: ClassVar[str] = "maze"
    size: int
    start: Cell
    goal: Cell
    walls: tuple[Cell, ...]

    def __post_init__(self):
        check_size("maze", self.size)
        object.__setattr__(self, "walls", tuple(sorted(self.walls, key=lambda cell: (cell[1], cell[0]))))
        _check_cells(self, [("start", self.start), ("goal", self.goal), *(("walls", cell) for cell in self.walls)])

    @cached_property
    def prompt(self) -> list[str]:
        return _say([("start", self.start), ("goal", self.goal), *(("wall", cell) for cell in self.walls)])

    @classmethod
    def from_prompt(cls, prompt: list[str], size: int) -> "Maze":
        """The inverse of `prompt`. Raises ValueError where the tokens are no maze prompt."""
        cells = _read(prompt, ("start", "goal", "wall"))
        if len(cells["start"]) != 1 or len(cells["goal"]) != 1:
            raise ValueError("prompt: must have one start and one goal")
        return cls(size, cells["start"][0], cells["goal"][0], tuple(cells["wall"]))


@dataclass(frozen=True)
class Sokoban:
    """A size x size Sokoban board: push the two boxes onto the two docks, in any assignment.

    walls include the border. boxes, docks and walls are kept sorted by x, then y, the prompt's order. Raises
    ValueError naming the field for a cell outside the grid, given twice, or used by two things (a box or the worker
    on a dock included: the paper's boards start with every dock free), and for a border with a hole.
    """

    domain: ClassVar[str] = "sokoban"
    size: int
    worker: Cell
    boxes: tuple[Cell, Cell]
    docks: tuple[Cell, Cell]
    walls: tuple[Cell, ...]

    def __post_init__(self):
        check_size("sokoban", self.size)
        for name in ("boxes", "docks", "walls"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        for name in ("boxes", "docks"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} = {getattr(self, name)}: must be two cells")
        groups = [(name, cell) for name in ("boxes", "docks", "walls") for cell in getattr(self, name)]
        _check_cells(self, [("worker", self.worker), *groups])
        if not set(border(self.size)) <= set(self.walls):
            raise ValueError("walls: must include the whole border")

    @cached_property
    def prompt(self) -> list[str]:
        groups = (("box", self.boxes), ("dock", self.docks), ("wall", self.walls))
        return _say([("worker", self.worker), *((word, cell) for word, cells in groups for cell in cells)])

    @classmethod
    def from_prompt(cls, prompt: list[str], size: int) -> "Sokoban":
        """The inverse of `prompt`. Raises ValueError where the tokens are no Sokoban prompt."""
        cells = _read(prompt, ("worker", "box", "dock", "wall"))
        if len(cells["worker"]) != 1:
            raise ValueError("prompt: must have one worker")
        return cls(size, cells["worker"][0], tuple(cells["box"]), tuple(cells["dock"]), tuple(cells["wall"]))


LAYOUTS: dict[str, type[Maze] | type[Sokoban]] = {"maze": Maze, "sokoban": Sokoban}
WORDS = {
    "maze": ("start", "goal", "wall", "create", "close", "plan"),
    "sokoban": ("worker", "box", "dock", "wall", "create", "close", "plan"),
}
SIZES = {"maze": (2, 100), "sokoban": (6, 10)}  # 6: the smallest that has room; 10: coordinates stay one digit
SOKOBAN_COSTS = 128  # numba_impl compiles in this and WORDS, and its cache does not see a change here: edit both


def vocabulary(domain: str, size: int) -> list[str]:
    """The tokens of a domain; a token's id is its position. Raises ValueError for an unknown domain or a bad size.

    bos, eos, the words, the coordinates 0 .. size - 1, the costs c0, c1, ... A maze has size * size costs, as the
    paper's: 118, 428 and 938 tokens for size 10, 20 and 30. Sokoban has 128 (the authors' code reserves 40,000, and
    with them most of a small model's embeddings, for costs that never occur). Padding is no token: its id is
    `len(vocabulary(domain, size))`.
    """
    check_size(domain, size)
    return list(_vocabulary(domain, size))


@cache
def _vocabulary(domain, size):
    costs = size * size if domain == "maze" else SOKOBAN_COSTS
    numbers, prices = (str(i) for i in range(size)), (f"c{i}" for i in range(costs))
    return ("bos", "eos", *WORDS[domain], *numbers, *prices)


@cache
def token_ids(domain: str, size: int) -> dict[str, int]:
    return {token: i for i, token in enumerate(_vocabulary(domain, size))}


def check_size(domain: str, size: int) -> None:
    if domain not in LAYOUTS:
        raise ValueError(f"domain = {domain!r}: must be one of {', '.join(LAYOUTS)}")
    low, high = SIZES[domain]
    require("size", size, is_whole(size, low, high), f"a whole number from {low} to {high} for domain {domain}")


def border(size: int) -> list[Cell]:
    return [(x, y) for x in range(size) for y in range(size) if {x, y} & {0, size - 1}]


def _check_cells(layout, named):
    seen: dict[Cell, str] = {}
    for name, cell in named:
        if not (isinstance(cell, tuple) and len(cell) == 2 and all(c in range(layout.size) for c in cell)):
            raise ValueError(f"{name} = {cell!r}: must be (x, y), each from 0 to {layout.size - 1}")
        if cell in seen:
            raise ValueError(f"{name} = {cell}: must be a cell of its own, but {seen[cell]} has it too")
        seen[cell] = name


def _say(named):
    return [token for word, (x, y) in named for token in (word, str(x), str(y))]


def _read(prompt, words):
    cells: dict[str, list[Cell]] = {word: [] for word in words}
    for i in range(0, len(prompt), 3):
        match list(prompt[i : i + 3]):
            case [word, x, y] if word in cells and is_number(x) and is_number(y):
                cells[word].append((int(x), int(y)))
            case group:
                raise ValueError(f"prompt: {' '.join(map(str, group))!r} at token {i}: must be a word of {words}, x, y")
    return cells


def is_number(token: object) -> bool:
    """Whether a token is a whole number as the vocabulary writes it: ASCII digits, no leading zero, no sign."""
    return isinstance(token, str) and token.isascii() and token.isdigit() and (token == "0" or token[0] != "0")
