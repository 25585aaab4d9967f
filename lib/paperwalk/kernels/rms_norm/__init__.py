"""Root mean square normalisation of a few rows: a step of generation has two or three a layer."""

import torch
import torch.nn.functional as F

COMPILED_UP_TO = 1 << 18  # numbers in x: the compiled form is one thread, and beyond this no faster


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019, eq. 4): (..., D) -> (..., D).

    weight (D,), of x's dtype and device. Few numbers of float32 on a CPU, without gradients: one compiled loop;
    otherwise `F.rms_norm`, which starts eight operations. The two differ by rounding. Raises ValueError for a weight of
    another shape.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight of shape {tuple(weight.shape)}: must be ({x.shape[-1]},), one number a column of x")
    if _compiled(x, weight):
        from .numba_impl import rms_norm as compiled

        return compiled(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


def _compiled(x, weight):
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_grad_enabled()
    return plain and x.numel() <= COMPILED_UP_TO
