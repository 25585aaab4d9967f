"""A gpu profile takes three minutes at most for three seeds in turn, by counts: all updates' calls, at a thread's rate.

Seeds side by side have a thread each, but take turns on the GPU, so nothing is counted on that. Python and autograd
come on top of the calls; evaluation and sampling, which replay recorded steps, are not counted. So this bounds from
below: a profile that fails here cannot hold its three minutes. The counts stand in the profile; its bytes:
test_memory.py.
"""

import json

import pytest

from deploy.gpu import runner
from paperwalk import costs, runs
from paperwalk.runs.parameters import profile_file

pytestmark = pytest.mark.full

SECONDS = runner.SECONDS["chapter"]


def goldfish(v):
    """(updates, launches and operations of one over those of `plan`'s step): the standard experiment, the extreme."""
    more = round(v["steps"] / (1 - 1 / v["k"]))  # until as many targets were supervised
    alike = 2 + len(v["ks"]) + 3 + 2 + 1 + len(v["hs"]) - 1 + 2 * (len(v["widths"]) - 1)
    smollm2 = 6 * 135e6 * v["extreme_batch"] * v["extreme_tokens"] / operations("goldfish", v)
    return [
        (alike * v["steps"] + (1 + len(v["edits"])) * more, 1, 1),
        (2 * v["extreme_steps"], 30 / v["n_layers"], smollm2),  # of 30 layers and 135 million parameters
    ]


def transformer_fam(v):
    """With the penalty a text is read in up to four stretches."""
    kinds = 1 + 6 + len(v["fam_lengths"]) + len(v["facts"]) * len(v["fact_lengths"])  # RMT, ablations, lengths, facts
    without = 1 + 5 + 3 + 1  # full attention, windows and XL, ablations, other layer
    penalised = 2 * v["steps"] + kinds * v["short_steps"]
    return [(penalised, 4, 1), (without * v["short_steps"] + 4 * v["book_steps"], 1, 1)]


def rest(v):
    """Cloning both ways, then sixty Improves, the most that the chapter's arms take together, and REINFORCE."""
    return [(v["bc_steps"] + v["judge_steps"] + 60 * v["improve_steps"] + v["online_steps"], 1, 1)]


def searchformer(v):
    """Twelve arms of `steps`, one of as many tokens in plans alone, the one that is bootstrapped, and four chains."""
    from paperwalk.kernels import astar

    tasks = astar.generate("maze", v["size"], 200, 0)
    share = lambda group: 1 - v["whole_cells"] / group
    plans, traces = tasks.lengths("plan").mean() * share(3), tasks.lengths("trace").mean() * share(5)
    as_many_tokens = v["steps"] * (plans + traces) / plans
    chains = 4 * v["rounds"] * v["bootstrap_steps"]
    return [(12 * v["steps"] + as_many_tokens + v["coin_steps"] + chains, 1, 1)]


def operations(chapter, values):
    """Of one update of the chapter's main arm."""
    training = costs.training_of(chapter, values)
    return costs.count(training, 1).flops * training.rows


@pytest.mark.parametrize("updates", [goldfish, transformer_fam, rest, searchformer], ids=lambda f: f.__name__)
def test_three_minutes(updates):
    chapter = updates.__name__
    values = runs.profile_values(chapter, "gpu")
    probe = json.loads((runs.ROOT / "benchmarks/gpu/2026-11-26-h200/probe.json").read_text())
    counted = updates(values)
    number = sum(n for n, _, _ in counted)
    launches = sum(n * more for n, more, _ in counted) * costs.count(costs.training_of(chapter, values), 1).launches
    flops = sum(n * more for n, _, more in counted) * operations(chapter, values)
    by_launches, by_flops = launches / costs.LAUNCH_RATE, flops / probe["bf16_TFLOP_a_second"] / 1e12
    assert 20 < by_launches <= SECONDS / len(runner.SEEDS)
    assert by_flops < by_launches / 5  # which is why operations are not added
    said = (
        f"{number:,.0f} updates; {launches:.1e} launches, {by_launches:.0f} s; {flops:.1e} operations, {by_flops:.1f} s"
    )
    assert f"# A seed, counted: {said}" in profile_file(chapter, "gpu").read_text(encoding="utf-8"), said
