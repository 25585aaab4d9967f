"""The machinery of the live controls: widgets for a live kernel, and HTML with a script for the rendered page.

A control is one display object with both faces. Neither needs the network, and the links between widgets no kernel.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from paperwalk.show.figures import Display
from paperwalk.show.templates import digest, macros

try:
    import ipywidgets as widgets
    from ipywidgets.widgets.widget_link import Link
except ImportError:  # a bare machine without Jupyter: a control has the page's face alone
    widgets = None

_SLIDERS = macros("sliders.html")
_live: dict[str, Any] = {}  # a cell that runs again shows the same widget: its ids must not be given twice


class Parts:
    """Makes the parts of a control's live face, with ids that repeat from run to run."""

    def __init__(self, name: str):
        self._ids = (f"{name}{number:016x}" for number in itertools.count())
        self._layout = self._new(widgets.Layout, width="auto")
        self._styles: dict[tuple, Any] = {}

    def _new(self, kind: type, *args: Any, **traits: Any) -> Any:
        return kind(*args, model_id=next(self._ids), **traits)

    def make(self, kind: Any, *, name_width: str = "", **traits: Any) -> Any:
        """A widget as wide as there is room; name_width: that of the name before it, where it has one."""
        if hasattr(kind, "style"):
            key = kind.style.klass, name_width
            if key not in self._styles:
                self._styles[key] = self._new(key[0], description_width=name_width)
            traits["style"] = self._styles[key]
        return self._new(kind, layout=self._layout, **traits)

    def link(self, source: tuple[Any, str], target: tuple[Any, str]) -> None:
        """Makes a trait follow another one, in the browser; both are given as (widget, name)."""
        self._new(Link, source, target)


def control(page: Callable[[str], str], live: Callable[[Parts], Any], content: Any, alt: str) -> Display:
    """Both faces of a control (where ipywidgets is missing, the page's) and its text alternative.

    page: makes the HTML, given the name that its ids start from; live: makes the widget, given its parts' maker;
    content: JSON-like, all that the control shows: the ids come from it.
    """
    name = digest(content, alt)
    faces: dict[str, Any] = {"text/html": str(page(name)), "text/plain": alt}
    if widgets is not None:
        if name not in _live:
            _live[name] = live(Parts(name))
        view = {"version_major": 2, "version_minor": 0, "model_id": _live[name].model_id}
        faces = {"application/vnd.jupyter.widget-view+json": view} | faces
    return Display(faces)


class Slider(NamedTuple):
    """A slider: its name, the values it moves over, and the one shown first."""

    name: str
    values: Sequence
    start: Any


def sliders(
    kind: str, view: Any, moved: Sequence[Slider], picture: Callable[..., str], alt: str, drawn: dict | None = None
) -> Display:
    """A control that shows the picture of the values chosen by its sliders; each is made beforehand.

    kind: class of the control; view: macros of its template, of which `style` gives its CSS and `legend` (may be
    missing) what stands below the picture; `picture(*values)`: HTML; alt: says what the control shows.
    drawn: where given, the page holds this JSON-like data instead of the pictures, and the macro `draw` gives the
    script's function of (element, data, places of the chosen values) that draws them from it.
    Raises ValueError for a start that is not among the values.
    """
    for name, values, start in moved:
        if start not in values:
            raise ValueError(f"start: {name} = {start!r}: must be one of {list(values)}")
    placed = [(name, list(values), list(values).index(start)) for name, values, start in moved]

    def pictures(*chosen: Any) -> Any:
        """The picture of a choice, nested over the values of the sliders that are left."""
        if len(chosen) == len(placed):
            return picture(*chosen)
        return [pictures(*chosen, value) for value in placed[len(chosen)][1]]

    frames = pictures()
    data = {"values": [values for _, values, _ in placed]} | ({"frames": frames} if drawn is None else drawn)
    shown = picture(*(start for _, _, start in moved))

    def page(name: str) -> str:
        named = {"id": f"{kind}-{name}"} | data
        return _SLIDERS.control(view, kind, placed, shown, alt, named, drawn is None)

    return control(page, lambda parts: _live_sliders(parts, kind, view, placed, frames), [kind, placed, frames], alt)


def _live_sliders(parts: Parts, kind: str, view: Any, placed: Sequence[tuple], frames: Any) -> Any:
    """The sliders as widgets, over a stack of the first one's values, of stacks of the next one's, of pictures."""
    head = parts.make(widgets.HTML, value=_SLIDERS.head(view, kind))
    made = [
        parts.make(widgets.SelectionSlider, name_width="17em", description=name, options=values, index=at)
        for name, values, at in placed
    ]

    def stack(frames: Any, depth: int = 0) -> Any:
        if depth == len(placed):
            return parts.make(widgets.HTML, value=_SLIDERS.part(kind, frames))
        children = [stack(inner, depth + 1) for inner in frames]
        stacked = parts.make(widgets.Stack, children=children, selected_index=placed[depth][2])
        parts.link((made[depth], "index"), (stacked, "selected_index"))
        return stacked

    return parts.make(widgets.VBox, children=[head, *made, stack(frames)])
