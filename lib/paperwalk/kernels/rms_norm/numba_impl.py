"""The sum of squares and the scaling of a row in two loops, on one thread."""

import numpy as np
import torch
from numba import njit


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    rows = x.reshape(-1, x.shape[-1])  # (R, D)
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    _normalise(rows.contiguous().numpy(), weight.contiguous().numpy(), out.numpy(), np.float32(eps))
    return out.view(x.shape)


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _normalise(x, weight, out, eps):
    R, D = x.shape
    for row in range(R):
        total = np.float32(0)
        for i in range(D):
            total += x[row, i] * x[row, i]
        scale = np.float32(1) / np.sqrt(total / np.float32(D) + eps)
        for i in range(D):
            out[row, i] = x[row, i] * scale * weight[i]
