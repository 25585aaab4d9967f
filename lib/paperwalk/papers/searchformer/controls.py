"""The live control of the Searchformer chapter: a search on a maze, event by event."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from paperwalk.show.controls import Parts, control, widgets
from paperwalk.show.figures import Display
from paperwalk.show.templates import macros

_VIEW = macros("search.html", __file__)

Cell = tuple[int, int]
Event = tuple[str, int, int, int, int]


def search_player(
    width: int,
    height: int,
    start: Sequence[int],
    goal: Sequence[int],
    walls: Iterable[Sequence[int]],
    events: Iterable[Sequence],
    plan: Iterable[Sequence[int]],
) -> Display:
    """Show a search on a maze event by event, with a slider over the steps and a play button.

    start, goal and each of walls and plan: a cell (x, y) with 0 <= x < width and 0 <= y < height, drawn with y
    upwards; events: the search's log, ("create" or "close", x, y, g, h) in its order, where the cost f = g + h;
    plan: the path's cells, start included; may be empty. Step t shows the search after t events, the latest in the
    tokens of Lehnert et al. (arXiv 2402.14083): a node is open after a create and closed after a close. The path
    stands at the last step.
    In a live kernel it is an ipywidget; in a rendered page inline HTML that needs no network and without
    JavaScript shows the last step. Raises ValueError for an empty log, an unknown kind of event and a cell outside
    the grid or on a wall.
    """
    cell = lambda at: (int(at[0]), int(at[1]))
    logged = [(str(kind), int(x), int(y), int(g), int(h)) for kind, x, y, g, h in events]
    ends = cell(start), cell(goal)
    search = _Search(cell((width, height)), *ends, sorted(set(map(cell, walls))), logged, list(map(cell, plan)))
    search.check()
    return control(search.page, search.live, search, search.in_words())


class _Search(NamedTuple):
    """A search and its pictures: after t events a node is in the state of its latest event."""

    size: tuple[int, int]
    start: Cell
    goal: Cell
    walls: list[Cell]
    events: list[Event]
    plan: list[Cell]

    def check(self) -> None:
        """Raises ValueError where there is no event, or one that cannot be shown."""
        if not self.events:
            raise ValueError("events = []: must hold at least one event")
        for i, (kind, x, y, _, _) in enumerate(self.events):
            if kind not in ("create", "close"):
                raise ValueError(f"events[{i}] = {self.events[i]}: must be a 'create' or a 'close'")
            self._check_cell(f"events[{i}] = {self.events[i]}", (x, y), self.walls)
        plan = [(f"plan[{i}]", cell) for i, cell in enumerate(self.plan)]
        for name, cell in [("start", self.start), ("goal", self.goal), *plan]:
            self._check_cell(f"{name} = {cell}", cell, self.walls)
        for cell in self.walls:
            self._check_cell(f"walls: {cell}", cell, ())

    def _check_cell(self, what: str, cell: Cell, walls: Sequence[Cell]) -> None:
        if not all(0 <= at < n for at, n in zip(cell, self.size, strict=True)):
            raise ValueError(f"{what}: must be in the grid of {self.size[0]} x {self.size[1]} cells")
        if cell in walls:
            raise ValueError(f"{what}: must not be on a wall")

    def in_words(self) -> str:
        """What the player shows, for readers who do not see it."""
        states = {(x, y): kind for kind, x, y, _, _ in self.events}
        closed = list(states.values()).count("close")
        path = f"the path of {len(self.plan)} cells is drawn." if self.plan else "there is no path."
        return (
            f"A search of a maze of {self.size[0]} by {self.size[1]} cells, {len(self.walls)} of them walls, from S at "
            f"{self.start} to G at {self.goal}, x to the right and y upwards: the open and closed nodes with their "
            f"costs after each of {len(self.events)} events; at the end {closed} nodes are closed and "
            f"{len(states) - closed} open, and {path}"
        )

    def picture(self, t: int) -> tuple[str, str]:
        """Step t: its event and the counts, and the board."""
        past, last = self.events[:t], len(self.events)
        created = sum(kind == "create" for kind, *_ in past)
        tokens = "{} {} {} c{} c{}".format(*past[-1]) if past else ""
        progress = _VIEW.progress(tokens, f"step {t} of {last}: {created} created, {t - created} closed")
        corner = lambda cell: (40 * cell[0], 40 * (self.size[1] - 1 - cell[1]))
        states = {(x, y): (kind, g, h) for kind, x, y, g, h in past}
        nodes = [(corner(cell), *state) for cell, state in states.items()]
        ends = [("S", corner(self.start)), ("G", corner(self.goal))]
        now = corner(self.events[max(t, 1) - 1][1:3])
        walls, plan = list(map(corner, self.walls)), list(map(corner, self.plan))
        board = _VIEW.board(self.size, self.in_words(), ends, walls, plan, nodes, now, t > 0, t == last)
        return progress, board

    def page(self, name: str) -> str:
        """The player as HTML with its events and script inside."""
        data = {"name": f"pw-search-{name}", "events": self.events}
        return _VIEW.page(self.size[0], *self.picture(len(self.events)), data)

    def live(self, parts: Parts) -> Any:
        """The player as widgets: a film of one picture a step, moved by a button and a slider."""
        last = len(self.events)
        html = lambda *inner: parts.make(widgets.HTML, value=_VIEW.part(inner))
        film = parts.make(
            widgets.Stack, children=[html(*self.picture(t)) for t in range(last + 1)], selected_index=last
        )
        steps: dict[str, Any] = {"min": 0, "max": last, "value": last}
        play = parts.make(widgets.Play, interval=min(400, 20_000 // last), **steps)
        slider = parts.make(widgets.IntSlider, description="step", **steps)
        parts.link((play, "value"), (slider, "value"))
        parts.link((slider, "value"), (film, "selected_index"))
        moved = parts.make(widgets.HBox, children=[play, slider])
        return parts.make(widgets.VBox, children=[html(_VIEW.style()), moved, film, html(_VIEW.key())])
