"""The masks one target at a time in Python integers: the truth that the fast form is tested against."""

import torch

TWO64 = 2**64


def context_hash(context: list[int]) -> int:
    """Unsigned 64-bit hash of token ids, sensitive to their order (Horner's rule, then a multiply-xorshift mix)."""
    z = 0
    for x in context:
        z = (z + x + 1) * 0x9E3779B97F4A7C15 % TWO64
    z = (z ^ z >> 32) * 0xD6E8FEB86659FD93 % TWO64
    return z ^ z >> 32


def hash_mask(row: list[int], k: int, h: int) -> list[bool]:
    return [i < h or (context_hash(row[i - h : i]) >> 32) * k >= 2**32 for i in range(len(row))]


def static_mask(row: list[int], k: int, h: int) -> list[bool]:
    return [(i + 1) % k != 0 for i in range(len(row))]


def released_mask(row: list[int], k: int, h: int) -> list[bool]:
    table = torch.rand(1_000_003, generator=torch.Generator().manual_seed(2971215073)).tolist()
    keep = [True] * len(row)
    for i in range(h - 1, len(row)):
        product = 1
        for x in row[i - h + 1 : i + 1]:
            product *= x
        product = (product + 2**63) % TWO64 - 2**63  # int64 wraps
        keep[i] = table[product % 1_000_003] >= 1 / k
    return keep
