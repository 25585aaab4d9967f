"""The live control of the goldfish chapter: which targets the loss drops."""

import itertools
from collections.abc import Mapping, Sequence

from paperwalk.show.controls import Slider, sliders
from paperwalk.show.figures import Display
from paperwalk.show.templates import macros

_VIEW = macros("mask.html", __file__)


def token_mask_control(
    tokens: Sequence[str],
    masks: Mapping[tuple[int, int], Sequence[bool]],
    ks: Sequence[int],
    hs: Sequence[int],
    k0: int,
    h0: int,
    alt: str,
) -> Display:
    """Show which targets a mask drops, with one slider for k and one for h.

    tokens: T strings that joined give the text; masks: {(k, h): T booleans, True where the target is kept} for
    every k of ks and h of hs; k0, h0: the values shown first; alt: says what the control shows.
    In a live kernel it is an ipywidget; in a rendered page inline HTML that needs no network and without
    JavaScript shows the mask of k0, h0. Raises ValueError for a missing mask or one of another length.
    """
    k_values, h_values = [int(k) for k in ks], [int(h) for h in hs]
    for pair in itertools.product(k_values, h_values):
        if len(masks.get(pair, ())) != len(tokens):
            raise ValueError(f"masks[{pair}]: must hold {len(tokens)} booleans, one a token")

    def picture(k: int, h: int) -> str:
        kept = masks[k, h]
        n = sum(not each for each in kept)
        said = f"k = {k}, h = {h}: {n} of {len(kept)} targets dropped ({100 * n / len(kept):.1f} %)"
        return _VIEW.picture(list(zip(tokens, kept, strict=True)), said)

    moved = (
        Slider("k: one target in k is dropped", k_values, int(k0)),
        Slider("h: tokens that the hash sees", h_values, int(h0)),
    )
    bits = [["".join("01"[bool(kept)] for kept in masks[k, h]) for h in h_values] for k in k_values]
    shown = [[f"k = {k}" for k in k_values], [f"h = {h}" for h in h_values]]
    drawn = {"values": shown, "tokens": list(tokens), "masks": bits}
    return sliders("pw-mask", _VIEW, moved, picture, alt, drawn)
