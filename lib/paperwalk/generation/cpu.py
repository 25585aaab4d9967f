"""Faster forms of a model's layers on a CPU, for as long as a call of `generate` takes."""

import copy
from typing import cast

import torch
from torch import nn

from paperwalk.kernels.rms_norm import rms_norm

PREPARED_FROM = 8  # new tokens from which on it pays to prepare the model
PACKED_SIZE = 2**17  # numbers in a matrix from which on it pays to lay it out anew, for several rows
OUTSIDE_STEPS = ("encoder", "head")  # parts of a Seq2Seq: one has run before the steps, the other is applied by itself


class Packed(nn.Module):
    """F.linear with a copy of a matrix (N, K) in blocks, as oneDNN reads it: up to twice as fast for a few dozen rows,
    whose products are bound by the reading. The sums have another order."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise.default(x, self.weight, None, "none", [], "")


class Norm(nn.Module):
    """An nn.RMSNorm as one compiled loop."""

    def __init__(self, norm: nn.RMSNorm):
        super().__init__()
        self.weight, self.eps = norm.weight, cast(float, norm.eps)  # no norm of ours leaves it to torch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.weight, self.eps)


def can_prepare(weight: torch.Tensor) -> bool:
    here = weight.device.type == "cpu" and weight.dtype == torch.float32
    return here and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def prepared(module: nn.Module, pack: bool) -> nn.Module:
    """A copy of the module with `Norm` and, if pack, `Packed` in what a step goes through; it shares all else."""
    if isinstance(module, nn.RMSNorm):
        return Norm(module)
    if isinstance(module, nn.Linear) and pack and module.weight.numel() >= PACKED_SIZE:
        return Packed(module.weight)
    parts = module.named_children()
    children: dict[str, nn.Module | None] = {
        name: part if name in OUTSIDE_STEPS else prepared(part, pack) for name, part in parts
    }
    if not children:
        return module
    twin = copy.copy(module)
    twin._modules = children
    return twin
