"""Figures by which claims are judged, worked out from what was measured of each policy.

Measured figures are named `figure.policy`; a policy is `bc`, or an arm with its Grow and Improve: `quality-g1i3`.
"""

from collections.abc import Mapping

import numpy as np

# What an arm is compared by: the name here, and that of the measured figure
KEYS = {"reward": "reward-quality", "sampled": "sampled-quality", "chrf": "chrf", "bleu": "bleu", "gold": "gold"}
# The other ways to go on, each against ReST after as many Improve steps
OTHER_WAYS = {"gold": 2, "percentile": 2, "drawn": 2, "rest-em": 2, "weighted": 1, "raft": 1}


def derived(measured: Mapping[str, float]) -> dict[str, float]:
    """ReST after one Grow and three Improves, and what else was trained, against each other: differences."""
    gap = lambda what, one, other: measured[f"{KEYS[what]}.{one}"] - measured[f"{KEYS[what]}.{other}"]
    out: dict[str, float] = {}
    first, end = "quality-g1i3", "quality-g2i3"
    for name, other in (("bc", "bc"), ("extra", "extra-g1i3"), ("human", "human-g1i3")):
        out |= {f"{what}.over-{name}": gap(what, first, other) for what in KEYS}
    for what in ("reward", "chrf"):
        out[f"{what}.filter-alone"] = gap(what, "human-g1i3", "extra-g1i3")
        out[f"second.{what}"] = gap(what, end, first)
        out[f"second.{what}-fresh"] = gap(what, end, "quality-g1i6")
        out[f"second.{what}-human"] = gap(what, end, "human-g1i6")
        out[f"late.{what}"] = gap(what, "quality-g1i6", first)
        out[f"puzzle.{what}-bc"] = gap(what, "unfiltered-g1i1", "bc")
        out[f"puzzle.{what}-extra"] = gap(what, "unfiltered-g1i1", "extra-g1i1")
        out[f"puzzle.{what}-same"] = gap(what, "unfiltered-g1i1", "same-g1i1")
        out[f"percentile.{what}-higher"] = gap(what, "percentile-g1i2", "percentile-g1i1")
        for arm, step in OTHER_WAYS.items():
            out[f"{what}.over-{arm}"] = gap(what, f"quality-g1i{step}", f"{arm}-g1i{step}")
    out["online.reward"] = gap("reward", "reinforce-g1i1", "quality-g1i2")
    out["online.bleu"] = gap("bleu", "reinforce-g1i1", "bc")
    return out


def at_the_end(measured: Mapping[str, float], last: Mapping[str, str]) -> dict[str, float]:
    """What the last policy of each judge changed against behaviour cloning, and what that had to beat.

    last: by judge the last Grow and Improve of its arm, as in `g2i1`.
    """
    out = {}
    for judge, step in last.items():
        for what in (f"reward-{judge}", "chrf", "bleu", "gold", "length"):
            change = measured[f"{what}.{judge}-{step}"] - measured[f"{what}.bc"]
            out[f"hack.{what.split('-')[0]}.{judge}"] = change
    for what, bar in (("chrf", "copied"), ("bleu", "word by word")):
        out[f"bars.{what}"] = measured[f"{what}.behaviour cloning"] - measured[f"{what}.{bar}"]
    return out


def best_factor(cloned: Mapping[int, tuple[float, float]], reward: float, most: int) -> float:
    """How many times two samples the cloned policy needs for the reward of ReST's best of two; `most` where none do.

    cloned: by number of samples the best one's reward and chrF.
    """
    return min((n for n, (of_best, _) in cloned.items() if of_best >= reward), default=most) / 2


def survival(judge: str, reward: np.ndarray, human: np.ndarray, taus: np.ndarray) -> dict[str, float]:
    """For each threshold of a judge: share of the human translations that pass, and human share of what passes.

    reward (n,); human (n,), bool: by a person.
    """
    passing = [reward > tau for tau in taus]
    figures = {f"survive-{judge}.i{i + 1}": human[keep].sum() / human.sum() for i, keep in enumerate(passing)}
    return figures | {f"passing-human-{judge}.i{i + 1}": human[keep].mean() for i, keep in enumerate(passing)}
