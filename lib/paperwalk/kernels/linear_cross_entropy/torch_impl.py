"""Loss and gradients chunk by chunk: a chunk's logits become its loss, then their own gradient, in place."""

from typing import Any

import torch

CHUNK = {"cpu": 2**21, "cuda": 2**25}  # logits held at once: few enough for a cache, many enough for a full GPU


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of the losses of rows hidden (K, D) with weight (V, D); of those kept (K,), if given. The gradients are made
    beside the loss, while a chunk's logits exist, and only scaled afterwards."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            loss, d_hidden, d_weight = _chunks(hidden, weight, targets, keep, *ctx.needs_input_grad[:2])
        ctx.save_for_backward(d_hidden, d_weight)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_loss: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        d_hidden, d_weight = (d if d is None else d * d_loss.to(d.dtype) for d in ctx.saved_tensors)
        return d_hidden, d_weight, None, None


def _chunks(hidden, weight, targets, keep, wants_hidden, wants_weight):
    """(loss, gradient of hidden, gradient of weight) with a loss gradient of 1; None for a gradient nobody wants."""
    on_gpu = hidden.device.type != "cpu"
    # on a GPU the sum over chunks is kept in the weight's own dtype: a copy in float32 would not fit beside it
    summed = weight.dtype if on_gpu else torch.promote_types(weight.dtype, torch.float32)
    d_hidden = torch.empty_like(hidden) if wants_hidden else None
    d_weight = torch.zeros(weight.shape, dtype=summed, device=weight.device) if wants_weight else None
    loss = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    step = _rows(len(weight), len(hidden), hidden.device.type)
    for start in range(0, len(hidden), step):
        part, wanted = hidden[start : start + step], targets[start : start + step]
        logits = part @ weight.T  # (C, V)
        losses, slope = _loss_and_slope(logits, wanted, wants_hidden or wants_weight)
        if keep is not None:
            dropped = ~keep[start : start + step]
            losses, slope = losses.masked_fill(dropped, 0), slope.masked_fill_(dropped[:, None], 0)
        loss += losses.sum()
        if d_hidden is not None:
            torch.mm(slope, weight, out=d_hidden[start : start + step])
        if d_weight is not None and slope.dtype == summed:
            d_weight.addmm_(slope.T, part)
        elif d_weight is not None:
            d_weight += slope.T @ part
    return loss, d_hidden, d_weight if d_weight is None else d_weight.to(weight.dtype)


def _rows(vocab_size, rows, device):
    """Rows of a chunk: about CHUNK logits, the chunks of nearly equal size."""
    most = max(1, CHUNK[device if device in CHUNK else "cuda"] // vocab_size)
    return max(1, -(-rows // max(1, -(-rows // most))))


def _loss_and_slope(logits, targets, wants_slope):
    """Losses (C,) of logits (C, V), and their gradient with respect to the logits, in the logits' dtype and memory."""
    if logits.is_cuda:
        from paperwalk.kernels.linear_cross_entropy.triton_impl import loss_and_slope_

        return loss_and_slope_(logits, targets, wants_slope), logits
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = targets.unsqueeze(1)
    at_target = exact.gather(1, target)
    total = exact.logsumexp(1, keepdim=True)
    if wants_slope:
        exact.sub_(total).exp_()
        exact.scatter_add_(1, target, -torch.ones_like(at_target))
    return (total - at_target).squeeze(1), exact.to(logits.dtype)
