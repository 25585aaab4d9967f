"""A row of logits -> its loss, and the row itself overwritten by the loss's gradient: one program a row."""

import torch
import triton
import triton.language as tl


@triton.jit
def _row(logits, targets, losses, stride, n, WANTS_SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    at_target = tl.load(logits + target).to(tl.float32)  # before the slope takes its place
    columns = tl.arange(0, BLOCK)
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)  # of exp(x - largest), a lane a sum
    for start in range(0, n, BLOCK):
        inside = start + columns < n
        x = tl.load(logits + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largest, x)
        kept = tl.where(larger == float("-inf"), 0.0, larger)  # a lane that has seen no logit yet
        total = total * tl.exp(largest - kept) + tl.exp(x - kept)
        largest = larger
    highest = tl.max(largest, 0)
    log_total = highest + tl.log(tl.sum(total * tl.exp(largest - highest), 0))
    tl.store(losses + row, log_total - at_target)
    if WANTS_SLOPE:
        tl.debug_barrier()  # all warps have read the row: the sums wait for none where each holds all its columns
        for start in range(0, n, BLOCK):
            inside = start + columns < n
            x = tl.load(logits + start + columns, mask=inside, other=0.0).to(tl.float32)
            slope = tl.exp(x - log_total) - tl.where(start + columns == target, 1.0, 0.0)
            tl.store(logits + start + columns, slope.to(logits.dtype.element_ty), mask=inside)


def loss_and_slope_(logits: torch.Tensor, targets: torch.Tensor, wants_slope: bool) -> torch.Tensor:
    """Losses (C,) in float32 of logits (C, V); with wants_slope the logits become the losses' gradient."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    block = min(4096, triton.next_power_of_2(logits.shape[1]))
    warps = 8 if block >= 2048 else 4  # with four a thread of 16 columns runs out of registers on an A100
    if len(logits):
        given = logits, targets, losses, logits.stride(0), logits.shape[1], wants_slope, block
        _row[(len(logits),)](*given, num_warps=warps)
    return losses
