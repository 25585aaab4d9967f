"""The live control of the TransformerFAM chapter: a row of blocks, the last of which asks."""

from collections.abc import Sequence

from paperwalk.show.controls import Slider, sliders
from paperwalk.show.figures import Display
from paperwalk.show.templates import macros

_VIEW = macros("reach.html", __file__)


def reach_control(
    lengths: Sequence[int],
    segments: Sequence[int],
    fams: Sequence[int],
    n_layers: int,
    start: tuple[int, int, int],
    alt: str,
) -> Display:
    """Show which blocks the last token of a text can draw on, with sliders for length, M and F.

    lengths: numbers of blocks; segments: values of M; fams: values of F, of which only 0 and not 0 differ; n_layers:
    M segments in each of so many layers reach n_layers * M blocks back. start: (length, M, F) shown first; alt:
    says what the control shows. Raises ValueError for a start that is not among the values.
    """
    names = ("blocks read so far", "M: memory segments", "F: vectors of the FAM")
    moved = list(map(Slider, names, (lengths, segments, fams), start))
    return sliders("pw-reach", _VIEW, moved, lambda blocks, memory, fam: reach(blocks, memory, fam, n_layers), alt)


def reach(blocks: int, memory: int, fam: int, n_layers: int) -> str:
    """One picture: the blocks in a row, coloured by the way that leads to them, and a line of counts."""
    reached = min(memory * n_layers, blocks - 1)
    rest = blocks - 1 - reached
    lost = "remembered through the FAM" if fam else "out of reach"
    said = f"own block: 1; through memory segments: {reached}; {lost}: {rest}"
    return _VIEW.picture(["fam" if fam else ""] * rest + ["memory"] * reached + ["own"], said)
