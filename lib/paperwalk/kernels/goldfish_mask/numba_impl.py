"""The paper's mask on CPU, compiled: one pass over a row, which keeps the hash of a sliding window."""

import math

import numba
import numpy as np
import torch
from numba import njit, prange

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FINAL = np.uint64(0xD6E8FEB86659FD93)
HALF = np.uint64(32)
PIECE = 1 << 15  # targets that a thread takes at a time


def hash_mask(ids: torch.Tensor, k: int, h: int) -> torch.Tensor:
    rows = ids.reshape(math.prod(ids.shape[:-1]), ids.shape[-1])  # (R, T)
    keep = torch.ones(rows.shape, dtype=torch.bool)
    if rows.shape[1] > h and len(rows):
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        _windows(rows.contiguous().numpy(), keep.numpy(), np.uint64(k), h)
        torch.set_num_threads(threads)  # numba's first call sets OpenMP's number, which is torch's too
    return keep.reshape(ids.shape)


@njit(parallel=True, cache=True)
def _windows(ids, keep, k, h):
    """keep[r, i] = not (hash of ids[r, i-h:i] below 2^64 / k), for i >= h.

    Horner's rule gives sum_j (x_j + 1) M^(h-j) over the window. One step on: take the oldest token's term away, add
    the newest, multiply by M. All modulo 2^64.
    """
    length = ids.shape[1]
    pieces = (length - h + PIECE - 1) // PIECE
    power = np.uint64(1)  # M^h
    for _ in range(h):
        power *= MULTIPLIER
    for piece in prange(len(ids) * pieces):
        row, first = piece // pieces, h + piece % pieces * PIECE
        z = np.uint64(0)
        for j in range(first - h, first):
            z = (z + np.uint64(ids[row, j]) + np.uint64(1)) * MULTIPLIER
        for i in range(first, min(first + PIECE, length)):
            y = (z ^ (z >> HALF)) * FINAL
            keep[row, i] = ((y ^ (y >> HALF)) >> HALF) * k >= np.uint64(1) << HALF
            oldest, newest = np.uint64(ids[row, i - h]), np.uint64(ids[row, i])
            z = (z - (oldest + np.uint64(1)) * power + newest + np.uint64(1)) * MULTIPLIER
