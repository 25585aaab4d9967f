"""How near translations are to those of people: chrF and BLEU by sacrebleu."""

from collections.abc import Sequence

import numpy as np
import sacrebleu


def chrf(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100 (Popovic 2015)."""
    return sacrebleu.corpus_chrf(list(outputs), [list(references)]).score


def bleu(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002)."""
    return sacrebleu.corpus_bleu(list(outputs), [list(references)], force=True).score


def each_chrf(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """chrF of every sentence alone: (n,)."""
    return np.array([sacrebleu.sentence_chrf(out, [human]).score for out, human in zip(outputs, references)])


def each_bleu(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """BLEU of every sentence alone, smoothed as sacrebleu does: (n,)."""
    return np.array([sacrebleu.sentence_bleu(out, [human]).score for out, human in zip(outputs, references)])
