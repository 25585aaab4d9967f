"""The live control of the ReST chapter: translations of a sentence, of which those above a threshold pass."""

from collections.abc import Sequence

from paperwalk.show.controls import Slider, sliders
from paperwalk.show.figures import Display
from paperwalk.show.templates import macros

_VIEW = macros("filter.html", __file__)


def filter_control(
    sentences: Sequence[dict], taus: Sequence[float], start: tuple[int, str, float], alt: str
) -> Display:
    """Show which translations of a sentence pass a threshold, with sliders for the sentence, the reward and tau.

    sentences: dicts of `source`, `texts` (its translations), `human` (which of them are a person's), `rewards`
    (name -> one number each) and `gold` (one number each: chrF against the person's). taus: thresholds. start:
    (number of the sentence from 1, name of the reward, tau); alt: says what the control shows. Raises ValueError for
    a start that is not among the values.
    """
    values = range(1, len(sentences) + 1), list(sentences[0]["rewards"]), taus
    moved = list(map(Slider, ("sentence", "reward", "τ"), values, start))
    picture = lambda number, reward, tau: filtered(sentences[number - 1], reward, tau)
    return sliders("pw-filter", _VIEW, moved, picture, alt)


def filtered(sentence: dict, reward: str, tau: float) -> str:
    """One picture: the translations by falling reward, struck out where they do not lie strictly above tau."""
    rewards = sentence["rewards"][reward]
    lines = sorted(zip(rewards, sentence["texts"], sentence["human"], sentence["gold"]), key=lambda line: -line[0])
    rows = [
        (value > tau, ["person" if human else "sample", text, f"{value:.2f}", "" if human else f"{score:.0f}"])
        for value, text, human, score in lines
    ]
    drawn = [score for _, _, human, score in lines if not human]
    passed = [score for value, _, human, score in lines if not human and value > tau]
    mean = f", mean chrF {sum(passed) / len(passed):.0f}" if passed else ""
    said = f"{len(passed)} of {len(drawn)} samples pass{mean}; all samples: {sum(drawn) / len(drawn):.0f}"
    return _VIEW.picture(sentence["source"], rows, said)
