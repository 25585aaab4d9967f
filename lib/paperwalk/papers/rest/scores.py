"""How near translations are to those of people: chrF and BLEU by sacrebleu, and the paired bootstrap of two systems."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import sacrebleu
from sacrebleu.significance import PairedTest


def chrf(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100 (Popovic 2015)."""
    return sacrebleu.corpus_chrf(list(outputs), [list(references)]).score


def bleu(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002)."""
    return sacrebleu.corpus_bleu(list(outputs), [list(references)], force=True).score


def each_chrf(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """chrF of every sentence alone: (n,)."""
    return np.array([sacrebleu.sentence_chrf(out, [human]).score for out, human in zip(outputs, references)])


def paired(outputs: list[str], other: list[str], references: list[str]) -> dict[str, float]:
    """p-values of the difference in corpus BLEU and chrF of two systems' outputs, by paired bootstrap (Koehn 2004)."""
    metrics = {"bleu": sacrebleu.BLEU(force=True), "chrf": sacrebleu.CHRF()}
    found = PairedTest([("other", other), ("one", outputs)], metrics, [references], "bs", n_samples=1000)()[1]
    return {name: float(cast(Any, found[key][1]).p_value) for name, key in (("bleu", "BLEU"), ("chrf", "chrF2"))}
