"""The differences of measured figures by which claims are judged."""

import itertools
from collections.abc import Mapping

import numpy as np


def derived(m: Mapping[str, float], rounds: int) -> dict[str, float]:
    """Figures by the names that claims use; m: the measured ones by name, rounds: those of bootstrapping."""
    gap = lambda key, one, other: m[f"{key}.{one}"] - m[f"{key}.{other}"]
    last = f"round-{rounds}"
    ratios = [m[f"length_ratio.{turn}"] for turn in ("coin", *(f"round-{i}" for i in range(1, rounds + 1)))]
    searches = m["valid.coin"] >= 0.5  # else there is nothing that could be kept
    return {
        "optimal_gap.equal_sequences": gap("optimal", "trace", "plan"),
        "optimal_gap.few": gap("optimal", "trace-few", "plan-few"),
        "optimal_gap.fewest": gap("optimal", "trace-fewest", "plan-fewest"),
        "optimal_gap.tenth_of_data": gap("optimal", "trace-few", "plan"),
        "optimal_gap.smaller_model": gap("optimal", "trace-small", "plan"),
        "optimal_gap.small_models": gap("optimal", "trace-small", "plan-small"),
        "optimal_gap.smallest_models": gap("optimal", "trace-smallest", "plan-smallest"),
        "optimal_gap.equal_tokens": gap("optimal", "trace", "plan-tokens"),
        "optimal_gap.own_against_swapped": gap("optimal", "trace", "swapped"),
        "optimal_gap.own_against_swapped_few": gap("optimal", "trace-few", "swapped-few"),
        "any_optimal_gap.equal_sequences": gap("any_optimal", "trace", "plan"),
        "any_optimal_gap.few": gap("any_optimal", "trace-few", "plan-few"),
        "any_optimal_gap.fewest": gap("any_optimal", "trace-fewest", "plan-fewest"),
        "bootstrap.largest_step": float(np.max([after / before for before, after in itertools.pairwise(ratios)])),
        "bootstrap.optimal_gap": gap("any_optimal", last, "coin"),
        "bootstrap.against_control": gap("length_ratio", f"more-{rounds}", last),
        "bootstrap.valid_gap": gap("valid", last, "coin"),
        "bootstrap.valid_kept": m[f"valid.{last}"] / m["valid.coin"] if searches else np.nan,
        "bootstrap.valid_shortened": gap("length_ratio_valid", last, "coin"),
        "needs_trace.coin": m["forced_own.coin"] - m["forced_foreign.coin"],
        "needs_trace.bootstrapped": m[f"forced_own.{last}"] - m[f"forced_foreign.{last}"],
        "needs_trace.swapped": m["forced_own.swapped"] - m["forced_foreign.swapped"],
    }
