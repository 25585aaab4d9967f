"""Which rows make a batch: all come once before any comes again, those of like length together."""

import functools
from collections.abc import Callable, Sequence

import torch


def shuffled(lengths: Sequence[int], size: int, seed: int) -> Callable[[int], list[int]]:
    """step -> the numbers of `size` rows (of all, where there are fewer).

    lengths: of each row; rows of like length are looked for among twenty batches' worth at a time. Every epoch has its
    own order, and the last rows of it that make no whole batch are left out.
    """
    n = len(lengths)
    per_epoch = max(1, n // size)

    @functools.lru_cache(maxsize=1)  # steps come in turn
    def epoch(number: int) -> list[list[int]]:
        g = torch.Generator().manual_seed(seed * 1_000_003 + number)
        order = torch.randperm(n, generator=g)[: per_epoch * size]
        chunks = [sorted(chunk.tolist(), key=lambda i: lengths[i]) for chunk in order.split(20 * size)]
        rows = torch.tensor([i for chunk in chunks for i in chunk]).view(-1, min(size, n))
        return rows[torch.randperm(len(rows), generator=g)].tolist()

    return lambda step: epoch(step // per_epoch)[step % per_epoch]
