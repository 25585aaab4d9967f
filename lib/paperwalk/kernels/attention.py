"""Attention as torch has it, also for the models of a stack."""

import torch
import torch.nn.functional as F


def is_stacked(x: torch.Tensor) -> bool:
    """Whether x is one model's part of a stack, as a function under `vmap` sees it."""
    return torch._C._functorch.is_batchedtensor(x)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    grouped: bool = False,
) -> torch.Tensor:
    """torch's `scaled_dot_product_attention` of q (B, H, T, head_dim), also for the models of a stack (`vmap`)."""
    if is_stacked(q):
        return _Stacked.apply(q, k, v, mask, causal, grouped)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


class _Stacked(torch.autograd.Function):
    """Under `vmap`: the models become rows of the batch. Left to itself `vmap` loses what the gradient needs on a GPU,
    which then is NaN, and on a CPU takes one model after the other."""

    @staticmethod
    def forward(q, k, v, mask, causal, grouped):
        raise NotImplementedError("for vmap alone")

    @staticmethod
    def setup_context(ctx, inputs, output):
        raise NotImplementedError("for vmap alone")

    @staticmethod
    def vmap(info, in_dims, q, k, v, mask, causal, grouped):
        models = info.batch_size

        def rows(x, dim):
            x = x.expand(models, *x.shape) if dim is None else x.movedim(dim, 0)
            return x.flatten(0, 1)  # (models B, ...)

        if mask is not None and (in_dims[3] is not None or (mask.dim() == 4 and len(mask) > 1)):
            mask = rows(mask, in_dims[3])  # else it is the same for all rows
        q, k, v = (rows(x, dim) for x, dim in zip((q, k, v), in_dims))
        return attend(q, k, v, mask, causal, grouped).unflatten(0, (models, -1)), 0
