"""The paper's mask on a GPU: a program hashes the windows of a block of targets; the tokens' re-reads hit the cache."""

import math

import torch
import triton
import triton.language as tl

from paperwalk.kernels.goldfish_mask.torch_impl import FINAL, MULTIPLIER


@triton.jit
def _windows(ids, keep, length, k, h, multiplier, final, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = block * BLOCK + tl.arange(0, BLOCK)
    inside = i < length
    has_window = inside & (i >= h)
    z = tl.zeros((BLOCK,), tl.int64)
    for j in range(0, h):  # Horner's rule, oldest token first; int64 wraps as uint64 does
        x = tl.load(ids + row * length + i - h + j, mask=has_window, other=0).to(tl.int64)
        z = (z + x + 1) * multiplier
    z = (z ^ ((z >> 32) & 0xFFFFFFFF)) * final
    high = ((z ^ ((z >> 32) & 0xFFFFFFFF)) >> 32) & 0xFFFFFFFF
    kept = (high * k >= 4294967296) | (i < h)
    tl.store(keep + row * length + i, kept, mask=inside)


def hash_mask(ids: torch.Tensor, k: int, h: int) -> torch.Tensor:
    rows = ids.reshape(math.prod(ids.shape[:-1]), ids.shape[-1]).contiguous()
    keep = torch.empty(rows.shape, dtype=torch.bool, device=ids.device)
    block = min(1024, triton.next_power_of_2(max(1, rows.shape[1])))
    if rows.numel():
        grid = (len(rows), triton.cdiv(rows.shape[1], block))
        _windows[grid](rows, keep, rows.shape[1], k, h, MULTIPLIER, FINAL, block)
    return keep.reshape(ids.shape)
