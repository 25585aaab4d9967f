"""The language-model head and the cross-entropy in one, for the kept targets alone, without all logits at once."""

import torch
import torch.nn.functional as F

from paperwalk.kernels.attention import is_stacked
from paperwalk.kernels.linear_cross_entropy.torch_impl import LinearCrossEntropy

FEW = (
    2**34
)  # products on a GPU, about: to leave out those of dropped rows takes a wait for their number, and is no gain


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, keep: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of the cross-entropies of softmax(hidden weight^T) at the kept targets: float32 scalar, nats.

    hidden (..., D) and weight (V, D) of one floating dtype; targets (...), int64 in [0, V); keep (...), bool: which
    targets count, None for all. Rows that are not kept cost no matrix product, forward or backward, whatever their
    target; on a GPU so in large problems, and not while a CUDA graph is recorded. A sum, not a mean, so that
    micro-batches add up: divide by the number of kept targets of all of them. Differentiable once, in hidden and
    weight; with tied embeddings pass the embedding as weight. Under autocast the products are of its dtype, losses and
    their sum of float32. Under `vmap`, for a stack's models, all logits are made.

    Raises TypeError or ValueError for shapes or dtypes that do not fit, and IndexError for a kept target outside [0, V)
    (on a GPU: an assertion on the device).
    """
    if torch.is_autocast_enabled(hidden.device.type) and hidden.dtype == torch.float32:
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:]:
        raise ValueError(f"weight of shape {tuple(weight.shape)}: must be (V, D) with hidden's D = {hidden.shape[-1]}")
    if not hidden.is_floating_point() or hidden.dtype != weight.dtype:
        raise TypeError(f"weight = {weight.dtype}: must be hidden's floating dtype, which is {hidden.dtype}")
    if targets.dtype != torch.int64 or targets.shape != hidden.shape[:-1]:
        found = f"{targets.dtype} {tuple(targets.shape)}"
        raise ValueError(f"targets = {found}: must be int64 of shape {tuple(hidden.shape[:-1])}")
    if keep is not None and (keep.dtype != torch.bool or keep.shape != targets.shape):
        raise ValueError(f"keep = {keep.dtype} {tuple(keep.shape)}: must be bool of shape {tuple(targets.shape)}")
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if is_stacked(hidden):  # whose shapes may not depend on what is kept
        logits = hidden @ weight.T
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(exact, targets, reduction="none")
        return losses.sum() if keep is None else (losses * keep.reshape(-1)).sum()
    keep = None if keep is None else keep.reshape(-1)
    recorded = hidden.is_cuda and torch.cuda.is_current_stream_capturing()
    if keep is not None and (recorded or (hidden.device.type != "cpu" and len(hidden) * weight.numel() <= FEW)):
        targets = targets.where(keep, 0)  # the same shapes whatever is kept
    elif keep is not None:
        rows, keep = keep.nonzero().squeeze(1), None
        hidden, targets = hidden[rows], targets[rows]
    inside = (targets >= 0) & (targets < len(weight))
    if targets.device.type == "cpu" and not inside.all():
        raise IndexError(f"targets: {targets[~inside][0]} is kept, and outside [0, {len(weight)})")
    if targets.device.type != "cpu":
        torch._assert_async(inside.all())
    return LinearCrossEntropy.apply(hidden, weight, targets, keep)
