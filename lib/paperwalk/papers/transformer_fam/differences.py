"""The differences of measured figures by which claims are judged."""

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np


def derived(
    m: Mapping[str, float],
    p: SimpleNamespace,
    windows: Iterable[str],
    inside: Mapping[str, dict],
    by_block: Mapping[str, Sequence[float]],
) -> dict[str, float]:
    """Figures by the names that claims use.

    m: the measured ones by name; p: the chapter's parameters; windows: names of the arms without FAM; inside: what was
    seen of the arms "fam" and "no-penalty"; by_block: each book arm's loss in nats a byte by block.
    """
    gap = lambda key, one, other="shared": m[f"{key}.{one}"] - m[f"{key}.{other}"]
    late = lambda arm: float(np.mean(by_block[arm][p.book_blocks :]))
    by_length = {p.fam_length: m["at-5.shared"]} | {n: m[f"at-5.length-{n}"] for n in p.fam_lengths}
    return {
        "passkey.success": float(np.mean([m[f"at-10.{arm}"] >= 0.95 for arm in ("fam", "fam-again")])),
        "passkey.best_baseline": max(m[f"at-10.{arm}"] for arm in windows),
        "gap.xl": gap("anywhere-1", "xl", "bswa-1"),
        "gap.rmt": gap("at-5", "rmt"),
        "gap.segment": gap("at-5", "segment"),
        "gap.no-residual": gap("at-5", "no-residual"),
        "gap.separate": gap("at-5", "separate"),
        "gap.stop-gradient": gap("at-1", "stop-gradient"),
        "gap.static-query": gap("at-5", "static-query"),
        "gap.no-penalty": gap("at-5", "no-penalty"),
        "gap.rsp": gap("at-5", "rsp", "no-penalty"),
        "gap.rsp-always": gap("at-1", "rsp-always", "no-penalty"),
        "gap.other-layer": gap("at-1", "other-layer", "no-penalty"),
        "gap.longest-fam": by_length[max(by_length)] - max(by_length.values()),
        "facts.most": m[f"facts.{max(p.facts)}-{max(p.fact_lengths)}"],
        "book.gain-0": late("book-bswa-0") - late("book-fam-0"),
        "book.gain-1": late("book-bswa-1") - late("book-fam-1"),
        **_of_memories(inside["fam"], inside["no-penalty"], p.longest),
    }


def _of_memories(fam: dict, without: dict, longest: int) -> dict[str, float]:
    """Of what was seen inside with the penalty and without; longest: blocks of the longest training text."""
    slope = lambda norms: float(np.polyfit(np.arange(len(norms)), np.log(np.maximum(norms, 1e-30)), 1)[0])
    growth = lambda norms: norms[-1] / norms[longest - 1]
    looks = int(np.argmax(fam["on_key"]))  # the layer that looks for keys
    return {
        "norm.growth": growth(without["norms"]),
        "norm.growth-penalised": growth(fam["norms"]),
        "gradient.log_slope": slope(fam["gradients"]),
        "gradient.log_slope-no-penalty": slope(without["gradients"]),
        "attention.on_key": fam["on_key"][looks],
        "attention.idle": fam["idle"][looks],
    }
