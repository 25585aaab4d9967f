"""Vectorised masks: the same integer operations on any device, so the masks are the same too."""

from functools import cache

import torch

MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # odd; as a signed 64-bit number, torch's only integer of that width
FINAL = 0xD6E8FEB86659FD93 - 2**64
TABLE_SIZE, TABLE_SEED = 1_000_003, 2971215073  # the authors' code


def hash_mask(ids: torch.Tensor, k: int, h: int) -> torch.Tensor:
    keep = torch.ones_like(ids, dtype=torch.bool)  # (..., T)
    n = ids.shape[-1] - h  # targets with a full context
    if n <= 0:
        return keep
    z = torch.zeros_like(ids[..., :n])
    for j in range(h):  # Horner's rule over the context, oldest token first; int64 wraps as uint64 does
        z = (z + ids[..., j : j + n] + 1) * MULTIPLIER
    z = (z ^ _high(z)) * FINAL
    keep[..., h:] = _high(z ^ _high(z)) * k >= 2**32
    return keep


def _high(z):
    return (z >> 32) & 0xFFFFFFFF  # logical shift


def static_mask(ids: torch.Tensor, k: int, h: int) -> torch.Tensor:
    position = torch.arange(1, ids.shape[-1] + 1, device=ids.device)
    return (position % k != 0).expand(ids.shape).clone()


def random_mask(ids: torch.Tensor, k: int, h: int) -> torch.Tensor:
    return (torch.rand(ids.shape) >= 1 / k).to(ids.device)  # CPU generator: the same draw for every device


def released_mask(ids: torch.Tensor, k: int, h: int) -> torch.Tensor:
    keep = torch.ones_like(ids, dtype=torch.bool)
    if ids.shape[-1] >= h:
        key = ids.unfold(-1, h, 1).prod(-1) % TABLE_SIZE  # (..., T-h+1); the product wraps at 64 bits
        keep[..., h - 1 :] = _table().to(ids.device)[key] >= 1 / k
    return keep


@cache
def _table():
    return torch.rand(TABLE_SIZE, generator=torch.Generator().manual_seed(TABLE_SEED))


MASKS = {"hash": hash_mask, "static": static_mask, "random": random_mask, "released-hash": released_mask}
