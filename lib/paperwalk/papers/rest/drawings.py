"""The chapter's figures and tables over its runs; where there are none, the axes stay empty.

`results` are those of `evidence.shown`, one a seed.
"""

import html
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paperwalk import evidence
from paperwalk.evidence import Run
from paperwalk.show import figures, tables
from paperwalk.show.palette import PALETTE

JUDGES = {"quality": "green", "round-trip": "purple", "coverage": "orange"}
BY_STEP = {  # arms that are followed step by step
    "quality": ("ReST", "green"),
    "extra": ("more human data", "black"),
    "human": ("filtered human data", "blue"),
}
# Row of the table: our policy, and the reward of the paper's table 1
REWARDS = {
    "behaviour cloning": ("bc", "70.9"),
    "G = 1, I = 0": ("unfiltered-g1i1", "71.9"),
    "G = 1, I = 3 (paper: 4)": ("quality-g1i3", "77.8"),
    "G = 2, I = 3": ("quality-g2i3", "83.1"),
    "online (paper: PPO)": ("reinforce-g1i1", "71.6"),
    "more human data": ("extra-g1i3", "not run"),
    "filtered human data": ("human-g1i3", "not run"),
    "a person": ("person", "not given"),
}
COLUMNS = {"reward": "reward_quality", "reward, sampled": "sampled_quality", "chrF": "chrf", "BLEU": "bleu"}
AFTER_TWO = "extra", "human", "quality", "percentile", "drawn", "rest-em", "gold"  # Improve steps
AFTER_ONE = "unfiltered", "same", "weighted", "raft"


def path(results: list[Run], figure: str, arm: str, grow: int, improves: range) -> np.ndarray:
    """The figure along an arm's Improve steps of one Grow: (seeds, steps)."""
    return np.transpose(evidence.by_arm(results, figure, [f"{arm}-g{grow}i{i}" for i in improves]))


def changes(results: list[Run], measure: str, arms: Iterable[str], start: str = "bc") -> list[list[float]]:
    """For each arm how far it lies from the cloned policy or another start, one value a run."""
    found = ([evidence.contrast([run], measure, arm, start) for run in results] for arm in arms)
    return [[each.mean for each in of_arm if each.seeds] for of_arm in found]


def baselines(results: list[Run]) -> Figure:
    """BLEU and chrF of what the cloned policy has to beat, and its own."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 2.4))
    shown = {"copied": "copied", "word by word": "word by word", "behaviour cloning": "bc"}
    for ax, what, name in zip(axes, ("bleu", "chrf"), ("BLEU", "chrF")):
        figures.bars(ax, list(shown), evidence.by_arm(results, what, shown.values()))
        ax.set(xlabel=f"{name} on the test sentences")
    axes[1].set(yticklabels=[])
    return fig


def gate(results: list[Run]) -> Figure:
    """chrF of each judge's favourite over the greedy translation, and what repeating the sentence gains."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 2.8))
    choosers = ["chance", *JUDGES, "chrF"]
    over_greedy = changes(results, "dev_chrf", [f"best by {name}" for name in choosers], "greedy")
    if not any(over_greedy):  # the first superseded runs kept differences alone
        over_greedy = evidence.by_arm(results, "gate", choosers)
    figures.bars(axes[0], choosers, over_greedy)
    axes[0].axvline(0, color="grey", linestyle="--")
    axes[0].set(xlabel="chrF of the chosen sample, over greedy")
    twice = [changes(results, f"reward_{judge}", ["said twice"])[0] for judge in JUDGES]
    figures.bars(axes[1], list(JUDGES), twice, PALETTE["orange"])
    axes[1].axvline(0, color="grey", linestyle="--")
    axes[1].set(xlabel="reward gained by saying it twice")
    return fig


def by_step(results: list[Run]) -> Figure:
    """Greedy and sampled reward and chrF along the Improve steps, of both Grows of ReST and of more human data."""
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.8))
    for ax, figure in zip(axes, ("reward_quality", "sampled_quality", "chrf")):
        for arm, (label, colour) in BY_STEP.items() if results else ():
            start = np.transpose(evidence.by_arm(results, figure, ["bc"]))  # (seeds, 1)
            steps = np.hstack([start, path(results, figure, arm, 1, range(1, 7))])
            figures.curve(ax, range(7), steps, label, PALETTE[colour])
        if results:
            third = path(results, figure, "quality", 1, range(3, 4))
            second = np.hstack([third, path(results, figure, "quality", 2, range(1, 4))])
            figures.curve(ax, range(3, 7), second, "ReST, second Grow", PALETTE["orange"])
        ax.set(xlabel="Improve steps")
    for ax, name in zip(axes, ("reward, greedy", "reward, sampled", "chrF")):
        ax.set(title=name)
    axes[0].legend(fontsize="x-small")
    return fig


def reward_table(results: list[Run]) -> pd.DataFrame:
    """The paper's rewards beside ours: mean over seeds and standard deviation."""

    def cell(figure: str, policy: str) -> str:
        numbers = evidence.values(results, f"{figure}.{policy}")
        return f"{np.mean(numbers):.1f} ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""

    ours = lambda policy: {title: cell(figure, policy) for title, figure in COLUMNS.items()}
    return pd.DataFrame({name: {"paper's reward": paper} | ours(policy) for name, (policy, paper) in REWARDS.items()}).T


def by_judge(results: list[Run]) -> Figure:
    """Along the Improve steps of two Grows, what each judge's own reward, chrF and the gold judge change."""
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for ax, judge in zip(axes, JUDGES):
        steps = ["g1i1", "g1i2", "g1i3", "g2i1", *(["g2i2", "g2i3"] if judge == "quality" else [])]
        shown = {f"reward_{judge}": ("its reward", "orange"), "chrf": ("chrF", "blue"), "gold": ("gold judge", "green")}
        for figure, (label, colour) in shown.items() if results else ():
            change = np.transpose(changes(results, figure, ["bc", *(f"{judge}-{step}" for step in steps)]))
            figures.curve(ax, range(len(steps) + 1), change, label, PALETTE[colour])
        ax.axhline(0, color="grey", linestyle="--")
        ax.axvline(3.5, color="grey", linestyle=":")
        ax.set(title=f"trained by {judge}", xlabel="Improve steps")
    axes[0].set(ylabel="change to behaviour cloning, points")
    axes[0].legend(fontsize="small")
    return fig


def examples(results: list[Run], n: int = 3) -> tables.Table:
    """Test sentences, a row for each who translated them."""
    names = {"source": "source", "human": "a person", "bc": "behaviour cloning"}
    names |= {"quality": "by quality", "round-trip": "by round trip", "coverage": "by coverage"}
    rows = [
        [f'<th scope="row">{name}</th>', f"<td>{html.escape(example[key])}</td>"]
        for example in (results[0].kept["examples"][:n] if results else [])
        for key, name in names.items()
    ]
    caption = "Three test sentences, and what each policy makes of them"
    return tables.Table(caption, ["by", "text"], rows, caption)


def drift(results: list[Run]) -> Figure:
    """Along the Improve steps: human translations that pass, KL from behaviour cloning, and length."""
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    steps = range(1, 7)
    for judge, colour in JUDGES.items() if results else ():
        passing = np.transpose(evidence.by_arm(results, f"passes_{judge}", [f"i{i}" for i in steps]))
        figures.curve(axes[0], steps, passing, judge, PALETTE[colour])
    for arm, (label, colour) in BY_STEP.items() if results else ():
        for ax, figure in zip(axes[1:], ("kl", "length")):
            figures.curve(ax, steps, path(results, figure, arm, 1, steps), label, PALETTE[colour])
    titles = "human translations that pass", "KL from behaviour cloning, nats a token", "length over the human's"
    for ax, title in zip(axes, titles):
        ax.set(xlabel="Improve step", title=title)
    axes[0].legend(fontsize="small")
    axes[1].legend(fontsize="small")
    return fig


def other_ways(results: list[Run]) -> Figure:
    """What every way to go on training changes in sampled reward and in chrF against behaviour cloning."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.2))
    policies = {arm: f"{arm}-g1i2" for arm in AFTER_TWO} | {"reinforce": "reinforce-g1i1"}
    policies |= {f"{arm} (one step)": f"{arm}-g1i1" for arm in AFTER_ONE}
    for ax, figure, name in zip(axes, ("sampled_quality", "chrf"), ("reward, sampled", "chrF")):
        change = changes(results, figure, policies.values())
        figures.bars(ax, list(policies), change, PALETTE["sky"])
        ax.axvline(0, color="grey", linestyle="--")
        ax.set(xlabel=f"{name}, change to behaviour cloning")
    axes[1].set(yticklabels=[])
    return fig


def best_of_n(results: list[Run]) -> Figure:
    """Reward and chrF of the sample that the learned judge likes best, over the number of samples."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    shown = {"bc": ("behaviour cloning", "blue"), "quality-g1i3": ("ReST, three Improves", "green")}
    for name, (label, colour) in shown.items() if results else ():
        sizes = [n for n in (2**k for k in range(20)) if f"best_reward.{name}, best of {n}" in results[0].means]
        for measure, ax in zip(("best_reward", "best_chrf"), axes):
            drawn = evidence.by_arm(results, measure, [f"{name}, best of {n}" for n in sizes])
            figures.curve(ax, sizes, np.transpose(drawn), label, PALETTE[colour])
    for ax, what in zip(axes, ("reward", "chrF")):
        ax.set(xscale="log", xlabel="N", ylabel=f"{what} of the best of N")
    axes[0].legend()
    return fig
