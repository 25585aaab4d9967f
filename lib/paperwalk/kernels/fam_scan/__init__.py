"""The recurrent part of TransformerFAM (Hwang et al. 2024, Algorithm 2): one layer's FAM through N blocks."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from paperwalk.kernels.attention import is_stacked
from paperwalk.kernels.fam_scan import naive, torch_impl


class FAMWeights(NamedTuple):
    """What a layer applies to its FAM: two RMSNorm scales (D,), the fused projections of queries, keys and
    values (3 D, D), the output matrix (D, D), and SwiGLU's fused gate and up (2 d_ff, D) and down (D, d_ff)."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    out: torch.Tensor
    feed_forward_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def fam_scan(
    fam: torch.Tensor,
    own_k: torch.Tensor,
    own_v: torch.Tensor,
    rotary: Sequence[torch.Tensor],
    weights: FAMWeights,
    eps: float,
    fresh: bool,
    residual: bool = True,
    stop_gradient: Literal["feedback", "blocks"] | None = None,
    query: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Update a FAM with N blocks, one after the other.

    fam (B, F, D); own_k and own_v (N, B, H, b, head_dim): rotated keys, and values, of the blocks' tokens.
    rotary: cosines and signed sines (N, F, 1, head_dim) of the positions of the FAM that block n reads.
    weights: `FAMWeights`; eps: of the norms; fresh: the first update adds no residual.
    The last three are ablations: residual=False adds none at any update; stop_gradient "feedback" keeps the
    gradient of an update from the FAM before it, "blocks" that of the block's tokens too; query (F, D) replaces
    the FAM as the source of the queries.

    Returns the FAM after the last block (B, F, D), and the keys and values (N, B, H, F + b, head_dim) that block
    n may read: those of the FAM from before it, then its own. Differentiable in fam, own_k, own_v, the weights
    and query.
    """
    own_k, own_v = own_k.to(fam.dtype), own_v.to(fam.dtype)
    with torch.autocast(fam.device.type, enabled=False):  # a state that lives long is kept in full precision
        # `vmap` knows nothing of a gradient written out
        if residual and stop_gradient is None and query is None and not is_stacked(own_k):
            wants_grad = torch.is_grad_enabled()
            return torch_impl.FAMScan.apply(fam, own_k, own_v, *rotary, eps, fresh, wants_grad, *weights)
        return naive.fam_scan(fam, own_k, own_v, rotary, weights, eps, fresh, residual, stop_gradient, query)
