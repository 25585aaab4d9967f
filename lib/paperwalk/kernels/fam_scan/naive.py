"""The scan as autograd sees it, a block at a time, with the ablations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from paperwalk.kernels.attention import attend

if TYPE_CHECKING:
    from paperwalk.kernels.fam_scan import FAMWeights


def fam_scan(
    fam: torch.Tensor,
    own_k: torch.Tensor,
    own_v: torch.Tensor,
    rotary: Sequence[torch.Tensor],
    weights: "FAMWeights",
    eps: float,
    fresh: bool,
    residual: bool = True,
    stop_gradient: Literal["feedback", "blocks"] | None = None,
    query: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `kernels.fam_scan.fam_scan`."""
    H, head_dim = own_k.shape[2], own_k.shape[4]
    read_k, read_v = [], []
    for n, (k, v, cos, sin) in enumerate(zip(own_k.unbind(), own_v.unbind(), *rotary)):

        def project(x):
            qkv = F.linear(F.rms_norm(x, x.shape[-1:], weights.attention_norm, eps), weights.qkv)
            qk, v = qkv.unflatten(-1, (3, H, head_dim)).split((2, 1), 2)  # (B, F, 2 or 1, H, head_dim)
            qk = qk * cos[:, None] + qk.roll(head_dim // 2, -1) * sin[:, None]
            return torch.cat((qk, v), 2).permute(2, 0, 3, 1, 4)  # (3, B, H, F, head_dim)

        q, fam_k, fam_v = project(fam)
        read_k.append(torch.cat((fam_k, k), 2))  # (B, H, F + b, head_dim)
        read_v.append(torch.cat((fam_v, v), 2))
        k, v = read_k[-1], read_v[-1]
        if stop_gradient == "feedback":
            fam = fam.detach()
            q, fam_k, fam_v = project(fam)
            k, v = torch.cat((fam_k, own_k[n]), 2), torch.cat((fam_v, own_v[n]), 2)
        if query is not None:
            q = project(query[None])[0].expand_as(q)
        y = attend(q, k, v).transpose(1, 2).flatten(2)  # (B, F, D)
        x = F.linear(y, weights.out)
        if residual and not (fresh and n == 0):
            x = x + fam
        normed = F.rms_norm(x, x.shape[-1:], weights.feed_forward_norm, eps)
        gate, up = F.linear(normed, weights.gate_up).chunk(2, -1)
        fam = x + F.linear(F.silu(gate) * up, weights.down)
        fam = fam.detach() if stop_gradient == "blocks" else fam
    return fam, torch.stack(read_k), torch.stack(read_v)
