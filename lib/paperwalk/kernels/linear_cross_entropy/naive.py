"""The loss with all logits at hand: the truth that the chunked form is tested against."""

import torch
from torch.nn import functional


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, keep: torch.Tensor | None = None
) -> torch.Tensor:
    logits = hidden @ weight.T  # (..., V)
    if keep is not None:
        logits, targets = logits[keep], targets[keep]
    return functional.cross_entropy(
        logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32)), targets.flatten(), reduction="sum"
    )
