"""A gpu profile takes three minutes at most, by counts: the calls of all its updates, at the rate of one thread.

Three seeds side by side have a thread each. Python and autograd come on top of the calls, and the other processes on
the GPU; evaluation and sampling, which replay recorded steps, are not counted. So this bounds from below: a profile
that fails here cannot hold its three minutes.
"""

import pytest

from paperwalk import plan, runs

SECONDS = 180


def goldfish(v):
    """(updates, launches of one over those of `plan`'s step): the arms of the standard experiment, then the extreme."""
    more = round(v["steps"] / (1 - 1 / v["k"]))  # until as many targets were supervised
    alike = 2 + len(v["ks"]) + 3 + 2 + 1 + len(v["hs"]) - 1 + 2 * (len(v["widths"]) - 1)
    smollm2 = 30 / v["n_layers"]  # layers over ours
    return [(alike * v["steps"] + (1 + len(v["edits"])) * more, 1), (2 * v["extreme_steps"], smollm2)]


def transformer_fam(v):
    """With the penalty a text is read in up to four stretches."""
    kinds = 1 + 6 + len(v["fam_lengths"]) + len(v["facts"]) * len(v["fact_lengths"])  # RMT, ablations, lengths, facts
    without = 1 + 5 + 3 + 1  # full attention, windows and XL, ablations, other layer
    penalised = 2 * v["steps"] + kinds * v["short_steps"]
    return [(penalised, 4), (without * v["short_steps"] + 4 * v["book_steps"], 1)]


def rest(v):
    """Cloning both ways, then sixty Improves, the most that the chapter's arms take together, and REINFORCE."""
    return [(v["bc_steps"] + v["judge_steps"] + 60 * v["improve_steps"] + v["online_steps"], 1)]


def searchformer(v):
    """Twelve arms of `steps`, one of as many tokens in plans alone, the one that is bootstrapped, and four chains."""
    from paperwalk.kernels import astar

    tasks = astar.generate("maze", v["size"], 200, 0)
    share = lambda group: 1 - v["whole_cells"] / group
    plans, traces = tasks.lengths("plan").mean() * share(3), tasks.lengths("trace").mean() * share(5)
    as_many_tokens = v["steps"] * (plans + traces) / plans
    chains = 4 * v["rounds"] * v["bootstrap_steps"]
    return [(12 * v["steps"] + as_many_tokens + v["coin_steps"] + chains, 1)]


@pytest.mark.parametrize("updates", [goldfish, transformer_fam, rest, searchformer], ids=lambda f: f.__name__)
def test_three_minutes(updates):
    values = runs.profile_values(updates.__name__, "gpu")
    launches = plan.count(plan.TRAININGS[updates.__name__](values), 1).launches
    seconds = sum(number * factor for number, factor in updates(values)) * launches / plan.LAUNCH_RATE
    print(f"{updates.__name__}: {seconds:.0f} s for {sum(number for number, _ in updates(values)):.0f} updates")
    assert 20 < seconds < SECONDS
